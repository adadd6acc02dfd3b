"""Rankings and categories from PrefLib (Mattei and Walsh 2013, https://preflib.org), a library of preference data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback import read
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades, Scale

STRICT, COMPLETE, TYPES = ("soc", "soi"), ("soc", "toc"), ("soc", "soi", "toc", "toi", "cat")
LISTS = str.maketrans("{}", "[]")  # `1,{2,3}` becomes the inside of a JSON list
DIGITS = 15
CELLS = 10**8
"""Voters times alternatives that a file may state: one line can stand for any number of voters."""


@dataclass(frozen=True)
class Preflib(AbstractSource):
    """Voters who ranked alternatives (`soc`, `soi`, `toc`, `toi`) or put them into categories (`cat`).

    Each of the `count` voters of a line `count: order` is an annotator of their own. The prompt is the file's title,
    the responses are the alternatives' names. Slates list the alternatives by number: the file does not say in what
    order they were shown. Of a file that is "imbued" (see `provenance["header"]`) PrefLib added the tied last places;
    the file that it relates to has the orders as they were given.

    Args:
        path: file in PrefLib's format of September 2022 or later.
        unlisted: what it means that an order does not list an alternative: "below" = it was shown and is below all
            that are listed (a ballot cut short), "unseen" = it was not shown (each voter had other alternatives, as
            the ten of a hundred in "Sushi 100 Rank").
        ungraded: names of categories that are no grade, such as "No answer" or "conflict": set aside and counted.
            The others are a scale, and the file names its best category first.
    """

    path: str | Path
    unlisted: Literal["below", "unseen"] = "below"
    ungraded: tuple[str, ...] = ()
    kind: Literal["preflib"] = "preflib"

    def __post_init__(self):
        if self.unlisted not in ("below", "unseen"):
            raise InputError(f"unlisted is {self.unlisted!r}; it must be 'below' or 'unseen'.")

    def fingerprint(self) -> str:
        """Return a content hash of the file."""
        return read.fingerprint(self.path, ())

    def load(self) -> Feedback:
        """Read the ballots.

        Raises:
            InputError: the file cannot be read, a line is no ballot of the file's type, or the header counts something
                else than what is there; with the line and the mend.
        """
        from datasets import Dataset

        path, sha256 = Path(self.path), self.fingerprint()
        ballots = _read(path)
        voters = np.repeat(ballots.level, ballots.count, axis=0)
        make = self._grades if ballots.header["DATA TYPE"] == "cat" else self._choices
        choices, grades, scales, counts, aside = make(ballots, voters)
        if not counts.any():
            raise InputError(f"{path} holds no judgement; set aside: {aside}.")
        title = ballots.header.get("TITLE", "").strip("- ") or path.name
        n = len(ballots.names)
        return Feedback(
            items=Dataset.from_dict(
                {
                    "prompt_id": np.zeros(n, np.int32),
                    "prompt": [title] * n,
                    "response": ballots.names,
                    "source": [""] * n,
                }
            ),
            # Voters of different files are different people, so the file's name is part of the id.
            annotators=Dataset.from_dict(
                {
                    "id": [f"{path.name} {i + 1}" for i in np.flatnonzero(counts).tolist()],
                    "weight": np.ones(int(counts.sum())),
                }
            ),
            objectives=("overall",),
            choices=choices,
            grades=grades,
            scales=scales,
            provenance={
                "kind": self.kind,
                "files": [{"name": path.name, "sha256": sha256}],
                "rows": len(ballots.count),
                "header": {k: v for k, v in ballots.header.items() if not k.startswith("ALTERNATIVE NAME")},
                "set_aside": {reason: n for reason, n in aside.items() if n},
            },
        )

    def _choices(self, ballots: "_Ballots", level: Int[np.ndarray, "voter alternative"]) -> tuple[Any, ...]:
        """Return choices, no grades and no scales, who of the voters counts, and what was set aside."""
        seen = (level >= 0) | (self.unlisted == "below")
        counts = seen.sum(1) > 1
        level, seen = level[counts], seen[counts]
        first = np.argsort(~seen, axis=1, kind="stable")[:, : seen.sum(1).max(initial=0)]  # empty slots go last
        n = len(level)
        choices = Choices(
            slate=np.where(np.take_along_axis(seen, first, 1), first, -1),
            rank=np.take_along_axis(level, first, 1),
            annotator=np.arange(n),
            objective=np.zeros(n),
            context=np.zeros(n),
        )
        return choices, Grades.none(), (), counts, {"an order of a single alternative": int((~counts).sum())}

    def _grades(self, ballots: "_Ballots", level: Int[np.ndarray, "voter alternative"]) -> tuple[Any, ...]:
        """Return no choices, grades and their scale, who of the voters counts, and what was set aside."""
        names = ballots.categories
        unknown = [name for name in self.ungraded if name not in names]
        if unknown:
            raise InputError(f"ungraded names {unknown}; {self.path} has the categories {list(names)}.")
        labels = tuple(name for name in reversed(names) if name not in self.ungraded)
        form = "approval" if len(labels) == 2 else "label"
        scale = Scale(" < ".join(labels), labels, form)
        code = np.array([labels.index(name) if name in labels else -2 for name in names] + [-1])
        value = code[level]
        counts = (value >= 0).any(1)
        who, item = np.nonzero(value[counts] >= 0)
        nothing = np.zeros(len(who), int)
        grades = Grades(item, value[counts][who, item], nothing, who, nothing, nothing - 1)
        aside = {
            "an alternative in a category that is no grade": int((value == -2).sum()),
            "an alternative in no category": int((value == -1).sum()),
        }
        none = Choices.none()
        return none, grades, (scale,), counts, aside


@dataclass(frozen=True, eq=False)
class _Ballots:
    """What a file says: `level[ballot, alternative]` is the place of its group in the ballot, -1 = not listed."""

    header: dict[str, str]
    names: list[str]
    categories: list[str]
    count: Int[np.ndarray, " ballot"]
    level: Int[np.ndarray, "ballot alternative"]


def _read(path: Path) -> _Ballots:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, byte {error.start + 1}: this is not UTF-8; save the file as UTF-8.") from error
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    header, places = {}, {}
    for n, line in lines:
        if line.startswith("#"):
            key, _, value = (part.strip() for part in line[1:].partition(":"))
            header[key], places[key] = value, n
    body = [(n, line) for n, line in lines if not line.startswith("#")]
    kind = header.get("DATA TYPE")
    if kind not in TYPES:
        raise InputError(
            f"{path} has {'no line `# DATA TYPE:`' if kind is None else f'the data type {kind!r}'}; it must be one of "
            f"{', '.join(TYPES)}. Files from before September 2022 have no such header: fetch them again from PrefLib."
        )

    def number(key: str) -> int:
        if not _is_number(header.get(key, "")):
            found = repr(header[key][:40]) if key in header else None
            raise InputError(f"{path} needs a header line `# {key}: <number>`; it has {found}.")
        return int(header[key])

    def named(what: str, n: int) -> list[str]:
        keys = [f"{what} NAME {i + 1}" for i in range(min(n, len(header) + 1))]  # one more than there can be
        lost = [key for key in keys if not header.get(key)]
        if lost:
            raise InputError(f"{path} has no header line `# {lost[0]}: ...`, of {n} that the header announces.")
        names = [header[key] for key in keys]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise InputError(
                    f"{path}, line {places[keys[i]]}: the name {name!r} is there twice; names must differ."
                )
        return names

    names = named("ALTERNATIVE", number("NUMBER ALTERNATIVES"))
    categories = named("CATEGORY", number("NUMBER CATEGORIES")) if kind == "cat" else []
    count, level = np.zeros(len(body), np.int64), np.full((len(body), len(names)), -1, np.int32)
    voters = 0
    for row, (n, line) in enumerate(body):
        count[row], groups = _ballot(f"{path}, line {n}", line)
        voters += int(count[row])
        if voters * len(names) > CELLS:
            raise InputError(
                f"{path}, line {n}: the ballots so far stand for {voters:,} voters; times {len(names)} alternatives "
                f"that is more than {CELLS:,}, too many to make each of them an annotator. If the numbers are right, "
                "divide all of them by the same, here and in the header."
            )
        listed = [x - 1 for group in groups for x in group]
        fault = _fault(kind, groups, listed, len(names), len(categories))
        if fault:
            raise InputError(f"{path}, line {n}: {fault} Mend the line or the data type.")
        level[row, listed] = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    for key, found in (
        ("NUMBER VOTERS", voters),
        ("NUMBER UNIQUE PREFERENCES" if kind == "cat" else "NUMBER UNIQUE ORDERS", len(body)),
    ):
        if number(key) != found:
            raise InputError(
                f"{path}, line {places[key]}: {key} is {header[key]}, but the ballots below add up to {found}. "
                "Was the file cut off, or edited without its header?"
            )
    return _Ballots(header, names, categories, count, level)


def _ballot(place: str, line: str) -> tuple[int, list[list[int]]]:
    """Return how many voters cast a ballot, and its groups of alternatives, from a line such as `3: 1,{2,4}`."""
    voters, _, order = line.partition(":")
    try:
        groups = [x if isinstance(x, list) else [x] for x in json.loads(f"[{order.translate(LISTS)}]")]
        if not _is_number(voters.strip()) or not all(type(x) is int for group in groups for x in group):
            raise ValueError("numbers only")
    except (ValueError, RecursionError) as error:
        short = line.strip()[:40]
        raise InputError(
            f"{place}: {short!r} is no ballot ({error}); a ballot is `voters: alternatives`, such as `3: 1,{{2,4}}`."
        ) from error
    return int(voters), groups


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) <= DIGITS


def _fault(kind: str, groups: list[list[int]], listed: list[int], n: int, categories: int) -> str | None:
    """Say what a ballot has that ballots of its type do not."""
    off = [x + 1 for x in listed if not 0 <= x < n]
    if off:
        return f"there is no alternative {off[0]}; they are numbered from 1 to {n}."
    if len(set(listed)) < len(listed):
        twice = next(x for i, x in enumerate(listed) if x in listed[:i])
        return f"alternative {twice + 1} is listed twice."
    if kind == "cat":
        wrong = len(groups) != categories
        return f"the ballot has {len(groups)} categories, the header announces {categories}." if wrong else None
    if not listed or not all(groups):
        return "the order has no alternative, or an empty group."
    if kind in STRICT and len(groups) < len(listed):
        return f"the order has a tie, but those of {kind!r} files have none."
    if kind in COMPLETE and len(listed) < n:
        return f"the order lists {len(listed)} of {n} alternatives, but those of {kind!r} files are complete."
    return None
