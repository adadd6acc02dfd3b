"""Rankings, best-of-k and demonstrations from tables against lists written by hand and the same acts in another layout."""

import csv
import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pydantic
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.errors import InputError
from pluralign.feedback import Rankings
from pluralign.types import FORMS, Feedback

NAMES: dict[str, Any] = {"prompt": "question", "responses": ("a", "b", "c"), "annotator": "worker"}
RANKS: dict[str, Any] = NAMES | {"ranks": ("ra", "rb", "rc")}
LONG: dict[str, Any] = NAMES | {"responses": "answer", "ranks": "rank", "act": "task"}


def row(worker: str, question: str, texts: str, ranks: str, **more: str) -> dict[str, str]:
    """Return an act; `.` is an empty cell."""
    slots = zip("abc", texts, ranks, strict=True)
    cells = {k: v.replace(".", "") for slot, text, rank in slots for k, v in ((slot, text), (f"r{slot}", rank))}
    return {"worker": worker, "question": question, **cells, **more}


ROWS = [
    row("007", "q", "xyz", "213"),
    row("NA", "q", "yxw", "1.1"),
    row("007", "r", "x.z", "2.1"),
    row("007", "q", "xyz", "1.."),
    row("007", "q", "xyz", "..."),
    row("x", "q", "x..", "1.."),
    row("NA", "q", "xyx", "123"),
    row("NA", "q", "xyz", "511"),
]
BY_HAND = [
    ("007", "q", ("x", "y", "z"), (1, 0, 2), "ranking"),
    ("NA", "q", ("y", "x", "w"), (0, -1, 0), "ranking"),
    ("007", "r", ("x", None, "z"), (1, -1, 0), "comparison"),
    ("007", "q", ("x", "y", "z"), (0, -1, -1), "best-of"),
    ("NA", "q", ("x", "y", "z"), (1, 0, 0), "ranking"),
]
ASIDE = {
    "an act of a single response": 1,
    "an act without a rank": 1,
    "an act that shows a response twice": 1,
}


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def acts(votes: Feedback) -> list[tuple]:
    """Each act in the words of its source: who, prompt, responses, ranks, form."""
    c, items, people = votes.choices, votes.items.to_list(), list(votes.annotators["id"])
    found = []
    for a, slate, rank, form in zip(c.annotator.tolist(), c.slate.tolist(), c.rank.tolist(), c.form, strict=True):
        (prompt,) = {items[i]["prompt"] for i in slate if i >= 0}
        texts = tuple(items[i]["response"] if i >= 0 else None for i in slate)
        found.append((people[a], prompt, texts, tuple(rank), FORMS[form]))
    return found


def test_a_row_for_each_act(tmp_path):
    votes = Rankings(write(tmp_path / "r.csv", ROWS), **RANKS).load()
    assert acts(votes) == BY_HAND
    assert votes.choices.context.tolist() == [0, 0, 1, 2, 1]
    assert votes.objectives == ("overall",) and len(votes.grades) == 0
    assert votes.provenance["rows"] == 8 and votes.provenance["set_aside"] == ASIDE
    assert votes.provenance["set_aside_at"] == dict(zip(ASIDE, ([7], [6], [8]), strict=True))


def test_ranks_from_nought_and_as_floats(tmp_path):
    turn = {"": None, "1": 0.0, "2": 1.0, "3": 2.0, "5": 4.0}
    rows = [{k: turn[v] if k[0] == "r" and len(k) == 2 else v for k, v in r.items()} for r in ROWS]
    assert acts(Rankings(Dataset.from_list(rows), **RANKS).load()) == BY_HAND


def long(rows):
    for n, act in enumerate(rows):
        for slot in "abc":
            yield {
                "task": str(n % 7),  # the first and the last act have one name, but not one annotator
                "worker": act["worker"],
                "question": act["question"],
                "answer": act[slot],
                "rank": act[f"r{slot}"],
                "model": f"M{slot}" if act[slot] else "",
            }


def test_a_row_for_each_response(tmp_path):
    votes = Rankings(write(tmp_path / "r.csv", list(long(ROWS))), **LONG).load()
    assert acts(votes) == BY_HAND
    assert votes.provenance["rows"] == 24 and votes.provenance["set_aside"] == ASIDE
    assert votes.provenance["set_aside_at"]["an act that shows a response twice"] == [20]
    rows = sorted(long(ROWS), key=lambda r: r["rank"])  # rows of an act need not stand together
    votes = Rankings(write(tmp_path / "r.csv", rows), **LONG).load()
    by_rank = [dict(zip(texts, ranks, strict=True)) for _, _, texts, ranks, _ in acts(votes)]
    expected = [dict(zip(texts, ranks, strict=True)) for _, _, texts, ranks, _ in BY_HAND]
    assert Counter(str(sorted(map(str, d.items()))) for d in by_rank) == Counter(
        str(sorted(map(str, d.items()))) for d in expected
    )


def test_the_best_by_column_word_or_text(tmp_path):
    best = [("a", 0), (" B ", 1), ("3", 2), ("y", 1), ("", None), ("left", 0)]
    rows = [row("w", "q", "xyz", "...", winner=word) for word, _ in best]
    votes = Rankings(write(tmp_path / "r.csv", rows), **NAMES, best="winner", slots={"3": "c", "LEFT": "a"}).load()
    by_hand = [tuple(0 if i == slot else -1 for i in range(3)) for _, slot in best if slot is not None]
    assert [ranks for *_, ranks, _ in acts(votes)] == by_hand
    assert {form for *_, form in acts(votes)} == {"best-of"}
    assert votes.provenance["set_aside"] == {"an act without a rank": 1}


def test_chosen_and_rejected(tmp_path):
    rows = [("x", "y"), ("rejected", "chosen"), ("x", ""), ("", "y"), ("z", "z")]
    path = write(tmp_path / "v.csv", [{"q": "q", "chosen": c, "rejected": r, "w": "ann"} for c, r in rows])
    pairs = Rankings(path, prompt="q", responses=("chosen", "rejected"), best="chosen", annotator="w")
    with pytest.raises(InputError, match=r"v.csv, line 5: an empty response has a rank, or is the best"):
        pairs.load()
    write(path, [{"q": "q", "chosen": c, "rejected": r, "w": "ann"} for c, r in rows if c])
    votes = pairs.load()
    assert acts(votes) == [("ann", "q", texts, (0, -1), "comparison") for texts in rows[:2]]
    aside = {"an act of a single response": 1, "an act that shows a response twice": 1}
    assert votes.provenance["set_aside"] == aside


def test_demonstrations(tmp_path):
    rows = [{"question": "q", "answer": text, "worker": "w"} for text in ("x", "", "y")]
    votes = Rankings(write(tmp_path / "r.csv", rows), **{**NAMES, "responses": "answer"}).load()
    assert acts(votes) == [("w", "q", (text,), (0,), "demonstration") for text in "xy"]
    assert votes.provenance["set_aside"] == {"a demonstration without a text": 1}


def test_what_else_is_known_of_an_act(tmp_path):
    more = [
        {"aspect": "tone", "age": "30", "when": "2024-05-31T12:00:00Z", "day": "two", "ma": "M1", "mb": "", "mc": "M2"},
        {"aspect": "style", "age": "30", "when": "2024-05-30", "day": "one", "ma": "M3", "mb": "M4", "mc": "M2"},
        {"aspect": "tone", "age": "", "when": "", "day": "", "ma": "", "mb": "", "mc": ""},
    ]
    rows = [row("w", "q", "xyz", "123", **m) for m in more]
    fields = {"objective": "aspect", "attributes": ("age",), "time": "when", "sitting": "day"}
    votes = Rankings(write(tmp_path / "r.csv", rows), **RANKS, **fields, sources=("ma", "mb", "mc")).load()
    c = votes.choices
    assert votes.objectives == ("tone", "style") and c.objective.tolist() == [0, 1, 0]
    assert votes.annotators["age"][0] == "30"
    assert c.time.tolist() == [1717156800, 1717027200, -1] and c.context.tolist() == [2, 1, 0]
    assert c.sitting.tolist() == [0, 1, -1]
    assert list(votes.items["source"]) == ["M1 | M3", "M4", "M2"]
    votes = Rankings(write(tmp_path / "l.csv", list(long(ROWS[:1]))), **LONG, sources="model").load()
    assert list(votes.items["source"]) == ["Ma", "Mb", "Mc"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_wide_and_long_are_the_same(tmp_path, data):
    act = st.tuples(
        st.sampled_from(["1", "01", "w"]),
        st.sampled_from(["q", 'r, "s"']),
        st.permutations("vxyz").map(lambda texts: "".join(texts[:3])),
        st.sampled_from(["123", "1.1", "21.", ".1.", "112", "..."]),
    )
    rows = [row(*a) for a in data.draw(st.lists(act, min_size=1, max_size=7))]
    wide = Rankings(write(tmp_path / "w.csv", rows), **RANKS)
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(long(rows))), tmp_path / "l.parquet")
    one_by_one = Rankings(tmp_path / "l.parquet", **LONG)
    by_hand = []
    for r in rows:
        ranks = [int(r[f"r{slot}"] or 0) for slot in "abc"]
        if any(ranks):
            by_hand.append((r["worker"], r["question"], (r["a"], r["b"], r["c"]), tuple(rank - 1 for rank in ranks)))
    for source in (wide, one_by_one):
        if by_hand:
            assert [a[:4] for a in acts(source.load())] == by_hand
        else:
            with pytest.raises(InputError, match=r"holds no act that counts; set aside: .*without a rank"):
                source.load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ra": "first"}, r"column 'ra' .*'first' in 1 row, first at r.csv, line 3. A rank is a whole number"),
        ({"ra": "1.5"}, r"'1.5' in 1 row, first at r.csv, line 3"),
        ({"ra": "-1"}, r"'-1' in 1 row, first at r.csv, line 3"),
        ({"b": ""}, r"r.csv, line 3: an empty response has a rank"),
        ({"ra": "3", "rb": "2"}, r"lowest rank of an act must be 1, .*, but it is 2 in r.csv, line 3. Is the best"),
        ({"ra": "0"}, r"lowest rank of an act must be 0, .*, but it is 1 in r.csv, line 2; 1 in r.csv, line 4"),
        ({"worker": ""}, r"1 empty cell: r.csv, line 3, column 'worker'"),
        ({"question": " "}, r"1 empty cell: r.csv, line 3, column 'question'"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, change, message):
    good = row("w", "q", "xyz", "123")
    with pytest.raises(InputError, match=message):
        Rankings(write(tmp_path / "r.csv", [good, {**good, **change}, good]), **RANKS).load()


def test_an_unknown_best_is_named_and_numbers_are_never_guessed(tmp_path):
    rows = [row("w", "q", "xyz", "...", winner=word) for word in ("a", "1")]
    with pytest.raises(InputError, match=r"line 3, column 'winner': '1' is none of .* slots=\{'1': 'a'\}. Numbers are"):
        Rankings(write(tmp_path / "r.csv", rows), **NAMES, best="winner").load()
    rows = [row("w", "q", "x.z", "...", winner="b")]
    with pytest.raises(InputError, match="line 2: an empty response has a rank, or is the best"):
        Rankings(write(tmp_path / "r.csv", rows), **NAMES, best="winner").load()


def test_an_act_has_one_prompt(tmp_path):
    rows = list(long([ROWS[0]]))
    rows[2]["question"] = "other"
    with pytest.raises(InputError, match=r"line 4: act '0' has another prompt than in line 2: 'other', 'q'"):
        Rankings(write(tmp_path / "r.csv", rows), **LONG).load()
    rows[2]["task"] = ""
    with pytest.raises(InputError, match=r"line 4, column 'task'\. A response belongs to an act"):
        Rankings(write(tmp_path / "r.csv", rows), **LONG).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": ("ra", "rb")}, "ranks has 2 columns, responses has 3"),
        ({"ranks": "ra"}, "name as many columns"),
        ({"sources": "s"}, "name as many columns"),
        ({"best": "winner"}, "give one of them"),
        ({"ranks": None}, "need ranks, or which is best"),
        ({"responses": ("a", "b", "b")}, "each once"),
        ({"responses": ()}, "responses has 0|at least one column"),
        ({"act": "task"}, "must each be one column"),
        ({"responses": "a", "ranks": "ra"}, "ranks and act go together"),
        ({"responses": "a", "ranks": None, "best": "b"}, "ranks and act go together"),
        ({"slots": {"1": "d"}}, r"slots\['1'\] is 'd'; it must be one of"),
        ({"attributes": ("id",)}, "not be 'id'"),
        ({"ranks": ("ra", "rb", "rd")}, r"r.csv has no column 'rd'; it has 'worker', 'question', 'a', 'ra'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        Rankings(**{"path": write(tmp_path / "r.csv", ROWS), **RANKS, **change}).load()


def test_pydantic_reads_it_and_the_fingerprint_follows_the_bytes(tmp_path):
    adapter = pydantic.TypeAdapter(Rankings)
    path = str(write(tmp_path / "r.csv", ROWS))
    fields = {"responses": ["a", "b", "c"], "ranks": ["ra", "rb", "rc"]}
    source = adapter.validate_python({"kind": "rankings", "path": path, **RANKS, **fields})
    assert source == Rankings(path, **RANKS)
    assert adapter.validate_python(adapter.dump_python(source, mode="json")) == source
    assert adapter.validate_python({"path": path, **LONG}) == Rankings(path, **LONG)
    before = source.fingerprint()
    write(tmp_path / "r.csv", ROWS[:2])
    assert source.fingerprint() != before


def test_real_rankings_are_all_there(real_data):
    folder = real_data / "creativity_eval"
    with open(folder / "writing_rank_items.jsonl", encoding="utf-8") as file:
        items = {item["item"]: item for item in map(json.loads, file)}
    with open(folder / "writing_rankings.csv", newline="", encoding="utf-8") as file:
        judged = list(csv.DictReader(file))
    wide = [
        {"worker": r["annotator"], "question": items[r["item"]]["instruction"]}
        | dict(zip("abc", items[r["item"]]["responses"], strict=True))
        | {f"r{'abc'[int(r[place])]}": n for n, place in enumerate(("first", "second", "third"), 1)}
        for r in judged
    ]
    votes = Rankings(Dataset.from_list(wide), **RANKS).load()
    rank = {0: "first", 1: "second", 2: "third"}
    found = [(who, *(texts[ranks.index(place)] for place in rank)) for who, _, texts, ranks, _ in acts(votes)]
    texts = [
        (r["annotator"], *(items[r["item"]]["responses"][int(r[place])] for place in rank.values())) for r in judged
    ]
    assert found == texts and len(votes.choices) == 603
