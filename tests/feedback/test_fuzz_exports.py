"""Ballots of PrefLib and exports of Polis, valid but for a few bytes: read right, or refused by name, nothing else."""

import csv
import io
import re
import shutil
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.errors import InputError
from pluralign.feedback import Polis, Preflib, preflib

bounded = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = (
    "# , : { } [ ] \" ' . - -1 -0 0 1 2 3 9 1e0 1.0 99999 9999999999999999 nan true \n \r\n \0 ² ٣ é \u2028 😀".split(
        " "
    )
)
junk = st.lists(st.sampled_from(PIECES), max_size=3).map(lambda pieces: "".join(pieces).encode()) | st.binary(
    max_size=2
)
spliced = st.lists(st.tuples(st.integers(0, 1000) | st.integers(900, 1000), st.integers(0, 6), junk), max_size=2)
"""Where to cut, in thousandths of the file, how many bytes to take out, and what to put in."""


def damaged(content: str, changes: list[tuple[int, int, bytes]]) -> bytes:
    whole = content.encode()
    for place, out, new in changes:
        at = place * len(whole) // 1000
        whole = whole[:at] + new + whole[at + out :]
    return whole


NAMES = ("Toast", "Bun: jelly", "Muffin", "Été")


@st.composite
def elections(draw) -> tuple[str, str]:
    """Return a type of ballots, and a file of that type."""
    kind = draw(st.sampled_from(["soc", "soi", "toc", "toi", "cat"]))
    ballots = []
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.permutations(range(1, 5)))[: draw(st.integers(1, 4)) if kind.endswith("i") else 4]
        cuts = sorted(draw(st.lists(st.integers(0, len(order)), min_size=1, max_size=1)))
        head, tail = order[: cuts[0]], order[cuts[0] :]
        if kind == "cat":
            groups = [head, tail]
        elif kind.startswith("t"):
            groups = [group for group in (head, tail) if group]
        else:
            groups = [[x] for x in order]
        words = [str(g[0]) if len(g) == 1 else f"{{{', '.join(map(str, g))}}}" for g in groups]
        ballots.append((draw(st.integers(1, 3)), ",".join(words)))
    lines = {
        "FILE NAME": f"x.{kind}",
        "TITLE": "Breakfast",
        "DATA TYPE": kind,
        "NUMBER ALTERNATIVES": len(NAMES),
        "NUMBER VOTERS": sum(n for n, _ in ballots),
        f"NUMBER UNIQUE {'PREFERENCES' if kind == 'cat' else 'ORDERS'}": len(ballots),
        **{f"ALTERNATIVE NAME {i}": name for i, name in enumerate(NAMES, 1)},
        **({"NUMBER CATEGORIES": 2, "CATEGORY NAME 1": "yes", "CATEGORY NAME 2": "no"} if kind == "cat" else {}),
    }
    header = [f"# {key}: {value}" for key, value in lines.items()]
    return kind, "\n".join([*header, *(f"{n}: {order}" for n, order in ballots)]) + "\n"


def ballots_in(text: str) -> Counter:
    """Return every ballot, as groups of alternatives from 0, and how many cast it; found by pattern, not by JSON."""
    found: Counter = Counter()
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#"):
            voters, order = line.split(":", 1)
            groups = re.findall(r"[{[]([^]}]*)[]}]|(\d+)", order)
            found[tuple(frozenset(int(x) - 1 for x in re.findall(r"\d+", a or b)) for a, b in groups)] += int(voters)
    return found


def ballots_of(votes) -> Counter:
    found = Counter()
    for slate, rank in zip(votes.choices.slate.tolist(), votes.choices.rank.tolist(), strict=True):
        ranks = sorted({r for r in rank if r >= 0})
        found[tuple(frozenset(i for i, r in zip(slate, rank, strict=True) if r == k) for k in ranks)] += 1
    return found


@bounded
@given(elections(), spliced)
def test_a_damaged_election_is_read_or_refused(tmp_path, monkeypatch, election, changes):
    monkeypatch.setattr(preflib, "CELLS", 10**4)
    kind, content = election
    path = tmp_path / "x.txt"
    path.write_bytes(damaged(content, changes))
    try:
        votes = Preflib(path).load()
    except InputError as error:
        assert changes and "x.txt" in str(error)
        return
    told = ballots_in(path.read_text(encoding="utf-8-sig"))
    aside = sum(votes.provenance["set_aside"].values())
    if len(votes.grades):
        listed = sum(n * sum(map(len, groups)) for groups, n in told.items())
        alternatives = len(votes.items) * told.total()
        assert len(votes.grades) == listed and len(votes.grades) + aside == alternatives
    else:
        assert ballots_of(votes) == told and aside == 0
    assert changes or votes.provenance["header"]["DATA TYPE"] == kind


@st.composite
def conversations(draw) -> dict[str, str]:
    """Return the files of an export whose counts are those of its votes."""
    people, comments = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    vote = st.sampled_from(["", "1", "0", "-1", "1"])
    said = draw(st.lists(st.lists(vote, min_size=comments, max_size=comments), min_size=people, max_size=people))
    moderated = draw(st.lists(st.sampled_from(["1", "0", "-1"]), min_size=comments, max_size=comments))
    columns = list(zip(*said, strict=True))
    rows = [
        f"{c},{5 + c},{columns[c].count('1')},{columns[c].count('-1')},{moderated[c]},text {c}" for c in range(comments)
    ]
    files = {"comments.csv": "\n".join(["comment-id,author-id,agrees,disagrees,moderated,comment-body", *rows]) + "\n"}
    if draw(st.booleans()):
        rows = [
            f"{7 + p},0,{comments - v.count('')},{v.count('1')},{v.count('-1')},{','.join(v)}"
            for p, v in enumerate(said)
        ]
        header = "participant,group-id,n-votes,n-agree,n-disagree," + ",".join(map(str, range(comments)))
        return files | {"participants-votes.csv": "\n".join([header, *rows]) + "\n"}
    rows = [f"{1600000000 + c},{c},{7 + p},{v[c]}" for p, v in enumerate(said) for c in range(comments) if v[c]]
    return files | {"votes.csv": "\n".join(["timestamp,comment-id,voter-id,vote", *rows]) + "\n"}


def cast(folder) -> Counter:
    """Return every vote that a folder holds: voter, comment's id, vote as it is written (1 and 1.0 are the same)."""
    if (folder / "votes.csv").exists():
        rows, _ = table(folder / "votes.csv")
        return Counter((row["voter-id"], row["comment-id"], row["vote"].strip()) for row in rows)
    rows, names = table(folder / "participants-votes.csv")
    cells = ((row["participant"], name, row[name].strip()) for row in rows for name in names if name.isdecimal())
    return Counter(cell for cell in cells if cell[2])


def table(path) -> tuple[list[dict[str, str]], list[str]]:
    reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    return list(reader), list(reader.fieldnames or [])


@bounded
@given(conversations(), st.booleans(), spliced)
def test_a_damaged_conversation_is_read_or_refused(tmp_path, files, votes_too, changes):
    folder = tmp_path / "talk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    hit = [name for name in files if (name != "comments.csv") == votes_too]
    for name, content in files.items():
        (folder / name).write_bytes(damaged(content, changes if name in hit else []))
    try:
        votes = Polis(folder, topic="Main Street").load()
    except InputError as error:
        assert any(word in str(error) for word in (*files, "talk"))
        assert changes or re.search("no vote that counts|has no rows", str(error))
        return
    votes_cast, aside = cast(folder), votes.provenance["set_aside"]
    assert len(votes.grades) + sum(aside.values()) == votes_cast.total()
    comments = {row["comment-id"]: row for row in table(folder / "comments.csv")[0]}
    said: dict[tuple, set] = {}
    for voter, comment, word in votes_cast:
        if comment in comments and float(comments[comment]["moderated"]) != -1:
            text, author = (comments[comment][name] for name in ("comment-body", "author-id"))
            said.setdefault((f"talk {voter}", text, f"talk {author}"), set()).add(1 + float(word))
    texts, authors, people = list(votes.items["response"]), list(votes.items["source"]), list(votes.annotators["id"])
    found = {
        (people[a], texts[i], authors[i]): v
        for a, i, v in zip(*(getattr(votes.grades, n).tolist() for n in ("annotator", "item", "value")), strict=True)
    }
    assert set(found) == set(said)
    assert all(v in said[key] for key, v in found.items())  # of several votes, which one counts is tested elsewhere
