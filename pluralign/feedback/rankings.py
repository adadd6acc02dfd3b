"""Orders over more than two responses from tables: rankings, best-of-k, demonstrations."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback import cells, read
from pluralign.feedback.build import Builder
from pluralign.feedback.columns import Rows, some
from pluralign.feedback.read import File
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades

LAST = np.iinfo(np.int64).max  # sorts after every rank


@dataclass(frozen=True)
class Rankings(AbstractSource):
    """Rankings, best-of-k or demonstrations in a CSV, TSV, JSON, JSONL or Parquet file or a `datasets.Dataset`.

    One row an act, with the rank of each response:

        Rankings("acts.csv", prompt="question", responses=("a", "b", "c"), annotator="worker", ranks=("ra", "rb", "rc"))

    or with the best of them, which is named by its column, by a word of `slots`, or by its text:

        Rankings("acts.csv", prompt="question", responses=("a", "b", "c"), annotator="worker", best="winner")

    or one row a response, where the rows of an annotator and an `act` are one act, in the order that was shown:

        Rankings("rows.csv", prompt="question", responses="answer", annotator="worker", ranks="rank", act="task")

    or demonstrations, one row each:

        Rankings("texts.csv", prompt="question", responses="answer", annotator="worker")

    Acts that say nothing are set aside and counted: those without a rank, those that show fewer than two responses, and
    those that show one response twice.

    Args:
        path: file (text files also with .gz), folder of `Dataset.save_to_disk`, or in Python a `datasets.Dataset`.
        prompt: column with the prompt's text; the same for all rows of an act.
        responses: columns with the responses' texts as they were shown (a blank cell is an empty slot), or the column.
        annotator: column with the annotator's id.
        ranks: columns with the ranks of these responses, or the column: whole numbers, the lowest (1, or 0 in the whole
            file) = best, equal = tie, blank = shown but not ranked.
        best: column that says which response is the best; or the one of `responses` that always is, as `chosen` of
            the columns `chosen` and `rejected`.
        slots: what words in the column `best` mean: a column of `responses`. Case does not matter. Numbers are never
            guessed, since data sets disagree on whether 0 or 1 is the first.
        act: column that names the act, if one row is a response.
        objective: column that names what was asked; without it that is "overall".
        attributes: columns that describe the annotator; constant for each, blank = not known.
        sources: columns (or the column) that name who wrote the responses.
        time: column that says when; it orders each annotator's work. Without it that is the order of rows.
        sitting: column that names the session, task or batch.
    """

    path: File
    prompt: str
    responses: str | tuple[str, ...]
    annotator: str
    ranks: str | tuple[str, ...] | None = None
    best: str | None = None
    slots: dict[str, str] = field(default_factory=dict)
    act: str | None = None
    objective: str | None = None
    attributes: tuple[str, ...] = ()
    sources: str | tuple[str, ...] | None = None
    time: str | None = None
    sitting: str | None = None
    kind: Literal["rankings"] = "rankings"
    # pydantic knows no `datasets.Dataset`; an instance is all that it needs to check.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True}

    def __post_init__(self):
        cells.check_attributes(self.attributes)
        columns = _columns(self.responses)
        for name, given in (("ranks", self.ranks), ("sources", self.sources)):
            if given is not None and (isinstance(given, str) != isinstance(self.responses, str)):
                raise InputError(
                    f"{name} is {given!r}, but responses is {self.responses!r}; name as many columns of each."
                )
            if given is not None and len(_columns(given)) != len(columns):
                raise InputError(f"{name} has {len(_columns(given))} columns, responses has {len(columns)}.")
        if not columns or len(set(columns)) < len(columns):
            raise InputError(f"responses is {self.responses!r}; it needs at least one column, and each once.")
        if self.ranks is not None and self.best is not None:
            raise InputError("ranks and best say the same thing; give one of them.")
        if self.act is not None and not (isinstance(self.responses, str) and isinstance(self.ranks, str)):
            raise InputError("with act, one row is a response, so responses and ranks must each be one column.")
        if isinstance(self.responses, str) and (self.best is not None or (self.ranks is None) != (self.act is None)):
            raise InputError("responses is one column, so ranks and act go together: act names the rows of one act.")
        if isinstance(self.responses, tuple) and len(columns) > 1 and self.ranks is None and self.best is None:
            raise InputError("several responses need ranks, or which is best.")
        for word, name in self.slots.items():
            if name not in columns:
                raise InputError(f"slots[{word!r}] is {name!r}; it must be one of the responses {list(columns)}.")

    @property
    def _wanted(self) -> tuple[str, ...]:
        several = (self.responses, self.ranks or (), self.sources or (), self.attributes)
        one = (self.prompt, self.annotator, self.best, self.act, self.objective, self.time, self.sitting)
        return (*(name for names in several for name in _columns(names)), *(name for name in one if name))

    def fingerprint(self) -> str:
        """Return a content hash of the file."""
        return read.fingerprint(self.path, self._wanted)

    def load(self) -> Feedback:
        """Read the acts.

        Raises:
            InputError: the file cannot be read, a column is missing, or a cell is bad; with its place and the mend.
        """
        rows, builder = read.read(self.path, self._wanted), Builder()
        columns = _columns(self.responses)
        sources = _columns(self.sources) if self.sources else (None,) * len(columns)
        pairs = zip(columns, sources, strict=True)
        slate = np.stack([cells.items(rows, builder, self.prompt, c, s, optional=True) for c, s in pairs], 1)
        who = cells.annotators(rows, builder, self.annotator, self.attributes)
        objectives, objective = self._objectives(rows)
        given, first = self._given(rows, slate), np.arange(len(who))
        if self.act is not None:
            slate, given, first = self._together(rows, slate[:, 0], given[:, 0], who, objective)
        unseen = np.argwhere((slate < 0) & (given >= 0))
        if len(unseen):
            raise InputError(
                f"{cells.at(rows, int(first[unseen[0, 0]]))}: an empty response has a rank, or is the best."
            )

        compared = self.ranks is not None or self.best is not None
        ordered = np.sort(slate, 1)
        nothing = {
            "an act of a single response" if compared else "a demonstration without a text": (slate >= 0).sum(1)
            < 1 + compared,
            "an act without a rank": (given < 0).all(1),
            "an act that shows a response twice": ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1),
        }
        counts, aside = np.ones(len(first), bool), {}
        for reason, says_nothing in nothing.items():
            if (counts & says_nothing).any():
                aside[reason] = rows.place[first[counts & says_nothing]]
            counts &= ~says_nothing
        set_aside = {reason: len(places) for reason, places in aside.items()}
        if not counts.any():
            raise InputError(f"{rows.name} holds no act that counts; set aside: {set_aside}.")
        slate, given, first = slate[counts], given[counts], first[counts]
        time = cells.times(rows, self.time)[first]
        return Feedback(
            items=builder.items(),
            annotators=builder.annotators(),
            objectives=objectives,
            choices=Choices(
                slate=slate,
                rank=_dense(rows, first, given),
                annotator=who[first],
                objective=objective[first],
                context=cells.order(time, who[first]),
                time=time,
                sitting=cells.sittings(rows, self.sitting)[first],
            ),
            grades=Grades.none(),
            provenance={
                "kind": self.kind,
                "files": [{"name": rows.name, "sha256": self.fingerprint()}],
                "rows": len(rows.place),
                "set_aside": set_aside,
                "set_aside_at": {reason: places[:20].tolist() for reason, places in aside.items()},
            },
        )

    def _objectives(self, rows: Rows) -> tuple[tuple[str, ...], Int[np.ndarray, " row"]]:
        if self.objective is None:
            return ("overall",), np.zeros(len(rows.place), np.int64)
        cells.filled(rows, (self.objective,), "A judgement needs an objective.")
        column = cells.column(rows, self.objective)
        number, first = cells.numbered(column.codes)
        return tuple(column.at(row) or "" for row in first.tolist()), number

    def _given(self, rows: Rows, slate: Int[np.ndarray, "row slot"]) -> Int[np.ndarray, "row slot"]:
        """Return the ranks as they are given, -1 where there is none."""
        if self.ranks is not None:
            mend = "A rank is a whole number, 1 = best; leave the cell empty if the response was not ranked."
            names = _columns(self.ranks)
            return np.stack([cells.meant(rows, name, _whole, mend, optional=True) for name in names], 1)
        if self.best is None:
            return np.where(slate >= 0, 1, -1)
        return np.where(self._best(rows)[:, None] == np.arange(slate.shape[1]), 1, -1)

    def _best(self, rows: Rows) -> Int[np.ndarray, " row"]:
        """Return the slot of the best response, -1 where it is not said."""
        name, columns = self.best or "", _columns(self.responses)
        if name in columns:  # whatever its text: it may be the word "rejected"
            return np.full(len(rows.place), columns.index(name))
        slot = {**{column: column for column in columns}, **self.slots}
        by_name = cells.words({word: columns.index(column) for word, column in slot.items()})
        best, texts = cells.column(rows, name), [cells.column(rows, column) for column in columns]
        known = np.array([-2 if (code := by_name(word)) is None else code for word in best.values] + [-1])[best.codes]
        known[cells.blank(best)] = -1
        for row in np.flatnonzero(known == -2).tolist():  # neither a column nor a word of slots: the text itself
            same = [i for i, text in enumerate(texts) if text.at(row) == best.at(row)]
            if not same:
                raise InputError(
                    f"{cells.at(rows, row)}, column {name!r}: {cells.quoted(best.at(row))} is none of the columns "
                    f"{list(columns)}, no word of slots, and no response of this row. Say what it means: "
                    f"slots={{{best.at(row)!r}: {columns[0]!r}}}. Numbers are never guessed, since data sets disagree "
                    "on whether 0 or 1 is the first."
                )
            known[row] = same[0]
        return known

    def _together(
        self,
        rows: Rows,
        item: Int[np.ndarray, " row"],
        given: Int[np.ndarray, " row"],
        who: Int[np.ndarray, " row"],
        objective: Int[np.ndarray, " row"],
    ) -> tuple[Int[np.ndarray, "act slot"], Int[np.ndarray, "act slot"], Int[np.ndarray, " act"]]:
        """Return the slates and ranks of acts that have a row for each response, and the first row of each act."""
        name = self.act or ""
        cells.filled(rows, (name,), "A response belongs to an act.")
        act, first = cells.numbered(cells.column(rows, name).codes, who, objective)
        prompt = cells.column(rows, self.prompt)
        other = np.flatnonzero(prompt.codes != prompt.codes[first[act]])
        if len(other):
            row, begin = int(other[0]), int(first[act[other[0]]])
            raise InputError(
                f"{cells.at(rows, row)}: act {cells.column(rows, name).at(row)!r} has another prompt than in "
                f"{rows.unit} {rows.place[begin]}: {cells.quoted(prompt.at(row))}, {cells.quoted(prompt.at(begin))}. "
                "The responses of an act answer one prompt."
            )
        slot = cells.order(np.zeros(len(act)), act)
        slate, ranks = (np.full((len(first), int(slot.max()) + 1), -1, np.int64) for _ in range(2))
        slate[act, slot], ranks[act, slot] = item, given
        return slate, ranks, first


def _columns(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _whole(word: str) -> int | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def _dense(
    rows: Rows, first: Int[np.ndarray, " act"], given: Int[np.ndarray, "act slot"]
) -> Int[np.ndarray, "act slot"]:
    """Return ranks that count up from 0 without gaps, -1 = none.

    Raises:
        InputError: an act has no best, though others have.
    """
    ranks = np.where(given < 0, LAST, given)
    lowest, best = ranks.min(1), min(int(ranks.min()), 1)
    late = np.flatnonzero(lowest != best).tolist()
    if late:
        places = [f"{lowest[act]} in {cells.at(rows, int(first[act]))}" for act in late[: cells.SHOWN]]
        raise InputError(
            f"the lowest rank of an act must be {best}, that of the best, but it is {some(places, len(late))}. "
            "Is the best one's cell empty, or does a high number mean the best?"
        )
    by = np.argsort(ranks, 1, kind="stable")
    ordered = np.take_along_axis(ranks, by, 1)
    dense = np.zeros_like(ranks)
    np.put_along_axis(dense, by, np.cumsum(np.diff(ordered, axis=1, prepend=ordered[:, :1]) > 0, 1), 1)
    return np.where(given < 0, -1, dense)
