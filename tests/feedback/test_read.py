import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pluralign.errors import InputError
from pluralign.feedback import decode, read
from pluralign.feedback.cells import numbered, sorted_codes
from pluralign.feedback.columns import Rows

GOOD = b'a,b\n1,"x\ny"\n2,z\n'


def cells(rows: Rows) -> dict[str, list[str | None]]:
    return {name: column.texts() for name, column in rows.columns.items()}


def test_places_count_lines_over_batches_blank_lines_and_long_cells(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\n1,"x\ny"\n\n2,z\n3,"\n\n"\n4,w\n')
    for batch in (1, 2, 3, 100):
        monkeypatch.setattr(read, "BATCH", batch)
        rows = read.read(path, ["b", "a", "nowhere"])
        assert rows.place.tolist() == [2, 5, 6, 9]
        assert rows.names == ("a", "b")
        assert cells(rows) == {"b": ["x\ny", "z", "\n\n", "w"], "a": ["1", "2", "3", "4"]}


def test_a_cell_may_be_long(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1," + "x" * 300_000 + "\n")
    assert cells(read.read(path, ["b"])) == {"b": ["x" * 300_000]}


def test_a_missing_cell_is_not_an_empty_one(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": "", "b": NaN}\n{"a": null}\n{"b": "NA"}\n{"b": "nan", "a": "null"}\n')
    assert cells(read.read(path, ["a", "b"])) == {"a": ["", None, None, "null"], "b": [None, None, "NA", "nan"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b\n", "t.csv has no rows"),
        ("t.jsonl", b"\n", "t.jsonl has no rows"),
        ("t.csv", b"a,b,a\n1,2,3\n", r"line 1: the header names \['a'\] more than once"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n1\n", "header has 2 cells, but 2 lines have not: line 3 has 3; line 4 has 1"),
        ("t.csv", b'a,b\n1,"x\n2,y\n', "line 3: .*quote"),
        ("t.csv", b'a,b\n1,"x"y\n', "line 2: .*quote"),
        ("t.csv", b"a,b\n1,x\n2,caf\xe9\n", r"line 3, byte 6: b'\\xe9' is not UTF-8"),
        ("t.csv", "a,b\n1,x\n".encode("utf-16"), "line 1, byte 1: .* is not UTF-8"),
        ("t.csv.gz", gzip.compress(GOOD, mtime=0)[:-9], "not a whole gzip"),
        ("t.csv.gz", GOOD, "not a whole gzip"),
        ("t.jsonl.gz", gzip.compress(b'{"a": "1"}\n' * 5, mtime=0)[:20], "not a whole gzip"),
        ("t.jsonl", b'{"a": "1"}\n[1]\n', "line 2 is a JSON list, not an object"),
        ("t.jsonl", b'{"a": "1"}\n\n{"a": \n', "line 3, column .*: not JSON"),
        ("t.jsonl", b'{"a": "1"}\n{"a": {"b": 1}}\n', "line 2, column 'a': found object where a text is needed"),
        ("t.jsonl", b'{"a": "1"}\n{"a": "\\ud83d"}\n', "line 2, column 'a' is not text"),
        ("t.jsonl", b'{"a": "\xff"}\n', "line 1, byte 8"),
        ("t.json", b'{"a": []}', "holds a JSON object; a list"),
        ("t.json", b'[{"a": "1"}, 3]', "record 2 is a JSON int"),
        ("t.json", b'[{"a": "1"},\n {"a" "2"}]', "line 2, column 7: not JSON"),
        ("t.parquet", b"PAR1 and then nothing", "not a Parquet file that can be read"),
    ],
)
def test_what_cannot_be_read_names_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read.read(path, ["a"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.csv.gz", "t.jsonl.gz", "t.parquet"]),
    st.integers(0, 80),
    st.binary(max_size=6),
)
@example("t.csv", 4, b'"')
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, name, cut, junk):
    content = (
        GOOD if ".csv" in name or ".tsv" in name else b'[{"a": "1",\n"b": 2}]' if name == "t.json" else b'{"a": "1"}\n'
    )
    content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
    path = tmp_path / name
    path.write_bytes(content[:cut] + junk + content[cut + 1 :])
    try:
        rows = read.read(path, ["a", "b"])
    except InputError as error:
        assert name in str(error)
    else:
        assert all(len(column.codes) == len(rows.place) for column in rows.columns.values())


def test_a_near_name_is_suggested(tmp_path):
    (tmp_path / "votes.jsonl").write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"does not exist.*'votes.jsonl' is there"):
        read.read(tmp_path / "vote.jsonl", ["a"])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read.read(tmp_path / "folder.csv", ["a"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.none() | st.sampled_from(["", "a", "b", "NA", "é", "a" * 50]), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]),
)
def test_texts_of_many_batches_are_held_once_in_order_of_appearance(tmp_path, texts, batch, form):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": pa.array(texts).cast(form), "n": range(len(texts))}), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "ARROW_BATCH", batch)
        rows = read.read(path, ["a", "n"])
    assert cells(rows) == {"a": texts, "n": [str(n) for n in range(len(texts))]}
    assert rows.columns["a"].values == list(dict.fromkeys(text for text in texts if text is not None))


def test_numbers_that_are_nan_are_missing(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [0.5, float("nan"), None, 0.5]}), path)
    assert cells(read.read(path, ["a"])) == {"a": ["0.5", None, None, "0.5"]}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), min_size=1, max_size=5)),
    st.sampled_from([1, 10**4, 10**11]),
)
def test_codes_are_numbered_as_by_sorting_and_by_looking(columns, step):
    wide = [(np.frombuffer(column, np.uint8).astype(int) % 4 - 1) * step for column in columns]
    wide = [np.maximum(column, -1) for column in wide]
    rows = list(zip(*(c.tolist() for c in wide), strict=True))
    for name, known in ((sorted_codes, sorted(set(rows))), (numbered, list(dict.fromkeys(rows)))):
        number, first = name(*wide)
        assert number.tolist() == [known.index(row) for row in rows]
        assert first.tolist() == [rows.index(row) for row in known]


def test_a_parquet_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    table = pa.table({"a": ["x" * 1_000_000], "b": ["y"]})
    parquet.write_table(table, path, compression="zstd")
    assert cells(read.read(path, ["a"])) == {"a": ["x" * 1_000_000]}  # 2**28 bytes are allowed
    monkeypatch.setattr(decode, "UNPACKED", 10_000)
    with pytest.raises(InputError, match=r"unpacks to [\d,]+ bytes, more than 10,000 and 200 times.*decode.UNPACKED"):
        read.read(path, ["a"])
    assert cells(read.read(path, ["b"])) == {"b": ["y"]}  # of what is not read it does not matter
    parquet.write_table(table, path, compression="none")
    assert len(read.read(path, ["a"]).place) == 1


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_text_that_many_rows_share_is_not_written_out(tmp_path, store_schema):
    path = tmp_path / "t.parquet"
    long = pa.DictionaryArray.from_arrays(np.zeros(3_000, np.int32), ["x" * 1_000_000])
    parquet.write_table(pa.table({"a": long}), path, store_schema=store_schema)
    column = read.read(path, ["a"]).columns["a"]
    assert column.values == ["x" * 1_000_000] and not column.codes.any()
    assert pa.default_memory_pool().max_memory() < 1e9  # of 3e9 bytes
