"""Exports of Polis against what is written by hand, and real ones against their own counts, read by other means."""

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import pytest

from pluralign.errors import InputError
from pluralign.feedback import Polis, describe

COMMENTS = """timestamp,datetime,comment-id,author-id,agrees,disagrees,moderated,comment-body
1500000000000,x,1,8,2,1,1,"More trees, please."
1500000000000,x,0,7,3,0,0,Close the street.
1500000000000,x,2,8,1,0,-1,BUY NOW
"""
MATRIX = """participant,group-id,n-comments,n-votes,n-agree,n-disagree,0,1,2
7,0,1,2,1,1,1,-1,
8,1,2,3,3,0,1,1,1
9,,0,2,1,0,0,1,
10,,0,0,0,0,,,
"""
VOTES = """timestamp,datetime,comment-id,voter-id,vote
1600000200,x,0,9,0
1600000100,x,0,9,1
1600000050,x,0,7,1
1600000050,x,0,8,1
1600000040,x,1,7,-1
1600000060,x,1,8,1
1600000000,x,1,9,1
1600000070,x,2,8,1
1600000000,x,5,8,1
"""
SUMMARY = 'topic,"Main Street, and all"\nurl,https://pol.is/1\nconversation-description,"Two\nlines"\n'


def write(folder: Path, prefix: str = "", **files: str) -> Path:
    folder = folder / "talk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{prefix}{name.replace('_', '-')}.csv").write_text(text, encoding="utf-8")
    return folder


def grades(votes) -> list[tuple]:
    """Each grade in words: who, which comment, what."""
    g, people, texts = votes.grades, list(votes.annotators["id"]), list(votes.items["response"])
    labels = votes.scales[0].labels
    rows = zip(g.annotator.tolist(), g.item.tolist(), g.value.tolist(), strict=True)
    return sorted((people[a].rsplit(" ", 1)[1], texts[i], labels[v]) for a, i, v in rows)


BY_HAND = sorted(
    [
        ("7", "Close the street.", "agree"),
        ("7", "More trees, please.", "disagree"),
        ("8", "Close the street.", "agree"),
        ("8", "More trees, please.", "agree"),
        ("9", "Close the street.", "pass"),
        ("9", "More trees, please.", "agree"),
    ]
)


def test_a_matrix_becomes_grades(tmp_path):
    votes = Polis(write(tmp_path, comments=COMMENTS, participants_votes=MATRIX, summary=SUMMARY)).load()
    assert grades(votes) == BY_HAND
    assert votes.items.to_dict() == {
        "prompt_id": [0, 0],
        "prompt": ["Main Street, and all"] * 2,
        "response": ["More trees, please.", "Close the street."],
        "source": ["talk 8", "talk 7"],
    }
    assert votes.annotators.to_dict() == {
        "id": ["talk 7", "talk 8", "talk 9"],
        "weight": [1.0] * 3,
        "group-id": ["0", "1", ""],
    }
    assert votes.scales[0].labels == ("disagree", "pass", "agree") and votes.scales[0].form == "vote"
    assert set(votes.grades.context.tolist()) == set(votes.grades.time.tolist()) == {-1}
    p = votes.provenance
    assert (p["rows"], p["participants"]) == (7, 4)
    assert p["set_aside"] == {"a vote on a comment that moderators rejected": 1}
    assert (p["counts_differ"], p["counts_differ_at"]) == (1, ["0"])  # 3 agrees are counted, 2 are votes


def test_votes_with_times_become_grades_in_order(tmp_path):
    files = {"comments": COMMENTS, "votes": VOTES, "participant_votes": MATRIX, "summary": SUMMARY}
    votes = Polis(write(tmp_path, "2025-07-04-1200-7abc-", **files)).load()
    assert grades(votes) == BY_HAND
    by_annotator = dict(zip(votes.annotators["id"], votes.annotators["group-id"], strict=True))
    assert by_annotator == {"talk 7": "0", "talk 8": "1", "talk 9": ""}
    g = votes.grades
    people, texts = list(votes.annotators["id"]), list(votes.items["response"])
    acts = {
        (people[a][-1], texts[i][0]): (time, place)
        for a, i, time, place in zip(
            g.annotator.tolist(), g.item.tolist(), g.time.tolist(), g.context.tolist(), strict=True
        )
    }
    assert acts == {
        ("7", "M"): (1600000040, 0),
        ("7", "C"): (1600000050, 1),
        ("8", "C"): (1600000050, 0),
        ("8", "M"): (1600000060, 1),
        ("9", "M"): (1600000000, 0),
        ("9", "C"): (1600000200, 1),
    }
    assert votes.provenance["rows"] == 9
    assert votes.provenance["set_aside"] == {
        "a vote that the voter cast again later": 1,
        "a vote on a comment that comments.csv does not have": 1,
        "a vote on a comment that moderators rejected": 1,
    }


def test_rejected_comments_can_count(tmp_path):
    votes = Polis(write(tmp_path, comments=COMMENTS, participants_votes=MATRIX), topic="Q", rejected=True).load()
    assert grades(votes) == sorted([*BY_HAND, ("8", "BUY NOW", "agree")])
    assert set(votes.items["prompt"]) == {"Q"} and votes.provenance["set_aside"] == {}


def test_equal_comments_are_one_item(tmp_path):
    comments = COMMENTS.replace("Close the street.", '"More trees, please."')
    votes = Polis(write(tmp_path, comments=comments, participants_votes=MATRIX), topic="Q").load()
    assert list(votes.items["response"]) == ["More trees, please."] and votes.items["source"][0] == "talk 8 | talk 7"
    assert len(votes.grades) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": ("8,1,2,3,3,0", "8,1,2,3,2,0")}, r"line 3: participant 8 has n-agree 2, but 3 such votes"),
        ({"matrix": ("9,,0,2,1", "9,,0,1,1")}, r"line 4: participant 9 has n-votes 1, but 2 such votes"),
        ({"matrix": ("9,,0,2", "7,,0,2")}, r"line 4: participant '7' is there twice"),
        ({"matrix": (",-1,\n", ",-2,\n")}, r"column '1' .* has 1 unknown word: '-2' in 1 row, first at .*, line 2"),
        ({"matrix": ("0,1,2\n", "a,b,c\n")}, r"has no columns 0, 1, 2"),
        ({"comments": (",2,8,", ",1,8,")}, r"comments.csv, line 4: comment-id '1' is there twice"),
        ({"comments": (",-1,BUY", ",no,BUY")}, r"column 'moderated' .*'no' in 1 row, first at comments.csv, line 4"),
        ({"comments": ("BUY NOW", " ")}, r"1 empty cell: comments.csv, line 4, column 'comment-body'"),
        ({"comments": ("agrees,dis", "agree,dis")}, r"no column 'agrees'.*Did you mean 'agree'"),
        ({"comments": ("8,2,1", "8,two,1")}, r"column 'agrees' .*'two' in 1 row, first at comments.csv, line 2"),
        ({"summary": ("topic,", "theme,")}, r"line 1 is 'theme,Main Street, and all', not `topic,<text>`. Give"),
        ({"summary": ('"Main Street, and all"', "Main Street, and all")}, r"the header has 3 cells.*Give the prompt"),
    ],
)
def test_a_bad_file_is_named(tmp_path, change, message):
    files = {"comments": COMMENTS, "matrix": MATRIX, "summary": SUMMARY}
    for name, (old, new) in change.items():
        assert old in files[name]
        files[name] = files[name].replace(old, new)
    files["participants_votes"] = files.pop("matrix")
    with pytest.raises(InputError, match=message):
        Polis(write(tmp_path, **files)).load()


def test_bad_votes_are_named(tmp_path):
    for old, new, message in (
        ("1600000040", "soon", r"column 'timestamp' .*'soon' in 1 row, first at votes.csv, line 6"),
        ("7,-1", "7,2", r"column 'vote' .*'2' in 1 row, first at votes.csv, line 6"),
        (",7,-1", ",,-1", r"1 empty cell: votes.csv, line 6, column 'voter-id'"),
    ):
        with pytest.raises(InputError, match=message):
            Polis(write(tmp_path, comments=COMMENTS, votes=VOTES.replace(old, new)), topic="Q").load()


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        Polis(tmp_path / "nowhere").load()
    with pytest.raises(InputError, match=r"lacks comments.csv, or both"):
        Polis(write(tmp_path, comments=COMMENTS)).load()
    with pytest.raises(InputError, match=r"no summary.csv"):
        Polis(write(tmp_path, comments=COMMENTS, votes=VOTES)).load()
    folder = write(tmp_path, comments=COMMENTS, votes=VOTES)
    (folder / "b-comments.csv").write_text(COMMENTS)
    with pytest.raises(InputError, match=r"several files comments.csv: b-comments.csv, comments.csv"):
        Polis(folder, topic="Q").load()
    votes = "\n".join(line for line in VOTES.split("\n") if ",2,8," in line or line.startswith("time"))
    with pytest.raises(InputError, match=r"no vote that counts; set aside: \{'a vote on a comment that moderators"):
        Polis(write(tmp_path, comments=COMMENTS, votes=votes + "\n"), topic="Q").load()


def flipped(text: str, column: int) -> str:
    """Turn the sign of the last cells of each row, from a column on."""
    head, *rows = text.strip().split("\n")
    turn = {"1": "-1", "-1": "1"}
    cells = [row.split(",") for row in rows]
    return "\n".join([head, *(",".join(r[:column] + [turn.get(c, c) for c in r[column:]]) for r in cells)]) + "\n"


def test_the_wrong_sign_is_told_by_counts_where_authors_are_few(tmp_path):
    comments = COMMENTS.replace(",7,3,0", ",77,3,0")  # one author's two votes remain
    folder = write(tmp_path, comments=comments, votes=flipped(VOTES, 4))
    with pytest.raises(InputError, match=r"the other way round in comments.csv.*set agree=-1"):
        Polis(folder, topic="Q").load()
    assert grades(Polis(folder, topic="Q", agree=-1).load()) == BY_HAND
    folder = write(tmp_path, comments=COMMENTS, participants_votes=flipped(MATRIX, 6))
    assert grades(Polis(folder, topic="Q", agree=-1).load()) == BY_HAND
    with pytest.raises(
        InputError, match=r"line 3: participant 8 has n-agree 3, but 0 such votes \(2 rows in all\).*=-1"
    ):
        Polis(folder, topic="Q").load()


def test_one_author_who_disagrees_with_the_own_comment_is_no_evidence(tmp_path):
    comments = COMMENTS.replace("1,8,2,1", "1,7,2,1").replace("0,7,3,0", "0,99,3,0").replace("2,8,1,0", "2,99,1,0")
    assert grades(Polis(write(tmp_path, comments=comments, votes=VOTES), topic="Q").load()) == BY_HAND


def test_pydantic_reads_it_and_the_fingerprint_follows_the_bytes(tmp_path):
    folder = write(tmp_path, comments=COMMENTS, votes=VOTES)
    source = pydantic.TypeAdapter(Polis).validate_python({"kind": "polis", "folder": str(folder), "agree": -1})
    assert source == Polis(str(folder), agree=-1)
    before = source.fingerprint()
    (folder / "votes.csv").write_text(VOTES.replace("1600000000", "1600000001"))
    assert source.fingerprint() != before


# Real exports ---------------------------------------------------------------------------------------------------------

REAL = {  # voters, comments and groups as `summary.csv` states them
    "15-per-hour-seattle": (339, 54, 2),
    "american-assembly.bowling-green": (2031, 896, 2),
    "brexit-consensus": (204, 50, 2),
    "canadian-electoral-reform": (448, 174, 2),
    "vtaiwan.uberx": (1921, 197, 2),
}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", REAL)
def test_a_real_export_is_all_there(real_data, name):
    folder = real_data / "polis_opendata" / name
    people, comments = table(folder / "participants-votes.csv"), table(folder / "comments.csv")
    votes = Polis(folder, rejected=True).load()
    voters, _, groups = REAL[name]
    assert len(votes.annotators) == voters == len(people)
    assert len(votes.grades) == sum(int(person["n-votes"]) for person in people) == votes.provenance["rows"]
    assert len(set(votes.annotators["group-id"]) - {""}) == groups
    assert list(votes.items["response"]) == [comment["comment-body"] for comment in comments]
    count = np.zeros((voters, 3), int)
    np.add.at(count, (votes.grades.annotator, votes.grades.value), 1)
    assert count[:, 2].tolist() == [int(person["n-agree"]) for person in people]
    assert count[:, 0].tolist() == [int(person["n-disagree"]) for person in people]
    kept = Polis(folder).load()
    accepted = [comment["comment-body"] for comment in comments if comment["moderated"] != "-1"]
    assert list(kept.items["response"]) == accepted
    aside = kept.provenance["set_aside"].get("a vote on a comment that moderators rejected", 0)
    assert aside + len(kept.grades) == len(votes.grades)
    by_hand = Counter()
    for comment in comments:
        if comment["moderated"] != "-1":
            by_hand[comment["comment-body"]] = sum(person[comment["comment-id"]] == "1" for person in people)
    texts, g = list(kept.items["response"]), kept.grades
    assert Counter(texts[i] for i in g.item[g.value == 2].tolist()) == +by_hand
    if voters < 1000:
        assert describe(kept).set_aside == kept.provenance["set_aside"]


SIGNS: tuple[tuple[Literal[1, -1], Literal[1, -1], int], ...] = ((1, -1, 1), (1, -1, -1), (-1, 1, 1), (-1, 1, -1))


def rewritten(folder: Path, to: Path, vote: int, count: int) -> Path:
    """Write an export with votes.csv, each vote twice: first another one; with the signs of votes and counts turned."""
    people, comments = table(folder / "participants-votes.csv"), table(folder / "comments.csv")
    to.mkdir()
    with open(to / "votes.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("timestamp", "datetime", "comment-id", "voter-id", "vote"))
        for person in people:
            for n, comment in enumerate(comments):
                if cell := person[comment["comment-id"]]:
                    what = (comment["comment-id"], person["participant"])
                    rows.writerow((1_600_000_000 + n, "x", *what, vote * int(cell)))
                    rows.writerow((1_500_000_000 + n, "x", *what, (int(cell) + 2) % 3 - 1))
    with open(to / "comments.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(comments[0]))
        rows.writeheader()
        for comment in comments:
            turn = {"agrees": comment["disagrees"], "disagrees": comment["agrees"]} if count < 0 else {}
            rows.writerow(comment | turn)
    return to


def test_a_wrong_sign_is_found_even_where_the_counts_have_it_too(real_data, tmp_path):
    folder = real_data / "polis_opendata" / "canadian-electoral-reform"
    expected = grades(Polis(folder).load())
    for vote, wrong, count in SIGNS:
        export = rewritten(folder, tmp_path / f"{vote}{count}", vote, count)
        votes = Polis(export, topic="Q", agree=vote).load()
        assert grades(votes) == expected
        assert votes.provenance["set_aside"]["a vote that the voter cast again later"] == 11950
        with pytest.raises(InputError, match=rf"people would disagree with 127 and agree with 0 .* set agree={vote}"):
            Polis(export, topic="Q", agree=wrong).load()
