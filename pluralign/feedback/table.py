import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback import read
from pluralign.feedback.cells import dense, quoted
from pluralign.feedback.columns import Column, Rows, some
from pluralign.feedback.joined import joined
from pluralign.feedback.read import File
from pluralign.feedback.source import AbstractSource
from pluralign.feedback.times import TIME, seconds
from pluralign.types import FORMS, Choices, Feedback, Grades

STRONGEST = 127
STRENGTH = f"is no strength: a whole number from 0 (not stated) to {STRONGEST}. Say what the word means in strengths."
MEANING = re.compile("(first|second)(:([1-9]|[1-9][0-9]|1[01][0-9]|12[0-7]))?|tie")
FIRST, SECOND, TIE = "first", "second", "tie"
OUTCOMES = {
    **dict.fromkeys((FIRST, "left", "a", "model_a", "model_x", "response_a", "answer_a", "option_a"), FIRST),
    **dict.fromkeys((SECOND, "right", "b", "model_b", "model_y", "response_b", "answer_b", "option_b"), SECOND),
    **dict.fromkeys((TIE, "ties", "tied", "equal", "equals", "draw", "same", "both", "neither", "no preference"), TIE),
    **dict.fromkeys(("tie (bothbad)", "tie (both bad)", "both bad", "bothbad", "both_bad", "both good"), TIE),
}
"""What the words of an outcome mean. No digits: 0 and 1, or 1 and 2, mean the first in some data sets, the
second in others, and a guess would turn every preference around."""


@dataclass(frozen=True)
class Table(AbstractSource):
    """Comparisons of two responses, one a row, in a CSV, TSV, JSON, JSONL or Parquet file or a `datasets.Dataset`.

    Every cell is read as text as it stands. Items are the different (prompt, response) pairs in order of first
    appearance. A response compared with itself says nothing: such rows are set aside and counted in the provenance.

    Nearly every field says where one thing is found; so they are many, and stand side by side.

    Args:
        path: file (text files also with .gz), folder of `Dataset.save_to_disk`, or in Python a `datasets.Dataset`.
        prompt: column with the prompt's text.
        first: column with the text of the response that was shown first (left).
        second: column with the text of the response that was shown second (right).
        outcome: column that says who won; None where the first always did, as the edited text of a correction.
        annotator: column with the annotator's id.
        attributes: columns that describe the annotator; constant for each.
        outcomes: what words in the outcome column mean, each `first`, `second` or `tie`, or with how strongly, such as
            `first:2`; they add to and take precedence over common words (first, left, a, model_a, right, tie, both,
            ...). Case does not matter.
        join: another file whose columns are joined to each row; where both have a column, `path` has it.
        key: key column of the join, in both files; unique in the joined one.
        sources: columns that name who wrote the first and the second response.
        order: column to sort each annotator's work by (as numbers if all are, else as text); if none, that of `time`
            (the place of a row without time is unknown), and without that the order of rows.
        objective: column that names what was asked; "overall" if none.
        strength: column that says how strongly the winner is preferred, 1 = least; 0 or missing = not stated. A tie
            has none.
        strengths: what words in the strength column mean, 0 to 127; whole numbers mean themselves.
        time: column with the time of the judgement: ISO 8601 (UTC if it names no zone), or seconds or milliseconds
            since 1970.
        sitting: column that tells sittings (sessions, tasks, batches) apart.
        form: "comparison", or "correction": then the first response is the edited one and won if `outcome` is None.
    """

    path: File
    prompt: str
    first: str
    second: str
    outcome: str | None
    annotator: str
    attributes: tuple[str, ...] = ()
    outcomes: dict[str, str] = field(default_factory=dict)
    join: File | None = None
    key: str = "id"
    sources: tuple[str, str] | None = None
    order: str | None = None
    objective: str | None = None
    strength: str | None = None
    strengths: dict[str, int] = field(default_factory=dict)
    time: str | None = None
    sitting: str | None = None
    form: Literal["comparison", "correction"] = "comparison"
    kind: Literal["table"] = "table"
    # pydantic knows no `datasets.Dataset`; an instance is all that it needs to check.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True}

    def __post_init__(self):
        for word, meaning in self.outcomes.items():
            if not MEANING.fullmatch(meaning):
                raise InputError(
                    f"outcomes[{word!r}] is {meaning!r}; it must be 'first', 'second' or 'tie', "
                    "or 'first' or 'second' with a strength from 1 to 127, such as 'first:2'."
                )
        for word, strength in self.strengths.items():
            if strength not in range(STRONGEST + 1):
                raise InputError(f"strengths[{word!r}] is {strength!r}; it must be 0 (not stated) to {STRONGEST}.")
        if self.strength and any(":" in meaning for meaning in self.outcomes.values()):
            raise InputError("strength names a column, and outcomes states strengths too; state them in one place.")
        if self.strengths and not self.strength:
            raise InputError("strengths says what words mean, but strength names no column in which they stand.")
        if self.form not in ("comparison", "correction"):
            raise InputError(f"form is {self.form!r}; it must be 'comparison' or 'correction'.")
        if self.outcome is None and self.form != "correction":
            raise InputError(
                "outcome is None, which says that the response shown first won every time; only of a correction is "
                "that known. Name the column that says who won."
            )
        taken = sorted({"id", "weight"} & set(self.attributes))
        if taken or len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"attributes is {self.attributes}; names must differ and not be 'id' or 'weight'.")

    @property
    def _wanted(self) -> tuple[str, ...]:
        once = (self.prompt, self.first, self.second, self.outcome, self.annotator)
        optional = (self.order, self.objective, self.strength, self.time, self.sitting)
        names = (*once, *self.attributes, *(self.sources or ()), *optional)
        return tuple(name for name in names if name is not None)

    def fingerprint(self) -> str:
        """Return a content hash of the file and of the joined one."""
        return digest([file["sha256"] for file in self._hashes()])

    def _hashes(self) -> list[dict[str, str]]:
        files = [file for file in (self.path, self.join) if file is not None]
        wanted = (*self._wanted, self.key)
        return [{"name": _name(file), "sha256": read.fingerprint(file, wanted)} for file in files]

    def load(self) -> Feedback:
        """Read the judgements.

        Raises:
            InputError: a file cannot be read, a column is missing, or a row is bad; with its place and the mend.
        """
        from datasets import Dataset

        with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter free to read
            hashes = pool.submit(self._hashes)
            rows, columns, at = joined(self.path, self._wanted, self.join, self.key)
        self._check_cells(rows, columns, at)
        winner, strength = self._outcomes(columns, len(rows.place), at)
        strength = strength if self.strength is None else self._strengths(columns[self.strength], at)
        when = None if self.time is None else _seconds(self.time, columns[self.time], at)
        n = len(rows.place)
        prompts, first, second = (columns[name] for name in (self.prompt, self.first, self.second))

        # One code for equal texts of both slots, and one key for equal (prompt, text), slot after slot.
        pool = {text: code for code, text in enumerate(dict.fromkeys([*first.values, *second.values]))}
        texts = np.stack([np.array([pool[text] for text in c.values])[c.codes] for c in (first, second)], 1)
        prompt, prompt_row = dense(prompts.codes)
        item, item_slot = dense((prompt[:, None].astype(np.int64) * len(pool) + texts).ravel())
        slate = item.reshape(n, 2)
        annotator, annotator_row = dense(columns[self.annotator].codes)

        words = prompts.values
        answers = list(pool)
        items = {
            "prompt_id": prompt[item_slot // 2].astype(np.int32),
            "prompt": [words[prompts.codes[prompt_row[x]]] for x in prompt[item_slot // 2]],
            "response": [answers[i] for i in texts.ravel()[item_slot]],
            "source": self._sources(columns, item, len(item_slot)),
        }
        people: dict[str, Any] = {
            "id": columns[self.annotator].take(annotator_row).texts(),
            "weight": np.ones(len(annotator_row)),
        }
        for name in self.attributes:
            people[name] = self._attribute(name, rows, columns, annotator, annotator_row, at)

        asked, objectives = np.zeros(n, int), ("overall",)
        if self.objective is not None:
            asked, asked_row = dense(columns[self.objective].codes)
            objectives = tuple(map(str, columns[self.objective].take(asked_row).texts()))

        same = slate[:, 0] == slate[:, 1]
        counts = ~same
        choices = Choices(
            slate=slate,
            rank=np.stack([winner == 1, winner == 0], 1),
            annotator=annotator,
            objective=asked,
            context=_context(annotator, *self._order(columns, n, when)),
            strength=np.where(winner == 2, 0, strength),
            form=np.full(n, FORMS.index(self.form)),
            time=np.full(n, -1) if when is None else np.floor(when),
            sitting=np.full(n, -1) if self.sitting is None else _sittings(columns[self.sitting]),
        ).where(counts)
        reason = "a response compared with itself" if self.form == "comparison" else "a correction that changes nothing"
        if not counts.any():
            raise InputError(
                f"{rows.name} holds no {self.form} that counts; set aside: {reason} in all {n} rows. Do `first` and "
                "`second` name the same column, or columns that are the same?"
            )
        provenance = {
            "kind": self.kind,
            "files": hashes.result(),
            "rows": n,
            "set_aside": {reason: int(same.sum())} if same.any() else {},
            "set_aside_at": {reason: rows.place[same][:20].tolist()} if same.any() else {},
        }
        return Feedback(
            items=Dataset.from_dict(items),
            annotators=Dataset.from_dict(people),
            objectives=objectives,
            choices=choices,
            grades=Grades.none(),
            provenance=provenance,
        )

    def _check_cells(self, rows: Rows, columns: dict[str, Column], at: Callable[[int], str]) -> None:
        bad: list[tuple[int, str]] = []
        for name in dict.fromkeys((self.prompt, self.first, self.second, self.annotator, self.order, self.objective)):
            if name is None:
                continue
            wrong = columns[name].codes < 0
            if name in (self.prompt, self.annotator, self.objective):
                blank = np.array([not word.strip() for word in columns[name].values] + [True])
                wrong = blank[columns[name].codes]
            bad += [(row, name) for row in np.flatnonzero(wrong).tolist()]
        if bad:
            shown = [f"{at(row)}, column {name!r}: {quoted(columns[name].at(row))}" for row, name in sorted(bad)[:5]]
            raise InputError(
                f"{rows.name} has {len(bad)} missing or empty cells. {some(shown, len(bad))}. "
                "A response may be an empty text, but not missing; a prompt, annotator or objective must not be blank. "
                "Fill these cells in or drop the rows."
            )

    def _outcomes(
        self, columns: dict[str, Column], n: int, at: Callable[[int], str]
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
        """Return 0 where the first won, 1 where the second did, 2 for a tie; and how strongly."""
        if self.outcome is None:
            return np.zeros(n, int), np.zeros(n, int)
        meanings = {_norm(k): v for k, v in OUTCOMES.items()} | {_norm(k): v for k, v in self.outcomes.items()}
        outcome = columns[self.outcome]
        known = [meanings.get(_norm(word), "").partition(":") for word in outcome.values]
        winners = [(FIRST, SECOND, TIE).index(winner) if winner else -1 for winner, _, _ in known]
        codes = np.array([*winners, -1])[outcome.codes]
        if (codes < 0).any():
            unknown, start, count = np.unique(outcome.codes[codes < 0], return_index=True, return_counts=True)
            places = np.flatnonzero(codes < 0)[start].tolist()
            values = [outcome.at(place) for place in places]
            parts = [
                f"{quoted(value)} in {c} row{'s' * (c > 1)}, first at {at(place)}"
                for value, place, c in zip(values, places, count.tolist(), strict=True)
            ]
            example = next((v for v in values if v is not None), "A won")
            digits = any(v is not None and v.strip().isdigit() for v in values)
            raise InputError(
                f"column {self.outcome!r} has {len(unknown)} unknown outcome{'s' * (len(unknown) > 1)}: "
                f"{some(parts[:20], len(parts))}. Say what each means: "
                f"outcomes={{{example!r}: 'first'}} (or 'second', or 'tie')."
                + " Digits are never guessed, since data sets disagree on whether 1 is the first."
                * digits
            )
        return codes, np.array([*(int(strength or 0) for _, _, strength in known), 0])[outcome.codes]

    def _strengths(self, column: Column, at: Callable[[int], str]) -> Int[np.ndarray, " row"]:
        meanings = {_norm(word): strength for word, strength in self.strengths.items()}

        def strength(word: str) -> int:
            own = meanings.get(_norm(word))
            number = float(word or 0) if own is None else own  # "2.0" is a whole number that a missing one made a float
            if number != int(number):
                raise ValueError
            return int(number)

        return np.array([*_each(str(self.strength), column, strength, (0, STRONGEST), STRENGTH, at), 0])[column.codes]

    def _sources(self, columns: dict[str, Column], item: Int[np.ndarray, " cell"], items: int) -> list[str]:
        """Name who wrote each item; where several did, all of them, in order of first appearance."""
        if self.sources is None:
            return [""] * items
        words = [columns[name].values for name in self.sources]
        offset = len(words[0])
        codes = np.stack([columns[name].codes for name in self.sources], 1)
        both = np.where(codes < 0, -1, codes + np.array([0, offset])).ravel()
        _, at = np.unique(np.stack([item, both], 1), axis=0, return_index=True)
        found: list[dict[str, None]] = [{} for _ in range(items)]
        for cell in np.sort(at):
            if both[cell] >= 0:
                found[item[cell]][(words[0] + words[1])[both[cell]]] = None
        return [" | ".join(names) for names in found]

    def _attribute(
        self,
        name: str,
        rows: Rows,
        columns: dict[str, Column],
        annotator: Int[np.ndarray, " row"],
        start: Int[np.ndarray, " annotator"],
        at: Callable[[int], str],
    ) -> list[str]:
        column = columns[name]
        differs = np.flatnonzero(column.codes != column.codes[start][annotator])
        if len(differs):
            row, own = int(differs[0]), int(start[annotator[differs[0]]])
            raise InputError(
                f"annotator {columns[self.annotator].at(row)!r} has two values of {name!r}: "
                f"{quoted(column.at(own))} ({at(own)}) and {quoted(column.at(row))} ({at(row)}). "
                "An attribute describes the annotator, so it cannot change between rows; mend it, or leave it out."
            )
        return [text or "" for text in column.take(start).texts()]

    def _order(
        self, columns: dict[str, Column], n: int, when: Float[np.ndarray, " row"] | None
    ) -> tuple[np.ndarray, Bool[np.ndarray, " row"]]:
        """Return what sorts the rows of an annotator, and where it is known."""
        known = np.ones(n, bool)
        if self.order is None:
            return (np.arange(n), known) if when is None else (when, when >= 0)
        words = columns[self.order].values
        try:
            keys = [float(word) for word in words]
        except ValueError:  # as Python sorts them: an array of texts is as wide everywhere as its longest one
            place = {word: i for i, word in enumerate(sorted(words))}
            keys = [place[word] for word in words]
        return np.array(keys)[columns[self.order].codes], known


def _context(
    annotator: Int[np.ndarray, " row"], key: np.ndarray, known: Bool[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """Return the place of each row in its annotator's own order of work, -1 where that is not known."""
    order = np.lexsort((np.arange(len(key)), key, annotator))
    order = order[known[order]]
    begin = np.searchsorted(annotator[order], annotator[order])
    context = np.full(len(key), -1)
    context[order] = np.arange(len(order)) - begin
    return context


def _each(
    name: str,
    column: Column,
    read_as: Callable[[str], float | int],
    limits: tuple[int, int | float],
    mend: str,
    at: Callable[[int], str],
) -> list[float | int]:
    """Return what each different text means, which must lie within limits."""
    meant = []
    for code, word in enumerate(column.values):
        try:
            meant.append(read_as(word.strip()))
            if not limits[0] <= meant[-1] <= limits[1]:
                raise ValueError
        except (ValueError, OverflowError) as error:
            rows = np.flatnonzero(column.codes == code)
            many = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            raise InputError(f"{at(int(rows[0]))}{many}, column {name!r}: {quoted(word)} {mend}") from error
    return meant


def _seconds(name: str, column: Column, at: Callable[[int], str]) -> Float[np.ndarray, " row"]:
    """Return seconds since 1970, -1 where there is no time."""

    def when(word: str) -> float:
        found = seconds(word) if word else -1.0
        if found is None:
            raise ValueError
        return found

    mend = f"is no time: {TIME}. If it is a counter, name the column in `order`, not in `time`."
    return np.array([*_each(name, column, when, (-1, np.inf), mend, at), -1.0])[column.codes]


def _sittings(column: Column) -> Int[np.ndarray, " row"]:
    """Number sittings in order of first appearance, -1 where none is named."""
    named = np.array([bool(word.strip()) for word in column.values] + [False])[column.codes]
    sitting = np.full(len(named), -1)
    sitting[named] = dense(column.codes[named])[0]
    return sitting


def _norm(word: str) -> str:
    return word.strip().casefold()


def _name(file: File) -> str:
    return Path(file).name if isinstance(file, str | Path) else "data set"
