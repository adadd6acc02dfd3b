import csv
import gzip
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pydantic
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign import artifacts, feedback
from pluralign.errors import InputError
from pluralign.feedback import Ratings, Table, read
from pluralign.types import FORMS, Feedback

NAMES = {"prompt": "prompt", "first": "left", "second": "right", "outcome": "winner", "annotator": "worker"}
ROWS = [
    {"prompt": "q", "left": "a", "right": "b", "winner": "left", "worker": "007", "age": "old"},
    {"prompt": "q", "left": "b", "right": "a", "winner": " Right ", "worker": "NA", "age": "new"},
    {"prompt": 'p, "x"\ny', "left": "a", "right": "", "winner": "TIE", "worker": "007", "age": "old"},
    {"prompt": "q", "left": "a", "right": "c", "winner": "model_b", "worker": "1e3", "age": ""},
    {"prompt": "q", "left": "a", "right": "a", "winner": "left", "worker": "x", "age": ""},
    {"prompt": "q", "left": "a", "right": "b", "winner": "left", "worker": "007", "age": "old"},
]


def write_csv(path, rows=ROWS, delimiter=",", end="\n"):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def compress(path):
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def judgements(votes: Feedback) -> list[tuple]:
    """Each judgement in the words of its source, whatever the numbering."""
    items, people, c = votes.items, votes.annotators, votes.choices
    prompt, response, who = list(items["prompt"]), list(items["response"]), list(people["id"])
    return [
        (who[a], prompt[s[0]], prompt[s[1]], response[s[0]], response[s[1]], tuple(r))
        for a, s, r in zip(c.annotator.tolist(), c.slate.tolist(), c.rank.tolist(), strict=True)
    ]


def assert_same(one: Feedback, two: Feedback):
    assert one.items.to_dict() == two.items.to_dict()
    assert one.annotators.to_dict() == two.annotators.to_dict()
    for name, value in vars(one.choices).items():
        np.testing.assert_array_equal(value, getattr(two.choices, name), err_msg=name)


def test_rows_become_judgements_as_by_hand(tmp_path):
    votes = Table(write_csv(tmp_path / "votes.csv"), **NAMES, attributes=("age",)).load()
    assert votes.items.to_dict() == {
        "prompt_id": [0, 0, 1, 1, 0],
        "prompt": ["q", "q", 'p, "x"\ny', 'p, "x"\ny', "q"],
        "response": ["a", "b", "a", "", "c"],
        "source": [""] * 5,
    }
    assert votes.annotators.to_dict() == {
        "id": ["007", "NA", "1e3", "x"],
        "weight": [1.0] * 4,
        "age": ["old", "new", "", ""],
    }
    assert votes.choices.slate.tolist() == [[0, 1], [1, 0], [2, 3], [0, 4], [0, 1]]
    assert votes.choices.rank.tolist() == [[0, 1], [1, 0], [0, 0], [1, 0], [0, 1]]
    assert votes.choices.annotator.tolist() == [0, 1, 0, 2, 0]
    assert votes.choices.context.tolist() == [0, 0, 1, 0, 2]
    assert votes.provenance["rows"] == 6
    assert votes.provenance["set_aside"] == {"a response compared with itself": 1}
    assert votes.provenance["set_aside_at"] == {"a response compared with itself": [7]}  # the third row has two lines


def test_a_table_reads_as_in_the_readme(tmp_path, monkeypatch):
    write_csv(tmp_path / "votes.csv")
    monkeypatch.chdir(tmp_path)
    votes = feedback.Table(
        "votes.csv", prompt="prompt", first="left", second="right", outcome="winner", annotator="worker"
    ).load()
    assert len(votes.choices) == 5


def test_every_format_gives_the_same_feedback(tmp_path):
    rows = [{**row, "age": row["age"] or None} for row in ROWS]  # CSV knows no null: both are no attribute
    write_csv(tmp_path / "v.csv")
    write_csv(tmp_path / "crlf.csv", end="\r\n")
    write_csv(tmp_path / "v.tsv", delimiter="\t")
    write_jsonl(tmp_path / "v.jsonl", rows)
    (tmp_path / "v.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "v.csv").read_bytes())
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "v.jsonl").read_bytes())
    (tmp_path / "blank.jsonl").write_text((tmp_path / "v.jsonl").read_text().replace("\n", "\r\n\r\n"))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    shuffled = Dataset.from_list(rows[::-1]).select(range(5, -1, -1))  # rows behind an index
    paths = ["crlf.csv", "v.tsv", "v.jsonl", "v.json", "bom.csv", "bom.jsonl", "blank.jsonl", "v.parquet"]
    paths = [tmp_path / name for name in paths]
    files = [*paths, compress(tmp_path / "v.csv"), compress(tmp_path / "v.jsonl"), Dataset.from_list(rows), shuffled]
    expected = Table(tmp_path / "v.csv", **NAMES, attributes=("age",)).load()
    for file in files:
        assert_same(Table(file, **NAMES, attributes=("age",)).load(), expected)
    with pytest.raises(AssertionError):
        other = [{**row, "left": "z"} if i == 3 else row for i, row in enumerate(ROWS)]
        assert_same(Table(write_csv(tmp_path / "other.csv", other), **NAMES, attributes=("age",)).load(), expected)


def test_numbers_are_read_as_they_would_be_written(tmp_path):
    rows = [{**row, "worker": 7 + i, "age": 1.5} for i, row in enumerate(ROWS)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    expected = Table(write_csv(tmp_path / "v.csv", rows), **NAMES, attributes=("age",)).load()
    assert expected.annotators["id"][0] == "7"
    for file in (tmp_path / "v.parquet", write_jsonl(tmp_path / "v.jsonl", rows), Dataset.from_list(rows)):
        assert_same(Table(file, **NAMES, attributes=("age",)).load(), expected)


def test_class_labels_are_read_by_name(tmp_path):
    labels = Features(
        {
            **dict.fromkeys(["prompt", "left", "right", "worker"], Value("string")),
            "winner": ClassLabel(names=["right", "left", "tie"]),
        }
    )
    rows = [
        {**{k: row[k] for k in ("prompt", "left", "right", "worker")}, "winner": i % 3}
        for i, row in enumerate(ROWS[:3])
    ]
    votes = Table(Dataset.from_list(rows, features=labels), **NAMES).load()
    assert votes.choices.rank.tolist() == [[1, 0], [0, 1], [0, 0]]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_order_of_rows_changes_only_the_numbering(tmp_path, monkeypatch, data):
    monkeypatch.setattr(read, "BATCH", data.draw(st.integers(1, 4)))
    cell = st.text(st.sampled_from('ab,"\n\t é'), max_size=3)
    row = st.fixed_dictionaries(
        {
            "prompt": st.sampled_from(["p", 'q, "r"', "s\nt"]),
            "left": cell,
            "right": cell,
            "winner": st.sampled_from(["left", "right", "tie"]),
            "worker": st.sampled_from(["1", "01", "w"]),
        }
    )
    some = st.lists(row, min_size=1, max_size=12).filter(lambda rows: any(r["left"] != r["right"] for r in rows))
    rows = data.draw(some)
    permuted = data.draw(st.permutations(rows))
    one = Table(write_csv(tmp_path / "one.csv", rows), **NAMES).load()
    two = Table(write_csv(tmp_path / "two.csv", permuted), **NAMES).load()
    rank = {"left": (0, 1), "right": (1, 0), "tie": (0, 0)}
    by_hand = [
        (r["worker"], r["prompt"], r["prompt"], r["left"], r["right"], rank[r["winner"]])
        for r in rows
        if r["left"] != r["right"]
    ]
    assert judgements(one) == by_hand
    assert Counter(judgements(two)) == Counter(by_hand)
    assert one.provenance["set_aside"] == two.provenance["set_aside"]


def test_a_join_brings_texts_and_its_own_columns_yield(tmp_path):
    left = [
        {"id": "2", "prompt": "ignored", "winner": "left", "worker": "w"},
        {"id": "1", "prompt": "kept", "winner": "tie", "worker": "w"},
    ]
    right = [
        {"id": 1, "prompt": "joined", "left": "a", "right": "b"},
        {"id": 2, "prompt": "joined", "left": "c", "right": "d"},
    ]
    votes = Table(write_csv(tmp_path / "v.csv", left), **NAMES, join=write_jsonl(tmp_path / "t.jsonl", right)).load()
    assert [j[1:5] for j in judgements(votes)] == [("ignored", "ignored", "c", "d"), ("kept", "kept", "a", "b")]


def test_a_join_names_the_line_and_key_that_it_lacks(tmp_path):
    left = [{"id": i, "prompt": "p", "winner": "left", "worker": "w"} for i in ("1", "8", "9")]
    right = [{"id": 1, "left": "a", "right": "b"}]
    votes = write_csv(tmp_path / "v.csv", left)
    with pytest.raises(
        InputError, match=r"v.csv: 2 rows .* key 'id' that t.jsonl does not have\. line 3: '8'; line 4: '9'"
    ):
        Table(votes, **NAMES, join=write_jsonl(tmp_path / "t.jsonl", right)).load()
    with pytest.raises(InputError, match=r"t.jsonl: the key 'id' is '1' in more than one row, first at line 1"):
        Table(votes, **NAMES, join=write_jsonl(tmp_path / "t.jsonl", right * 2)).load()
    with pytest.raises(InputError, match=r"no column 'key'"):
        Table(votes, **NAMES, join=write_jsonl(tmp_path / "t.jsonl", right), key="key").load()
    with pytest.raises(InputError, match=r"v.csv, line 2 \(with t.jsonl, line 1\), column 'right': missing"):
        whole = [{"id": i, "left": "a", "right": None} for i in (1, 8, 9)]
        Table(votes, **NAMES, join=write_jsonl(tmp_path / "t.jsonl", whole)).load()


def test_sources_name_every_writer_of_an_item(tmp_path):
    rows = [
        {"prompt": "q", "left": "yes", "right": "no", "winner": "tie", "worker": "w", "x": "M1", "y": "M2"},
        {"prompt": "q", "left": "no", "right": "yes", "winner": "tie", "worker": "w", "x": "M2", "y": "M3"},
        {"prompt": "q", "left": "no", "right": "maybe", "winner": "tie", "worker": "w", "x": "M2", "y": None},
    ]
    votes = Table(write_jsonl(tmp_path / "v.jsonl", rows), **NAMES, sources=("x", "y")).load()
    assert dict(zip(votes.items["response"], votes.items["source"], strict=True)) == {
        "yes": "M1 | M3", "no": "M2", "maybe": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("times", "context"),
    [
        (["10", "9", "2.5", "1"], [2, 1, 0, 0]),
        (["2016-02-01", "2016-01-31", "2015-12-01", "1"], [2, 1, 0, 0]),
        (["1", "1", "0", "1"], [1, 2, 0, 0]),
    ],
)
def test_order_sorts_each_annotators_work(tmp_path, times, context):
    rows = [{**ROWS[0], "right": f"b{i}", "worker": "wwwv"[i], "time": time} for i, time in enumerate(times)]
    votes = Table(write_csv(tmp_path / "v.csv", rows), **NAMES, order="time").load()
    assert votes.choices.context.tolist() == context


def test_what_else_a_row_says_becomes_columns_as_by_hand(tmp_path):
    rows = [
        {**ROWS[0], "asked": "kind", "much": "slightly", "when": "2024-01-31T16:59:52+01:00", "hit": "s2"},
        {**ROWS[1], "asked": "true", "much": "3", "when": "1706716792", "hit": "s1"},
        {**ROWS[2], "asked": "kind", "much": "3", "when": "1706716700250", "hit": ""},
        {**ROWS[3], "asked": "kind", "much": " Not Sure ", "when": "", "hit": "s2"},
        {**ROWS[4], "asked": "late", "much": "1", "when": "", "hit": "s3"},
        {**ROWS[5], "asked": "kind", "much": "2.0", "when": "2024-01-31 15:59:51.5", "hit": "s2"},
    ]
    more = {"objective": "asked", "strength": "much", "time": "when", "sitting": "hit"}
    table = Table(write_csv(tmp_path / "v.csv", rows), **NAMES, **more, strengths={"Slightly": 1, "not sure": 0})
    votes = table.load()
    assert votes.objectives == ("kind", "true", "late")
    c = votes.choices
    assert c.objective.tolist() == [0, 1, 0, 0, 0]
    assert c.strength.tolist() == [1, 3, 0, 0, 2]  # the third is a tie
    # `date -u -d 2024-01-31T16:59:52+01:00 +%s` gives 1706716792
    assert c.time.tolist() == [1706716792, 1706716792, 1706716700, -1, 1706716791]
    assert c.sitting.tolist() == [0, 1, -1, 0, 0]
    assert c.context.tolist() == [2, 0, 0, -1, 1]  # by time, unknown without one
    assert {FORMS[i] for i in c.form} == {"comparison"}
    assert pydantic.TypeAdapter(Table).validate_python(
        {"path": "v.csv", **NAMES, **more, "strengths": {"much": "2"}, "form": "correction"}
    ) == Table("v.csv", **NAMES, **more, strengths={"much": 2}, form="correction")


def test_order_goes_before_time(tmp_path):
    rows = [{**ROWS[0], "right": f"b{i}", "when": f"2024-01-0{3 - i}", "n": n} for i, n in enumerate("132")]
    path = write_csv(tmp_path / "v.csv", rows)
    assert Table(path, **NAMES, time="when").load().choices.context.tolist() == [2, 1, 0]
    assert Table(path, **NAMES, time="when", order="n").load().choices.context.tolist() == [0, 2, 1]


def test_an_order_with_one_long_text_is_no_wide_array(tmp_path):
    rows = [{**ROWS[0], "right": f"b{i}", "n": "x" * (10_000_000 if i == 7 else 1) + f"{i:04}"} for i in range(2_000)]
    context = Table(Dataset.from_list(rows), **NAMES, order="n").load().choices.context
    assert context[7] == 1_999  # as an array of texts of equal width, 80 GB


def test_time_is_read_from_what_parquet_and_data_sets_hold(tmp_path):
    # `date -u -d @1700000000` is 14 November 2023, 22:13:20
    when = pa.array([1_700_000_000_123] * 6, pa.timestamp("ms"))
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS).append_column("when", when), tmp_path / "v.parquet")
    for file in (tmp_path / "v.parquet", Dataset(pyarrow.parquet.read_table(tmp_path / "v.parquet"))):
        assert set(Table(file, **NAMES, time="when").load().choices.time.tolist()) == {1_700_000_000}


@pytest.mark.parametrize("value", ["yesterday", "20240131", "17", "-1", "nan", "1e30", "1969-12-31", "2024-13-01"])
def test_what_is_no_time_is_named(tmp_path, value):
    rows = [{**ROWS[0], "when": "2024-01-31"}, *[{**ROWS[0], "when": value}] * 3]
    with pytest.raises(InputError, match=rf"line 3 \(and 2 more\), column 'when': '{value}' is no time: ISO 8601"):
        Table(write_csv(tmp_path / "v.csv", rows), **NAMES, time="when").load()


@pytest.mark.parametrize("value", ["very", "-1", "128", "1.5", "nan", "inf"])
def test_what_is_no_strength_is_named(tmp_path, value):
    rows = [{**ROWS[0], "much": much} for much in ("", "127", value)]
    with pytest.raises(InputError, match=rf"line 4, column 'much': '{value}' is no strength: .*in strengths"):
        Table(write_csv(tmp_path / "v.csv", rows), **NAMES, strength="much").load()


def test_an_outcome_may_say_how_strongly(tmp_path):
    words = {"A is much better": "first:3", "b slightly better": "second:1", "-2": "first:2", "same": "tie"}
    rows = [{**ROWS[0], "winner": word} for word in [*words, "left"]]
    c = Table(write_csv(tmp_path / "v.csv", rows), **NAMES, outcomes=words).load().choices
    assert c.rank.tolist() == [[0, 1], [1, 0], [0, 1], [0, 0], [0, 1]]
    assert c.strength.tolist() == [3, 1, 2, 0, 0]


def test_a_correction_prefers_the_edited_text_unless_said_otherwise(tmp_path):
    path = write_csv(tmp_path / "v.csv")
    votes = Table(path, **(NAMES | {"outcome": None}), form="correction").load()
    assert votes.choices.rank.tolist() == [[0, 1]] * 5
    assert {FORMS[i] for i in votes.choices.form} == {"correction"}
    assert votes.provenance["set_aside"] == {"a correction that changes nothing": 1}
    said = Table(path, **NAMES, form="correction").load()
    assert said.choices.rank.tolist() == Table(path, **NAMES).load().choices.rank.tolist()
    assert said.choices.form.tolist() == votes.choices.form.tolist()


def test_an_objective_must_be_named(tmp_path):
    rows = [{**ROWS[0], "asked": "kind"}, {**ROWS[0], "asked": " "}]
    with pytest.raises(InputError, match="line 3, column 'asked': ' '"):
        Table(write_csv(tmp_path / "v.csv", rows), **NAMES, objective="asked").load()


def test_conversations_are_read_as_text(tmp_path):
    def turn(role, content):
        return {"role": role, "content": content}

    long = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Yes?"), turn("user", "2 + 2?")]
    rows = [
        {**ROWS[0], "prompt": prompt, "left": [turn("assistant", "4")], "right": [turn("assistant", "five")]}
        for prompt in (long, [turn("user", "2 + 2?")], long)
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    (tmp_path / "v.json").write_text(json.dumps(rows))
    said = "system: Be brief.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: 2 + 2?"
    for file in (
        write_jsonl(tmp_path / "v.jsonl", rows), tmp_path / "v.json", tmp_path / "v.parquet", Dataset.from_list(rows),
    ):  # fmt: skip
        votes = Table(file, **NAMES).load()
        assert list(votes.items["prompt"]) == [said, said, "2 + 2?", "2 + 2?"]
        assert list(votes.items["response"]) == ["4", "five"] * 2


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        ["Hi"],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ["Hi"]}],
        [{"role": "user", "content": "Hi", "image": "x.png"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant"}],
        {"role": "user", "content": "Hi"},
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, prompt):
    rows = [ROWS[0], {**ROWS[0], "prompt": prompt}]
    with pytest.raises(InputError, match=r"line 2, column 'prompt': found (list|object) where a text is needed"):
        Table(write_jsonl(tmp_path / "v.jsonl", rows), **NAMES).load()


def test_an_attribute_must_not_change(tmp_path):
    rows = [*ROWS, {**ROWS[0], "age": "new"}]
    with pytest.raises(
        InputError,
        match=r"annotator '007' has two values of 'age': 'old' \(v.csv, line 2\) and 'new' \(v.csv, line 9\)",
    ):
        Table(write_csv(tmp_path / "v.csv", rows), **NAMES, attributes=("age",)).load()


def test_outcome_words_can_be_given_and_win_over_the_common_ones(tmp_path):
    rows = [{**ROWS[0], "winner": word} for word in ("1", "2", "A", "Tie (bothbad)")]
    votes = Table(
        write_csv(tmp_path / "v.csv", rows), **NAMES, outcomes={"1": "first", "2": "second", "a": "tie"}
    ).load()
    assert votes.choices.rank.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_unknown_outcomes_are_counted_and_digits_never_guessed(tmp_path):
    rows = [{**ROWS[0], "winner": word} for word in ("left", "1", "won", "1", None)]
    with pytest.raises(InputError) as caught:
        Table(write_jsonl(tmp_path / "v.jsonl", rows), **NAMES).load()
    message = str(caught.value)
    for part in (
        "'winner' has 3 unknown outcomes",
        "'1' in 2 rows, first at v.jsonl, line 2",
        "'won' in 1 row, first at v.jsonl, line 3",
        "missing in 1 row, first at v.jsonl, line 5",
        "outcomes={'1': 'first'}",
        "Digits are never guessed",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("column", "value", "place"),
    [
        ("prompt", "  ", r"line 2, column 'prompt': '  '"),
        ("prompt", None, r"line 2, column 'prompt': missing"),
        ("worker", "", r"line 2, column 'worker': ''"),
        ("left", None, r"line 2, column 'left': missing"),
        ("right", float("nan"), r"line 2, column 'right': missing"),
    ],
)
def test_a_bad_row_is_named(tmp_path, column, value, place):
    rows = [ROWS[0], {**ROWS[0], column: value}, *[{**ROWS[0], column: value}] * 7]
    with pytest.raises(InputError, match=rf"has 8 missing or empty cells\. .*{place}.*; and 3 more"):
        Table(write_jsonl(tmp_path / "v.jsonl", rows), **NAMES).load()


def test_missing_columns_list_what_is_there(tmp_path):
    names = NAMES | {"outcome": "winer", "annotator": "who"}
    with pytest.raises(InputError, match="no column 'a'"):
        Table(Dataset.from_list(ROWS), **dict.fromkeys(NAMES, "a")).load()
    with pytest.raises(InputError) as caught:
        Table(write_csv(tmp_path / "v.csv"), **names).load()
    assert "no column 'winer', 'who'" in str(caught.value)
    assert "v.csv has 'prompt', 'left', 'right', 'winner', 'worker', 'age'" in str(caught.value)
    assert "For 'winer', did you mean 'winner'?" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcomes": {"x": "third"}}, r"outcomes\['x'\] is 'third'"),
        ({"outcomes": {"x": "tie:2"}}, r"outcomes\['x'\] is 'tie:2'"),
        ({"outcomes": {"x": "first:0"}}, "a strength from 1 to 127"),
        ({"outcomes": {"x": "first:2"}, "strength": "much"}, "in one place"),
        ({"strength": "much", "strengths": {"very": 128}}, r"strengths\['very'\] is 128"),
        ({"strengths": {"very": 2}}, "names no column"),
        ({"outcome": None}, "Name the column that says who won"),
        ({"attributes": ("id",)}, "must differ and not be 'id'"),
        ({"attributes": ("age", "age")}, "must differ"),
        ({"path": "votes.xlsx"}, "unknown format.*csv"),
        ({"path": "votes.parquet.gz"}, "unknown format"),
        ({"path": "nowhere.csv"}, "nowhere.csv does not exist"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(InputError, match=message):
        Table(**{"path": "v.csv", **NAMES, **change}).load()


def test_what_is_no_data_set_is_refused(tmp_path):
    both = DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS))
    stream = both["train"].to_iterable_dataset()
    both.save_to_disk(tmp_path / "both")
    for what, message in (
        (both, r"splits: \['test', 'train'\]"),
        (tmp_path / "both", r"name the folder of one of them: \['test', 'train'\]"),
        (stream, "this is of the type IterableDataset, neither .* `datasets.Dataset.from_list"),
    ):
        for source in (Table(what, **NAMES), Ratings(what, "question", "left", "worker", "right", "1..5")):
            with pytest.raises(InputError, match=message):
                source.load()
            with pytest.raises(InputError, match=message):
                source.fingerprint()
    for what, kind in ((both["train"].to_pandas(), "DataFrame"), (None, "NoneType")):
        with pytest.raises(InputError, match=rf"this is of the type {kind}, neither .* `\.from_pandas"):
            read.checked(what)


def test_a_data_set_that_was_saved_is_read_from_its_folder(tmp_path):
    saved, folder = Dataset.from_list(ROWS), tmp_path / "saved"
    saved.save_to_disk(folder)
    one, two = Table(saved, **NAMES), Table(folder, **NAMES)
    assert two.load().choices.rank.tolist() == one.load().choices.rank.tolist()
    assert two.load().items.to_dict() == one.load().items.to_dict()
    assert two.load().provenance["files"][0]["name"] == "saved"
    assert two.fingerprint() == one.fingerprint()
    next(folder.glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(InputError, match="saved is not a whole data set"):
        Table(folder, **NAMES).load()


def test_the_fingerprint_follows_the_bytes(tmp_path):
    path, texts = write_csv(tmp_path / "v.csv"), write_jsonl(tmp_path / "t.jsonl", [{"id": 1}])
    prints = {Table(path, **NAMES).fingerprint(), Table(path, **NAMES, join=texts).fingerprint()}
    write_jsonl(tmp_path / "t.jsonl", [{"id": 2}])
    prints.add(Table(path, **NAMES, join=texts).fingerprint())
    assert len(prints) == 3
    one, again = Dataset.from_list(ROWS), Dataset.from_list(ROWS)
    other = Dataset.from_list([*ROWS[:-1], {**ROWS[-1], "left": "z"}])
    assert Table(one, **NAMES).fingerprint() == Table(again, **NAMES).fingerprint()
    assert Table(one, **NAMES).fingerprint() != Table(other, **NAMES).fingerprint()


def test_pydantic_reads_a_table(tmp_path):
    adapter = pydantic.TypeAdapter(Table)
    table = adapter.validate_python(
        {"path": "v.csv", **NAMES, "sources": ["x", "y"], "attributes": ["age"], "kind": "table"}
    )
    assert table == Table("v.csv", **NAMES, sources=("x", "y"), attributes=("age",))
    assert adapter.validate_python(adapter.dump_python(table, mode="json")) == table
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python({"path": 3, **NAMES})
    adapter.json_schema()


def test_feedback_survives_being_saved(tmp_path):
    votes = Table(write_csv(tmp_path / "v.csv"), **NAMES).load()
    artifacts.save(votes, tmp_path / "saved")
    again = artifacts.load(tmp_path / "saved", Feedback)
    assert_same(votes, again)
    assert feedback.describe(votes) == feedback.describe(again)


def llmfao(real_data, **change) -> Table:
    folder = real_data / "llmfao"
    columns = {"prompt": "text", "first": "result_x", "second": "result_y", "outcome": "winner", "annotator": "worker"}
    fields = {"join": folder / "pairs-crowd.jsonl", "sources": ("left", "right"), **columns, **change}
    return Table(folder / "crowd-comparisons.csv", **fields)


def test_real_votes_are_all_there(real_data):
    votes = llmfao(real_data).load()
    with open(real_data / "llmfao" / "pairs-crowd.jsonl", encoding="utf-8") as file:
        texts = {pair["id"]: pair for pair in map(json.loads, file)}
    with open(real_data / "llmfao" / "crowd-comparisons.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rank = {"left": (0, 1), "right": (1, 0), "tie": (0, 0)}
    pairs = [texts[int(row["id"])] for row in rows]
    itself = sum(pair["result_x"] == pair["result_y"] for pair in pairs)
    by_hand = [
        (row["worker"], p["text"], p["text"], p["result_x"], p["result_y"], rank[row["winner"]])
        for row, p in zip(rows, pairs, strict=True)
        if p["result_x"] != p["result_y"]
    ]
    assert judgements(votes) == by_hand
    assert votes.provenance["rows"] == 8931
    assert sum(votes.provenance["set_aside"].values()) == itself == 0
    summary = feedback.describe(votes)
    assert (summary.judgements, summary.annotators, summary.prompts) == (8931, 124, 13)
    assert round(summary.tie_share * 8931) == 3471
    assert len(votes.items) == len({(p["text"], p[side]) for p in pairs for side in ("result_x", "result_y")})
    assert all(votes.items["source"])


def test_real_votes_with_a_wrong_key_are_refused(real_data):
    with pytest.raises(InputError, match="the key 'prompt' is '8' in more than one row"):
        llmfao(real_data, key="prompt").load()
