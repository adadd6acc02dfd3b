"""Grades from tables against lists written by hand, and wide tables against the same grades written long."""

import csv
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pydantic
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.errors import InputError
from pluralign.feedback import Ratings
from pluralign.types import Feedback, Scale

NAMES: dict[str, Any] = {"prompt": "question", "response": "answer", "annotator": "worker"}
WIDE: dict[str, Any] = NAMES | {
    "grades": {"help": "h", "safety": "s"},
    "scales": {"help": "1..3", "safety": ("No", "Yes")},
}
ROWS = [
    {
        "question": "q",
        "answer": "a",
        "worker": "007",
        "h": "3",
        "s": "yes",
        "age": "old",
        "when": "2024-05-31T12:00:00Z",
    },
    {"question": "q", "answer": "b", "worker": "NA", "h": "1.0", "s": "", "age": "", "when": "1717156801"},
    {"question": "r", "answer": "a", "worker": "007", "h": " 2 ", "s": "NO", "age": "", "when": "1717150000000"},
    {"question": "q", "answer": "a", "worker": "NA", "h": "", "s": "", "age": "new", "when": ""},
    {"question": "q", "answer": "", "worker": "x", "h": "2", "s": "no", "age": "", "when": "2024-05-31T14:00:02+02:00"},
]


def write(path, rows=ROWS):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def words(votes: Feedback) -> list[tuple]:
    """Each grade in the words of its source: who, prompt, response, objective, label."""
    g, items, people = votes.grades, votes.items.to_list(), list(votes.annotators["id"])
    return [
        (people[a], items[i]["prompt"], items[i]["response"], votes.objectives[o], votes.scales[s].labels[v])
        for a, i, o, s, v in zip(
            *(getattr(g, n).tolist() for n in ("annotator", "item", "objective", "scale", "value")), strict=True
        )
    ]


BY_HAND = [
    ("007", "q", "a", "help", "3"),
    ("007", "q", "a", "safety", "Yes"),
    ("NA", "q", "b", "help", "1"),
    ("007", "r", "a", "help", "2"),
    ("007", "r", "a", "safety", "No"),
    ("x", "q", "", "help", "2"),
    ("x", "q", "", "safety", "No"),
]


def test_a_column_for_each_objective(tmp_path):
    fields = {**WIDE, "forms": {"help": "rating", "safety": "label"}, "attributes": ("age",), "time": "when"}
    votes = Ratings(write(tmp_path / "g.csv"), **fields).load()
    assert words(votes) == BY_HAND
    assert votes.items.to_dict() == {
        "prompt_id": [0, 0, 1, 0],
        "prompt": ["q", "q", "r", "q"],
        "response": ["a", "b", "a", ""],
        "source": [""] * 4,
    }
    assert votes.annotators.to_dict() == {
        "id": ["007", "NA", "x"],
        "weight": [1.0] * 3,
        "age": ["old", "new", ""],
    }
    assert votes.scales == (Scale("1 to 3", ("1", "2", "3")), Scale("No to Yes", ("No", "Yes"), "label"))
    noon = 1717156800
    assert votes.grades.time.tolist() == [noon, noon, noon + 1, 1717150000, 1717150000, noon + 2, noon + 2]
    assert votes.grades.context.tolist() == [2, 3, 0, 0, 1, 0, 1]
    assert votes.provenance["rows"] == 5
    assert votes.provenance["set_aside"] == {"no grade for 'help'": 1, "no grade for 'safety'": 2}


def long(rows=ROWS):
    return [
        {**{k: row[k] for k in NAMES.values()}, "aspect": aspect, "value": row[column], "batch": row["worker"][0]}
        for row in rows
        for aspect, column in (("help", "h"), ("safety", "s"))
    ]


def test_a_row_for_each_grade(tmp_path):
    fields = {**WIDE, "grades": "value", "objective": "aspect", "sitting": "batch"}
    votes = Ratings(write(tmp_path / "g.csv", long()), **fields).load()
    assert words(votes) == BY_HAND
    assert votes.provenance["set_aside"] == {"no grade for 'help'": 1, "no grade for 'safety'": 2}
    sitting = dict(zip(votes.grades.annotator.tolist(), votes.grades.sitting.tolist(), strict=True))
    assert len(set(sitting.values())) == len(sitting) == 3 and -1 not in sitting.values()
    fields = NAMES | {"grades": "value", "scales": ("no", "1", "2", "3", "yes"), "forms": "label"}
    one = Ratings(write(tmp_path / "g.csv", long()), **fields).load()
    assert one.objectives == ("overall",) and len(one.scales) == 1
    assert [w[:3] for w in words(one)] == [w[:3] for w in BY_HAND]


def test_every_format_gives_the_same_grades(tmp_path):
    rows = [{k: v or (v if k == "answer" else None) for k, v in row.items()} for row in ROWS]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "g.parquet")
    for file in (tmp_path / "g.jsonl", tmp_path / "g.parquet", Dataset.from_list(rows)):
        votes = Ratings(file, **WIDE, time="when").load()
        assert words(votes) == BY_HAND
        assert votes.grades.context.tolist() == [2, 3, 0, 0, 1, 0, 1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_wide_and_long_are_the_same_and_rows_in_any_order(tmp_path, data):
    row = st.fixed_dictionaries(
        {
            "question": st.sampled_from(["q", 'r, "s"']),
            "answer": st.sampled_from(["a", "", "b\nc"]),
            "worker": st.sampled_from(["1", "01", "w"]),
            "h": st.sampled_from(["1", "2", "3.0", ""]),
            "s": st.sampled_from(["yes", "NO", " "]),
        }
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=10))
    by_hand = Counter(
        (r["worker"], r["question"], r["answer"], o, label.strip().capitalize().removesuffix(".0"))
        for r in rows
        for o, label in (("help", r["h"]), ("safety", r["s"]))
        if label.strip()
    )
    wide = Ratings(write(tmp_path / "w.csv", rows), **WIDE)
    one_by_one = Ratings(
        write(tmp_path / "l.csv", data.draw(st.permutations(long(rows)))),
        **{**WIDE, "grades": "value", "objective": "aspect"},
    )
    for source in (wide, one_by_one):
        if by_hand:
            assert Counter(words(source.load())) == by_hand
        else:
            with pytest.raises(InputError, match=r"holds no grade; set aside: .*no grade for"):
                source.load()


def test_a_source_and_two_prompts_with_one_answer(tmp_path):
    rows = [{**ROWS[0], "model": "M1"}, {**ROWS[0], "model": "M2"}, {**ROWS[2], "model": ""}]
    votes = Ratings(write(tmp_path / "g.csv", rows), **WIDE, source="model").load()
    assert list(votes.items["source"]) == ["M1 | M2", ""]


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        ("1717156800", 1717156800),
        ("1717156800.9", 1717156800),
        ("1717156800999", 1717156800),
        ("2024-05-31 12:00", 1717156800),
        ("2024-05-31T14:00:00.5+02:00", 1717156800),
        ("2024-05-31", 1717113600),
        ("2024-05-31 12:00:00 UTC", 1717156800),
    ],
)
def test_times_are_read_in_every_usual_way(tmp_path, when, seconds):
    votes = Ratings(write(tmp_path / "g.csv", [{**ROWS[0], "when": when}]), **WIDE, time="when").load()
    assert votes.grades.time.tolist() == [seconds, seconds]


def test_words_off_the_scale_are_counted(tmp_path):
    rows = [{**ROWS[0], "h": word} for word in ("3", "4", "great", "4", "1.5")]
    with pytest.raises(InputError) as caught:
        Ratings(write(tmp_path / "g.csv", rows), **WIDE).load()
    for part in (
        "column 'h' of g.csv has 3 unknown words",
        "'4' in 2 rows, first at g.csv, line 3",
        "'great' in 1 row, first at g.csv, line 4",
        "'1.5' in 1 row, first at g.csv, line 6",
        "The scale of 'help' is 1, 2, 3 (lowest first); change it in `scales`.",
    ):
        assert part in str(caught.value)
    rows = [{**row, "value": "maybe"} if i == 3 else row for i, row in enumerate(long())]
    with pytest.raises(InputError, match=r"'maybe' in 1 row, first at g.csv, line 5. The scale of 'safety' is No, Yes"):
        Ratings(write(tmp_path / "g.csv", rows), **{**WIDE, "grades": "value", "objective": "aspect"}).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, r"1 empty cell: g.jsonl, line 2, column 'question'. A judgement needs a prompt"),
        ({"worker": None}, r"1 empty cell: g.jsonl, line 2, column 'worker'. A judgement needs an annotator"),
        ({"answer": None}, r"1 missing response: g.jsonl, line 2, column 'answer'"),
        ({"age": "new"}, r"g.jsonl, line 2: annotator '007' has two values of 'age': 'old' and 'new'"),
        ({"when": "yesterday"}, r"column 'when' .*'yesterday' in 1 row, first at g.jsonl, line 2. A time is ISO 8601"),
        ({"when": "20240531"}, r"column 'when' .*'20240531' in 1 row.* told from a counter"),
        ({"when": "-5"}, r"column 'when' .*'-5' in 1 row"),
        ({"when": "120.5"}, r"column 'when' .*'120.5' in 1 row"),
        ({"when": "1e30"}, r"column 'when' .*'1e30' in 1 row"),
        ({"when": "1969-12-31"}, r"column 'when' .*'1969-12-31' in 1 row"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, change, message):
    rows = [ROWS[0], {**ROWS[0], **change}]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=message):
        Ratings(tmp_path / "g.jsonl", **WIDE, attributes=("age",), time="when").load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grades": {"help": "hh", "safety": "s"}}, r"no column 'hh'; it has 'question', .* Did you mean 'h'"),
        ({"grades": {}}, "it needs one"),
        ({"objective": "aspect"}, "`objective` must be left out"),
        ({"scales": {"help": "1..3"}}, r"scales has nothing for the objective 'safety'; it has \['help'\]"),
        ({"forms": {"help": "label"}}, r"forms has nothing for the objective 'safety'"),
        ({"scales": "one to three"}, "write whole numbers as in '1..5'"),
        ({"scales": "0..10000000000"}, "write whole numbers as in"),
        ({"scales": "1..10001"}, "more than 10,000 labels; put them into bins"),
        ({"scales": "3..1"}, "at least two"),
        ({"scales": ("no", "NO ")}, "two that read the same, or a blank one: 'no'"),
        ({"scales": ("no", "")}, "a blank one: ''"),
        ({"attributes": ("weight",)}, "not be 'id' or 'weight'"),
        ({"grades": "h", "objective": "aspect", "scales": {"tone": "1..3"}}, "no column 'aspect'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        Ratings(**{"path": write(tmp_path / "g.csv"), **WIDE, **change}).load()


def test_an_objective_without_a_scale_is_named(tmp_path):
    fields = {**WIDE, "grades": "value", "objective": "aspect", "scales": {"help": "1..3"}}
    with pytest.raises(InputError, match=r"scales has nothing for the objective 'safety'; it has \['help'\]"):
        Ratings(write(tmp_path / "g.csv", long()), **fields).load()


def test_pydantic_reads_it_and_the_fingerprint_follows_the_bytes(tmp_path):
    adapter = pydantic.TypeAdapter(Ratings)
    path = str(write(tmp_path / "g.csv"))
    source = adapter.validate_python({"kind": "ratings", "path": path, **WIDE, "attributes": ["age"]})
    assert source == Ratings(path, **WIDE, attributes=("age",))
    assert adapter.validate_python(adapter.dump_python(source, mode="json")) == source
    adapter.json_schema()
    before = source.fingerprint()
    write(tmp_path / "g.csv", ROWS[:2])
    assert source.fingerprint() != before


def test_a_hundred_thousand_grades_are_those_of_numpy(tmp_path):
    rng = np.random.default_rng(0)
    n = 50_000
    worker, answer, grade = rng.integers(100, size=n), rng.integers(3000, size=n), rng.integers(1, 6, size=(n, 2))
    table = pa.table(
        {
            "question": [f"q{i % 50}" for i in answer.tolist()],
            "answer": [f"a{i}" for i in answer.tolist()],
            "worker": [f"w{i}" for i in worker.tolist()],
            "h": grade[:, 0],
            "s": grade[:, 1],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "g.parquet")
    votes = Ratings(tmp_path / "g.parquet", **{**WIDE, "scales": "1..5"}).load()
    g = votes.grades
    assert len(g) == 2 * n
    people = np.array([int(id[1:]) for id in votes.annotators["id"]])
    for o in range(2):
        total = np.bincount(people[g.annotator[g.objective == o]], g.value[g.objective == o] + 1, 100)
        np.testing.assert_array_equal(total, np.bincount(worker, grade[:, o], 100))


def test_real_verdicts_are_all_there(real_data):
    path = real_data / "creativity_eval" / "ttcw_annotations.json"
    fields: dict[str, Any] = NAMES | {"prompt": "story_idx", "response": "story_id", "annotator": "expert_idx"}
    fields |= {"grades": "binary_verdict", "objective": "category", "scales": ("No", "Yes"), "forms": "label"}
    votes = Ratings(path, **fields).load()
    rows = json.loads(path.read_text(encoding="utf-8"))
    by_hand = [
        (str(r["expert_idx"]), str(r["story_idx"]), r["story_id"], r["category"], r["binary_verdict"]) for r in rows
    ]
    assert words(votes) == by_hand
    assert len(votes.grades) == 48 * 14 * 3  # stories, tests and experts (Chakrabarty et al. 2024)
    assert (len(votes.objectives), len(votes.items)) == (14, 48)
