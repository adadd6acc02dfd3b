"""What sources ask of the cells of a table: that a column is there, is filled, holds numbers, times or known words."""

import datetime
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback import read
from pluralign.feedback.read import Column, Rows

SHOWN = 5
Meaning = Callable[[str], int | None]
MILLISECONDS = 1e11  # in seconds this is the year 5138, in milliseconds 1973


def at(rows: Rows, row: int) -> str:
    """Return the place of a row in words."""
    return f"{rows.name}, {rows.unit} {rows.place[row]}"


def quoted(text: str | None) -> str:
    """Return a cell as it is shown in a message."""
    return "missing" if text is None else repr(text if len(text) <= 40 else f"{text[:37]}...")


def column(rows: Rows, name: str) -> Column:
    """Return a column.

    Raises:
        InputError: it is not there.
    """
    if name not in rows.columns:
        near = get_close_matches(name, rows.names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        have = ", ".join(map(repr, rows.names[:50])) or "none"
        raise InputError(f"{rows.name} has no column {name!r}; it has {have}.{hint}")
    return rows.columns[name]


def blank(cells: Column) -> np.ndarray:
    """Return where a cell is missing, empty or white space."""
    return np.array([not word.strip() for word in cells.values] + [True])[cells.codes]


def filled(rows: Rows, names: Iterable[str], why: str) -> None:
    """Check that no cell of the columns is missing or blank.

    Raises:
        InputError: some are; with their places.
    """
    bad = [(row, name) for name in names for row in np.flatnonzero(blank(column(rows, name))).tolist()]
    if bad:
        places = [f"{at(rows, row)}, column {name!r}" for row, name in sorted(bad)[:SHOWN]]
        raise InputError(
            f"{rows.name} has {len(bad)} empty cell{'s' * (len(bad) > 1)}: {read.some(places, len(bad))}. {why} "
            "Fill them in or drop the rows."
        )


def meant(rows: Rows, name: str, meaning: Meaning, mend: str, *, optional: bool = False) -> Int[np.ndarray, " row"]:
    """Return what each cell of a column means, -1 where it is blank.

    Args:
        rows: of the table.
        name: of the column.
        meaning: of a word that is not blank; None = unknown.
        mend: what to change if a word is unknown.
        optional: whether a cell may be blank.

    Raises:
        InputError: words are unknown or blank; with how often and where first.
    """
    cells = column(rows, name)
    known = [-1 if optional and not word.strip() else meaning(word.strip()) for word in cells.values]
    unknown = -2
    codes = np.array([unknown if k is None else k for k in known] + [-1 if optional else unknown])[cells.codes]
    wrong = codes == unknown
    if wrong.any():
        words, start, count = np.unique(cells.codes[wrong], return_index=True, return_counts=True)
        first = np.flatnonzero(wrong)[start]
        parts = [
            f"{quoted(cells.at(row))} in {n} row{'s' * (n > 1)}, first at {at(rows, row)}"
            for row, n in sorted(zip(first.tolist(), count.tolist(), strict=True))
        ]
        raise InputError(
            f"column {name!r} of {rows.name} has {len(words)} unknown word{'s' * (len(words) > 1)}: "
            f"{read.some(parts[:20], len(parts))}. {mend}"
        )
    return codes


def words(meanings: Mapping[str, int]) -> Meaning:
    """Return the meaning of a word, whatever its case; numbers are equal if their values are (`3` and `3.0`)."""
    known = {_norm(word): code for word, code in meanings.items()}
    return lambda word: known.get(_norm(word))


def times(rows: Rows, name: str | None) -> Int[np.ndarray, " row"]:
    """Return when each row was made, in seconds since 1970 (UTC), -1 where it is not said.

    A number is seconds, or milliseconds if seconds would be a far future; a text is ISO 8601, in UTC if it names no
    zone.

    Raises:
        InputError: a cell is neither; with its place.
    """
    if name is None:
        return np.full(len(rows.place), -1)
    mend = "A time is a number of seconds or milliseconds since 1970, or ISO 8601 such as 2024-05-31T12:00:00Z."
    return meant(rows, name, _seconds, mend, optional=True)


def order(time: np.ndarray, who: np.ndarray) -> Int[np.ndarray, " row"]:
    """Return the place of each act in its annotator's own order of work: by time, rows of equal times as they stand."""
    by = np.lexsort((np.arange(len(who)), time, who))
    place = np.empty(len(who), np.int64)
    place[by] = np.arange(len(who)) - np.searchsorted(who[by], who[by])
    return place


def _norm(word: str) -> str | float:
    try:
        return float(word)
    except ValueError:
        return word.strip().casefold()


def _seconds(word: str) -> int | None:
    try:
        number = float(word)
        seconds = number / 1000 if number >= MILLISECONDS else number
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(word)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return int(seconds // 1) if 0 <= seconds < MILLISECONDS else None
