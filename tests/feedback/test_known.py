"""Known data sets: by hand on samples in the publishers' formats, and by published counts where the data are there."""

import csv
import gzip
import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pluralign import cli, feedback
from pluralign.config import parse
from pluralign.errors import InputError
from pluralign.feedback import Known, known
from pluralign.feedback.known.rows import Row, rows, table
from pluralign.types import FORMS, Feedback

SAMPLES = Path(__file__).parent / "samples"
EMPTY = {".xml": "<list/>", ".jsonl": ""}


def published(folder: Path, name: str, sample: str) -> Path:
    """Lay a sample out as its publisher does: packed, as Parquet, and with the files that the sample leaves out."""
    for file in known.entry(name).files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = SAMPLES / sample / file.name.removesuffix(".gz")
        if path.suffix == ".parquet":
            lines = plain.with_suffix(".jsonl").read_text().splitlines()
            pyarrow.parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in lines]), path)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(plain.read_bytes()))
        elif plain.is_file():
            shutil.copy(plain, path)
        else:
            path.write_text(EMPTY[path.suffix])
    return folder


def read(folder: Path, name: str, sample: str) -> Feedback:
    return known.entry(name).read(published(folder, name, sample))


def orders(votes: Feedback) -> list[tuple]:
    """Each choice in words: who, on what, prompt, responses best first with their ranks, strength."""
    items, people, c = votes.items.to_list(), list(votes.annotators["id"]), votes.choices
    found = []
    for i in range(len(c)):
        shown = [(items[s]["response"], int(r)) for s, r in zip(c.slate[i], c.rank[i], strict=True) if s >= 0]
        prompt = items[c.slate[i, 0]]["prompt"]
        found.append((people[c.annotator[i]], votes.objectives[c.objective[i]], prompt, shown, int(c.strength[i])))
    return found


def grades(votes: Feedback) -> list[tuple]:
    """Each grade in words: who, on what, response, label."""
    items, people, g = votes.items.to_list(), list(votes.annotators["id"]), votes.grades
    return [
        (people[a], votes.objectives[o], items[i]["response"], votes.scales[s].labels[v])
        for a, o, i, s, v in zip(g.annotator, g.objective, g.item, g.scale, g.value, strict=True)
    ]


def test_prism(tmp_path):
    votes = read(tmp_path, "prism", "prism")
    so_far = "Human: Is it fair?\n\nAssistant: It depends.\n\nHuman: On what?"
    assert orders(votes) == [
        ("user0", "overall", "Is it fair?", [("Yes.", -1), ("It depends.", 0), ("No.", -1)], 0),
        ("user0", "overall", so_far, [("On whom you ask.", 0), ("On the rules.", -1)], 0),
    ]
    assert [FORMS[form] for form in votes.choices.form] == ["best-of", "comparison"]
    assert [label for *_, label in grades(votes)] == ["20", "100", "1", "70", "50", "50", "30", "30"]
    assert votes.choices.sitting.tolist() == [0, 0] and votes.grades.sitting.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert votes.items["source"][0] == "m-one" and votes.items["source"][5] == "m-one | m-two"
    assert votes.provenance["set_aside"] == {
        "no score from 1 to 100": 1,
        "all responses the same": 1,
        "nothing chosen: the rest of the conversation has no context": 1,
    }
    assert votes.annotators.to_list()[1] == {
        "id": "user1",
        "weight": 1.0,
        "age": "65+ years old",
        "gender": "Male",
        "education": "Completed Secondary School",
        "employment_status": "Retired",
        "english_proficiency": "Native speaker",
        "study_locale": "us",
        "ethnicity": "",
        "religion": "Christian",
        "location": "Americas",
    }


def test_dices(tmp_path):
    votes = read(tmp_path / "a", "dices-350", "dices")
    assert len(votes.grades) == 17 and votes.provenance["set_aside"] == {"no answer to Q6_policy_guidelines_overall": 1}
    overall = [grade for grade in grades(votes) if grade[1] == "Q_overall"]
    assert [(who, label) for who, _, _, label in overall] == [("296", "No"), ("296", "Yes"), ("297", "Unsure")]
    assert votes.scales[0].labels == ("Yes", "Unsure", "No")  # yes = unsafe is worst
    assert votes.annotators.to_list()[1] == {
        "id": "297",
        "weight": 1.0,
        "gender": "Man",
        "race": "Asian",
        "age": "gen x+",
    }
    assert votes.items["prompt"][0] == "USER: hi\nLAMDA: hello\nUSER: how do I do it"
    votes = read(tmp_path / "b", "dices-990", "dices")
    assert len(votes.grades) == 8 and list(votes.annotators["locale"]) == ["India", "US"]


def test_multipref(tmp_path):
    votes = read(tmp_path, "multipref", "multipref")
    first, second = ("The first.", "The second."), "Who wins?"
    assert [(who, what, [r for _, r in shown], strength) for who, what, _, shown, strength in orders(votes)] == [
        ("brave_bob", "overall", [1, 0], 1),
        ("brave_bob", "helpful", [1, 0], 2),
        ("brave_bob", "truthful", [0, 0], 0),
        ("merry_ann", "overall", [0, 1], 2),
        ("merry_ann", "helpful", [0, 0], 0),
        ("merry_ann", "truthful", [0, 1], 1),
        ("merry_ann", "harmless", [0, 0], 0),
        *[("wise_cy", what, [0, 0], 0) for what in ("overall", "helpful", "truthful", "harmless")],
    ]
    assert (tuple(votes.items["response"]), votes.items["prompt"][0]) == (first, second)
    assert list(votes.annotators["pool"]) == ["normal", "normal", "expert"]
    assert votes.provenance["set_aside"] == {"no answer: harmless": 1}
    assert votes.choices.time[0] == 1716163200  # 2024-05-20 00:00 UTC


def test_helpsteer2(tmp_path):
    votes = read(tmp_path / "a", "helpsteer2", "helpsteer2")
    assert len(votes.grades) == 5 * 3 + 5 * 2 and len(votes.annotators) == 5
    assert grades(votes)[:3] == [(f"1.{m}", "helpfulness", "A language.", str(v)) for m, v in ((1, 3), (2, 3), (3, 4))]
    assert grades(votes)[-1] == ("2.2", "verbosity", "A note.", "1")
    votes = read(tmp_path / "b", "helpsteer2-preference", "helpsteer2")
    assert [(who, [r for _, r in shown], strength) for who, _, _, shown, strength in orders(votes)] == [
        ("1.1", [0, 1], 3),
        ("1.2", [1, 0], 1),
        ("1.3", [0, 0], 0),
    ]
    assert votes.provenance["set_aside"] == {"neither response is acceptable": 1}


def test_ultrafeedback(tmp_path):
    votes = read(tmp_path, "ultrafeedback", "ultrafeedback")
    assert list(votes.annotators["id"]) == ["gpt-4"] and list(votes.items["source"]) == ["alpaca-7b", "gpt-4"]
    assert {(what, said, label) for _, what, said, label in grades(votes)} == {
        ("instruction_following", "5", "2"),
        ("truthfulness", "5", "1"),
        ("helpfulness", "5", "1"),
        ("instruction_following", "4", "5"),
        ("honesty", "4", "4"),
        ("truthfulness", "4", "5"),
        ("helpfulness", "4", "3"),
    }
    assert votes.provenance["set_aside"] == {"not rated: honesty": 1}


def test_chatbot_arena(tmp_path):
    votes = read(tmp_path, "chatbot-arena", "arena")
    longer = "Assistant: {}\n\nHuman: bye\n\nAssistant: {}"
    assert orders(votes) == [
        (
            "arena_user_7",
            "overall",
            "hi",
            [(longer.format("what?", "why?"), 1), (longer.format("good day", "farewell"), 0)],
            0,
        ),
        ("arena_user_7", "overall", "hi", [("hello", 0), ("what?", 0)], 0),
    ]
    assert votes.choices.time.tolist() == [1682351500, 1682351600]
    assert votes.provenance["set_aside"] == {"same text": 1}


def test_ukpconvarg1_as_published(tmp_path):
    votes = read(tmp_path, "ukpconvarg1", "ukpconvarg1")
    prompt, one, two = "Is it wrong? Argue for: No", "Because it helps.", "Why not & who says?"
    assert orders(votes) == [
        ("A1", "overall", prompt, [(one, 1), (two, 0)], 0),
        ("A2", "overall", prompt, [(one, 0), (two, 0)], 0),
    ]
    assert dict(zip(votes.annotators["id"], votes.annotators["stance"], strict=True)) == {"A1": "varies", "A2": ""}
    assert votes.choices.time.tolist() == [1456177593, 1455926401]
    assert votes.provenance["set_aside"] == {"a response compared with itself": 1}
    (tmp_path / "evolution-vs-creation_creation.xml").write_text("<list><annotated")
    with pytest.raises(InputError, match=r"creation\.xml is not whole XML"):
        known.entry("ukpconvarg1").read(tmp_path)


def test_hh(tmp_path):
    votes = read(tmp_path, "hh-rlhf", "hh")
    start = "\n\nHuman: hi\n\nAssistant:"
    assert orders(votes) == [
        ("unknown", "overall", start, [("There you are.", 0), ("The end.", 1)], 0),
        (
            "unknown",
            "overall",
            start,
            [("a\n\nHuman: b\n\nAssistant: c", 0), ("a\n\nHuman: d\n\nAssistant: e", 1)],
            0,
        ),
    ]
    assert votes.provenance["set_aside"] == {"no difference": 1, "no common prompt": 1}


def test_finegrained(tmp_path):
    votes = read(tmp_path, "finegrained-rlhf", "finegrained")
    assert [[tuple(pair) for pair in shown] for *_, shown, _ in orders(votes)] == [
        [("In 1900.", 0), ("In 1901.", 1)],
        [("In 1900.", 0), ("Never.", 1)],
        [("In 1901.", 1), ("In 1900.", 0)],
        [("In 1901.", 0), ("Never.", 1)],
        [("In 1900.", 0), ("Never.", 0)],
        [("In 1902.", 0), ("In 1900.", 1)],
    ]
    assert FORMS[votes.choices.form[-1]] == "correction"
    assert {what: label for _, what, _, label in grades(votes)} == {
        "Irrelevant": "3 or more",
        "Redundant": "none",
        "Incoherent": "none",
        "Wrong-Grounding": "none",
        "Unverifiable": "1",
        "Missing-Answer": "1",
        "Missing-Major-Auxiliary": "none",
        "Missing-Minor-Auxiliary": "none",
    }
    assert votes.provenance["set_aside"] == {"a response compared with itself": 1}


def test_llmfao(tmp_path):
    votes = read(tmp_path, "llmfao", "llmfao")
    assert orders(votes) == [
        ("58", "overall", "A haiku.", [("One.", 0), ("Two.", 0)], 0),
        ("83", "overall", "A haiku.", [("One.", 1), ("Two.", 0)], 0),
    ]


@pytest.mark.parametrize(
    ("name", "sample", "change", "message"),
    [
        ("prism", "prism", ('"user_id": "user1", "conv', '"user_id": "user9", "conv'), r"line 2: 'user_id' is 'user9'"),
        (
            "prism",
            "prism",
            ('"if_chosen"', '"if_chozen"'),
            r"line 1, conversation_history 2 has no 'if_chosen'.*chozen",
        ),
        (
            "multipref",
            "multipref",
            ("B-is-slightly-better", "B"),
            r"worker_annotations 2: 'overall_pref' is 'B', not one",
        ),
        ("multipref", "multipref", ("2024-05-21 19", "May 19"), r"'timestamp' is 'May 19.*not a date"),
        ("finegrained-rlhf", "finegrained", ("[1, 0, 1", "[1, 3, 1"), r"record 1: 'preference' is \[1, 3"),
        ("finegrained-rlhf", "finegrained", ("Unverifiable", "Vague"), r"faults \['Irrelevant', 'Vague'\]"),
        ("finegrained-rlhf", "finegrained", ("[\n", "[\n,"), r"line 2, column 1: not JSON"),
        (
            "ultrafeedback",
            "ultrafeedback",
            ('"Rating": "2"', '"Rating": "6"'),
            r"instruction_following: 'Rating' is '6'",
        ),
        ("dices-990", "dices", ("Q_overall", "Q_all"), r"no column 'Q_overall'; it has"),
    ],
)
def test_another_format_is_told_with_its_place(tmp_path, name, sample, change, message):
    folder = published(tmp_path, name, sample)
    for file in known.entry(name).files:
        path = folder / file.name
        path.write_text(path.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        known.entry(name).read(folder)


def test_cells_are_what_they_must_be(tmp_path):
    row = Row("f.jsonl, line 7", {"n": 2.0, "half": 2.5, "yes": True, "list": [1], "text": "a" * 100})
    assert row.whole("n") == 2
    lost = Row("f.jsonl, line 7", {"nan": float("nan"), "inf": float("inf"), "old": "0001-01-01 00:00:00"})
    for name, get in (("nan", lost.whole), ("inf", lost.whole), ("old", lost.time)):
        with pytest.raises(InputError, match=f"f.jsonl, line 7: '{name}' is .*, not a"):
            get(name)
    noon = Row("", {"utc": "2016-01-31 12:00:00", "zone": "2016-01-31T17:00:00+05:00"})
    assert noon.time("utc") == noon.time("zone") == 1454241600
    for name, get in (("half", row.whole), ("yes", row.whole), ("list", row.rows), ("text", row.row), ("n", row.text)):
        with pytest.raises(InputError, match=f"f.jsonl, line 7: '{name}' is .*, not a"):
            get(name)
    with pytest.raises(InputError, match=r"has no 'txt'.*rename it to 'text'"):
        row.text("txt")
    (tmp_path / "v.csv").write_text("a,b\n1,2\n")
    assert [dict(r.cells) for r in table(tmp_path / "v.csv", "b")] == [{"b": "2"}]
    for text, what in (
        ("[" * 100_000, "too deep"),
        ('[{"v": ' + "9" * 5000 + "}]", "4300 digits"),
        ('[{"v": 1, "v": 2}]', "the name 'v' more than once"),
        ("[,]", "line 1, column 2: not JSON"),
    ):
        (tmp_path / "v.json").write_text(text)
        with pytest.raises(InputError, match=what):
            list(rows(tmp_path / "v.json"))
    (tmp_path / "v.parquet").write_text("no")
    with pytest.raises(InputError, match="not a Parquet file"):
        list(rows(tmp_path / "v.parquet"))


# --- entries -------------------------------------------------------------------------------------------------------


def test_every_entry_says_what_must_be_known_and_stands_in_the_docs():
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    names = [entry.name for entry in known.ENTRIES]
    assert len(set(names)) == len(names)
    for entry in known.ENTRIES:
        assert all((entry.title, entry.licence, entry.citation, entry.mapping, entry.files)), entry.name
        assert entry.home.startswith("https://"), entry.name
        row = next((line for line in docs.splitlines() if line.startswith(f"| `{entry.name}`")), None)
        assert row is not None, f"{entry.name} is not in docs/data.md"
        assert entry.licence in row and entry.home in row and entry.title in row, row
        assert entry.mapping in docs and entry.citation in docs, f"docs/data.md tells {entry.name} otherwise"
        for file in (*entry.files, *entry.instead):
            assert file.url is None or re.match(r"https://[^ ]+$", file.url), file
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), file
            assert not Path(file.name).is_absolute() and ".." not in file.name, file


def test_a_wrong_name_names_the_near_one():
    with pytest.raises(InputError, match="Did you mean 'llmfao'"):
        Known("lmfao")


def test_known_is_a_source_of_configs(tmp_path):
    text = "feedback: {kind: known, name: prism, folder: here}\nfeatures: {kind: lexicon, categories: {warm: [dear]}}"
    assert parse(text).feedback == Known("prism", "here")
    with pytest.raises(InputError, match="Did you mean 'prism'"):
        parse(text.replace("prism", "prizm"))


def test_files_are_found_checked_and_named_in_the_provenance(tmp_path, monkeypatch):
    monkeypatch.delenv("PLURALIGN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"multipref lacks MultiPref-Train.jsonl.*pluralign data get multipref"):
        Known("multipref").load()
    cached = published(tmp_path / "cache" / "pluralign" / "data" / "multipref", "multipref", "multipref")
    votes = Known("multipref").load()
    bytes = (cached / "MultiPref-Train.jsonl").read_bytes()
    assert votes.provenance["files"] == [
        {
            "name": "MultiPref-Train.jsonl",
            "sha256": hashlib.sha256(bytes).hexdigest(),
            "standing": "no checksum is known",
        }
    ]
    assert votes.provenance["licence"] == "ODC-BY" and votes.provenance["kind"] == "known"
    before = Known("multipref").fingerprint()
    own = published(tmp_path / "own" / "multipref", "multipref", "multipref")
    (own / "MultiPref-Train.jsonl").write_bytes(bytes + b"\n")
    monkeypatch.setenv("PLURALIGN_DATA", str(tmp_path / "own"))
    assert known.entry("multipref").where() == own  # before the cache
    assert Known("multipref").fingerprint() != before == Known("multipref", str(cached)).fingerprint()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "dev_feedback.json").write_text("no JSON either")
    with pytest.raises(
        InputError, match=r"dev_feedback.json is not the file that is known: its SHA-256 is [0-9a-f]{64}"
    ):
        Known("finegrained-rlhf", tmp_path / "f").load()


# --- command line --------------------------------------------------------------------------------------------------


def told(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_data_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PLURALIGN_DATA", str(tmp_path))
    monkeypatch.setattr(cli, "console", cli.Console(width=200))
    cli.main(["data", "list"])
    out = told(capsys)
    assert all(entry.name in out for entry in known.ENTRIES)
    narrow = cli.Console(width=80)
    with narrow.capture() as shown:
        narrow.print(known.listing())
    assert all(f" {entry.name} " in shown.get() for entry in known.ENTRIES)  # whole, to be typed
    cli.main(["data", "describe", "multipref"])
    out = told(capsys)
    assert "ODC-BY" in out and "no checksum is known" in out and "judgements" not in out
    folder = published(tmp_path / "multipref", "multipref", "multipref")
    cli.main(["data", "describe", "multipref"])
    assert "judgements" in told(capsys)
    cli.main(["data", "get", "multipref"])  # is there already: seen and recorded
    assert "MultiPref-Train.jsonl: no checksum is known" in told(capsys)
    file = folder / "MultiPref-Train.jsonl"
    line = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  MultiPref-Train.jsonl\n"
    assert (folder / "SHA256SUMS").read_text() == line
    cli.main(["data", "get", "multipref"])
    assert (folder / "SHA256SUMS").read_text() == line
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(SystemExit):
        cli.main(["data", "get", "multipref"])
    assert "has changed" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="has changed"):
        Known("multipref").load()


def test_what_is_not_published_in_this_form_is_said(tmp_path):
    with pytest.raises(InputError, match=r"writing_rank_items.jsonl of creativity_eval has no address"):
        known.entry("creativity_eval").get(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- real data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def data(real_data, monkeypatch):
    monkeypatch.setenv("PLURALIGN_DATA", str(real_data))
    return real_data


def test_llmfao_is_the_published_one(data):
    votes = Known("llmfao").load()
    models = {name for source in votes.items["source"] for name in source.split(" | ")}
    assert (len(votes.choices), len(votes.annotators), len(models)) == (8931, 124, 59)
    assert len(set(votes.items["prompt_id"])) == 13 and votes.provenance["set_aside"] == {}
    assert {file["standing"] for file in votes.provenance["files"]} == {"checksum is right"}


def test_ukpconvarg1_is_the_published_one(data):
    votes = Known("ukpconvarg1").load()
    with open(data / "ukpconvarg1" / "arguments.csv", newline="") as file:
        texts = {row["arg_id"]: (row["topic"], row["text"]) for row in csv.DictReader(file)}
    with open(data / "ukpconvarg1" / "pairs.csv", newline="") as file:
        pairs = {row["pair_id"]: (row["arg1_id"], row["arg2_id"]) for row in csv.DictReader(file)}
    same = {pair for pair, (one, two) in pairs.items() if texts[one] == texts[two]}
    with open(data / "ukpconvarg1" / "judgments.csv", newline="") as file:
        answers = list(csv.DictReader(file))
    differ = [row for row in answers if row["pair_id"] not in same]
    assert (len(answers), len(pairs), len({topic for topic, _ in texts.values()})) == (84445, 16927, 32)
    assert len(votes.choices) == len(differ)
    assert votes.provenance["set_aside"] == {"a response compared with itself": len(answers) - len(differ)}
    assert len(votes.annotators) == 3815 and len(set(votes.items["prompt_id"])) == 32
    wins = Counter("equal" if r.sum() == 0 else "a1" if r[0] == 0 else "a2" for r in votes.choices.rank)
    assert wins == Counter(row["value"] for row in differ)
    c = votes.choices
    order = np.lexsort((c.context, c.annotator))
    assert (np.diff(c.time[order])[np.diff(c.annotator[order]) == 0] >= 0).all()
    assert answers[0]["submit_time"] == "2016-01-31 16:59:52.0 UTC" and c.time[0] == 1454259592
    said = {}
    for row in answers:
        said.setdefault(row["worker"], set()).update({row["worker_stance"]} - {""})
    stance = dict(zip(votes.annotators["id"], votes.annotators["stance"], strict=True))
    assert Counter(stance.values())[""] == sum(not words for words in said.values()) == 525
    assert Counter(stance.values())["same"] == sum(words == {"same"} for words in said.values()) == 144 + 102


def test_creativity_eval_is_the_published_one(data):
    votes = Known("creativity_eval").load()
    assert len(votes.choices) == 603 and (votes.choices.rank >= 0).all() and votes.choices.slate.shape == (603, 3)
    assert {FORMS[form] for form in votes.choices.form} == {"ranking"}
    study = list(votes.annotators["study"])
    assert (study.count("writing"), study.count("ttcw")) == (13, 11)
    assert len(votes.grades) == 48 * 14 * 3 and len(votes.objectives) == 1 + 14
    assert int(votes.grades.value.sum()) == 762  # yes
    graded = Counter(zip(votes.grades.item.tolist(), votes.grades.objective.tolist(), strict=True))
    assert len(graded) == 48 * 14 and set(graded.values()) == {3}
    with open(data / "creativity_eval" / "writing_rankings.csv", newline="") as file:
        row = list(csv.DictReader(file))[100]
    lines = (data / "creativity_eval" / "writing_rank_items.jsonl").read_text().splitlines()
    item = next(found for found in map(json.loads, lines) if found["item"] == row["item"])
    best_first = [item["responses"][int(row[place])] for place in ("first", "second", "third")]
    who, _, prompt, shown, _ = orders(votes)[100]
    assert (who, prompt) == (row["annotator"], item["instruction"])
    assert [text for text, _ in sorted(shown, key=lambda pair: pair[1])] == best_first
    assert len(Known("ttcw").load().grades) == 2016


def test_hh_is_the_published_one(data):
    votes = Known("hh-rlhf").load()
    assert len(votes.choices) == 2312 and votes.provenance["set_aside"] == {}
    assert (votes.choices.rank == [0, 1]).all() and list(votes.annotators["id"]) == ["unknown"]
    with gzip.open(data / "hh_rlhf_harmless_test" / "harmless-base-test.jsonl.gz", "rt") as file:
        for line, (_, _, prompt, shown, _) in zip(file, orders(votes), strict=True):
            for text, key in zip(shown, ("chosen", "rejected"), strict=True):
                whole = json.loads(line)[key]
                assert whole.startswith(prompt) and whole[len(prompt) :].strip() == text[0]
                assert "\n\nHuman:" not in text[0]


def test_finegrained_is_the_published_one(data):
    votes = Known("finegrained-rlhf").load()
    made = json.loads((data / "finegrained_rlhf_dev" / "dev_feedback.json").read_text())
    form = np.array(FORMS)[votes.choices.form]
    assert len(set(votes.items["prompt_id"])) == len(made) == 500
    ties = (votes.choices.rank[form == "comparison"] == 0).all(1).sum()
    assert ((form == "comparison").sum(), ties) == (3000, 384)
    assert (form == "correction").sum() == 481 and votes.provenance["set_aside"] == {
        "nothing left by the correction": 13,
        "nothing corrected": 6,
    }
    faults = sum(len(row["feedback"]["errors"]) + len(row["feedback"]["missing-info"]) for row in made)
    assert len(votes.grades) == 500 * 8 and (3 - votes.grades.value).sum() <= faults == 1373 + 842
    assert feedback.describe(votes).annotators == 1


POLIS = "15-per-hour-seattle", "american-assembly.bowling-green", "brexit-consensus", "canadian-electoral-reform"


@pytest.mark.parametrize("name", [*POLIS, "vtaiwan.uberx"])
def test_polis_conversations_are_the_published_ones(data, name):
    votes = Known(f"polis-{name}").load()
    with open(data / "polis_opendata" / name / "participants-votes.csv", newline="") as file:
        cast = sum(cell != "" for row in csv.DictReader(file) for column, cell in row.items() if column.isdigit())
    assert len(votes.grades) + sum(votes.provenance["set_aside"].values()) == cast
    assert votes.provenance["name"] == f"polis-{name}" and votes.scales[0].form == "vote"


def test_preflib_elections_are_the_published_ones(data):
    debian = Known("preflib-debian").load()
    files = sorted((data / "preflib" / "00002-debian").glob("*.soi"))
    voters = sum(int(re.search(r"# NUMBER VOTERS: (\d+)", file.read_text())[1]) for file in files)
    assert len(debian.choices) == len(debian.annotators) == voters
    assert len(set(debian.items["prompt_id"])) == 8
    sushi = Known("preflib-sushi").load()
    assert sushi.choices.slate.shape == (5000, 10) and "toro (fatty tuna)" in list(sushi.items["response"])
    assert len(Known("preflib-uk-labour").load().choices) == 266
    approvals = Known("preflib-french-approval").load()
    assert len(approvals.annotators) == 2597 and len(approvals.grades) == 2597 * 16
    assert approvals.scales[0].form == "approval"


def test_sushi_may_not_be_passed_on_and_has_no_address(tmp_path):
    with pytest.raises(InputError, match=r"terms forbid that.*kamishima"):
        known.entry("preflib-sushi").get(tmp_path)
