"""Whatever stands in a file: it is read right, or refused with its place and a mend; nothing hangs, crashes or is lost."""

import csv
import gzip
import io
import json
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.errors import InputError
from pluralign.feedback import Table, decode, read

NAMES = {"prompt": "p", "first": "l", "second": "r", "outcome": "o", "annotator": "w"}
COLUMNS = ["p", "l", "r", "o", "w"]
bounded = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
text = st.text(st.sampled_from("ab01,;\"'\t\n\r\0\x1a\x85\u2028\ufeff é😀"), max_size=5)
row = st.fixed_dictionaries(dict.fromkeys(COLUMNS, text))
tables = st.lists(row, min_size=1, max_size=6)
word = st.sampled_from(["a", "b,", '"c"', "d\n"])
votes = st.fixed_dictionaries({**dict.fromkeys("plrw", word), "o": st.sampled_from(["left", "right", "tie"])})


def as_csv(rows, delimiter=",", end="\n") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(table: pa.Table, **options) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


WRITERS = {
    "t.csv": as_csv,
    "crlf.csv": lambda rows: as_csv(rows, end="\r\n"),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "t.tsv": lambda rows: as_csv(rows, "\t"),
    "t.jsonl": lambda rows: "\n".join(json.dumps(r) for r in rows).encode(),
    "utf8.ndjson": lambda rows: "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows).encode(),
    "t.json": lambda rows: json.dumps(rows).encode(),
    "t.parquet": lambda rows: as_parquet(pa.Table.from_pylist(rows)),
    "plain.parquet": lambda rows: as_parquet(pa.Table.from_pylist(rows), use_dictionary=False, row_group_size=2),
    "t.csv.gz": lambda rows: gzip.compress(as_csv(rows), mtime=0),
}


def texts(path) -> list[dict]:
    rows = read.read(path, COLUMNS)
    cells = {name: column.texts() for name, column in rows.columns.items()}
    assert {len(column) for column in cells.values()} <= {len(rows.place)}
    return [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]


@bounded
@given(st.sampled_from(sorted(WRITERS)), tables, st.integers(1, 4))
def test_every_text_comes_back_as_it_was(tmp_path, monkeypatch, name, rows, batch):
    monkeypatch.setattr(read, "BATCH", batch)
    monkeypatch.setattr(read, "ARROW_BATCH", batch)
    (tmp_path / name).write_bytes(WRITERS[name](rows))
    assert texts(tmp_path / name) == rows


@bounded
@given(st.sampled_from(sorted(WRITERS)), tables, st.floats(0, 1))
def test_a_cut_file_is_refused_or_gives_its_first_rows(tmp_path, name, rows, share):
    whole = WRITERS[name](rows)
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    try:
        found = texts(tmp_path / name)
    except InputError as error:
        assert name in str(error)
    else:  # at most the last row is not whole: no text format can tell that its end is missing
        assert found[:-1] == rows[: len(found[:-1])]
        assert len(found) <= len(rows)


@bounded
@given(
    st.sampled_from(sorted(WRITERS)),
    st.lists(votes, min_size=1, max_size=6),
    st.floats(0, 0.999),
    st.binary(max_size=3),
)
def test_a_damaged_table_is_read_or_refused(tmp_path, name, rows, share, junk):
    whole = WRITERS[name](rows)
    at = int(share * len(whole))
    (tmp_path / name).write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    try:
        found = Table(tmp_path / name, **NAMES).load()
    except InputError as error:
        assert name in str(error) or "column 'o'" in str(error)
    else:
        aside = sum(found.provenance["set_aside"].values())
        assert found.provenance["rows"] == len(found.choices) + aside
        if not junk:  # nothing was damaged
            assert aside == sum(row["l"] == row["r"] for row in rows)
            assert found.provenance["rows"] == len(rows)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.just("\ud800") | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=4,
)


@bounded
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, values)), min_size=1, max_size=4))
def test_mixed_types_are_read_as_text_or_named(tmp_path, rows):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    try:
        found = texts(path)
    except InputError as error:
        assert any(f"line {n}, column" in str(error) for n in range(1, len(rows) + 1))
    else:
        plain = [{k: v for k, v in r.items() if not isinstance(v, list | dict)} for r in rows]
        for read_row, given_row in zip(found, plain, strict=True):
            for name, value in given_row.items():
                missing = value is None or value != value
                assert read_row[name] == (None if missing else str(value))


BAD = {
    "an empty file": ("t.csv", b"", "is empty"),
    "an empty gzip file": ("t.csv.gz", b"", "is empty"),
    "an empty list": ("t.json", b"[]", "has no rows"),
    "nothing where a list was": ("t.json", b"", "line 1, column 1: not JSON"),
    "a byte order mark alone": ("t.csv", b"\xef\xbb\xbf", "is empty"),
    "only a header": ("t.csv", b"p,l,r,o,w\r\n", "has no rows"),
    "an empty Parquet file": ("t.parquet", b"", "not a Parquet file"),
    "no rows": ("t.parquet", as_parquet(pa.table({"p": pa.array([], pa.string())})), "has no rows"),
    "a doubled column": ("t.parquet", as_parquet(pa.table([["1"], ["2"]], ["p", "p"])), "names .'p'. more than once"),
    "a doubled name": ("t.jsonl", b'{"p": 1}\n{"p": 1, "p": 2}', "line 2: an object has the name 'p' more than once"),
    "deep nesting": ("t.jsonl", b'{"p": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "line 1: lists or objects lie too"),
    "deep nesting in a list": ("t.json", b"[" * 200_000, "line 1: lists or objects lie too deep"),
    "a number of 5,000 digits": ("t.jsonl", b'{"p": 1}\n{"p": ' + b"9" * 5_000 + b"}", "line 2: .*digits"),
    "a text in UTF-16": ("t.jsonl", '{"p": 1}'.encode("utf-16"), "line 1, byte 1: .* is not UTF-8"),
    "Latin-1": ("t.csv", "p,l\nä,1\n".encode("latin-1"), "line 2, byte 1: .*iconv"),
    "line ends of an old Mac": ("t.csv", b"p,l\r1,2\r", "line 1: a carriage return outside quotes. If lines end"),
    "a blank line first": ("t.csv", b"\np,l\n1,2\n", "line 1 is blank; the first line must name the columns"),
    "lines of JSON under another name": ("t.json", b'{"p": 1}\n{"p": 2}\n', r"line 2, .* its name must end in \.jsonl"),
    "a quote at the end": ("t.csv", b'p,l\n1,"', "line 2: .*quote"),
    "a wide file": ("t.csv", b",".join(b"%d" % i for i in range(20_000)), "line 1: 20,000 columns, more than 10,000"),
    "wide objects": ("t.jsonl", json.dumps(dict.fromkeys(map(str, range(20_000)))).encode(), "20,000 columns"),
    "bytes": ("t.parquet", as_parquet(pa.table({"p": ["1", "2"], "l": [b"", b"x"]})), "row 1, column 'l': found bytes"),
    "a struct": ("t.parquet", as_parquet(pa.table({"p": [None, {"x": 1}]})), "row 2, column 'p': found object"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(tmp_path, case):
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read.read(tmp_path / name, COLUMNS)


def test_ten_million_columns_are_refused_before_they_are_made(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a," * 10**7 + b"a\n1\n")
    monkeypatch.setattr(read.csv, "reader", None)  # not even reached
    with pytest.raises(InputError, match="line 1: 10,000,001 columns"):
        read.read(path, COLUMNS)


def test_many_columns_are_not_all_listed(tmp_path):
    path = tmp_path / "t.csv"
    names = [f"column {i}" for i in range(9_000)]
    path.write_text(f"{','.join(names)}\n{','.join(names)}\n")
    with pytest.raises(InputError, match="'column 49', and 8950 more") as caught:
        Table(path, **NAMES).load()
    assert len(str(caught.value)) < 2_000


def test_text_that_is_no_utf8_in_parquet_has_a_row(tmp_path):
    offsets, content = struct.pack("<3i", 0, 1, 2), b"a\xff"
    cells = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    (tmp_path / "t.parquet").write_bytes(as_parquet(pa.table({"p": cells})))
    with pytest.raises(InputError, match=r"row 2, column 'p': .*utf-8"):
        read.read(tmp_path / "t.parquet", COLUMNS)


@pytest.mark.parametrize("content", [b"\0" * 3_000_000, b"p,l\n" + b"x,y\n" * 700_000])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch, content):
    packed = gzip.compress(content)
    assert len(packed) * decode.RATIO < len(content)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(packed)
    unpacked = []
    monkeypatch.setattr(decode, "UNPACKED", 10**6)
    readinto = decode._Unpacked.readinto
    monkeypatch.setattr(decode._Unpacked, "readinto", lambda *a: unpacked.append(readinto(*a)) or unpacked[-1])
    with pytest.raises(InputError, match=r"unpacks to more than 1,000,000 bytes and 200 times.*gunzip"):
        read.read(path, COLUMNS)
    assert sum(unpacked) <= 10**6


def test_what_is_only_large_or_only_dense_is_read(tmp_path, monkeypatch):
    path = tmp_path / "t.csv.gz"
    dense = b"p,l\n" + b"x,y\n" * 100_000
    path.write_bytes(gzip.compress(dense))
    assert len(dense) > decode.RATIO * path.stat().st_size
    assert len(read.read(path, COLUMNS).place) == 100_000
    monkeypatch.setattr(decode, "UNPACKED", 1_000)
    noise = "".join(f"{zlib.crc32(b'%d' % i)},y\n" for i in range(20_000))
    path.write_bytes(gzip.compress(f"p,l\n{noise}".encode()))
    assert len(read.read(path, COLUMNS).place) == 20_000


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.parquet", "t.csv.gz"])
def test_folders_and_what_is_not_there(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        read.read(tmp_path / name, COLUMNS)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read.read(tmp_path / name, COLUMNS)
    with pytest.raises(InputError, match="cannot be read"):
        read.read(tmp_path / f"{'x' * 300}{name}", COLUMNS)
