"""What sources ask of the cells of a table: that a column is there, is filled, holds numbers, times or known words."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback.build import Builder
from pluralign.feedback.columns import Column, Rows, some
from pluralign.feedback.times import TIME, seconds

SHOWN = 5
Meaning = Callable[[str], int | None]


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
            f"{rows.name} has {len(bad)} empty cell{'s' * (len(bad) > 1)}: {some(places, len(bad))}. {why} "
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
            f"{some(parts[:20], len(parts))}. {mend}"
        )
    return codes


def words(meanings: Mapping[str, int]) -> Meaning:
    """Return the meaning of a word, whatever its case; numbers are equal if their values are (`3` and `3.0`)."""
    known = {_norm(word): code for word, code in meanings.items()}
    return lambda word: known.get(_norm(word))


def times(rows: Rows, name: str | None) -> Int[np.ndarray, " row"]:
    """Return when each row was made, in seconds since 1970 (UTC), -1 where it is not said.

    See `pluralign.feedback.times.seconds`.

    Raises:
        InputError: a cell is neither; with its place.
    """
    if name is None:
        return np.full(len(rows.place), -1)
    return meant(rows, name, _whole_seconds, f"A time is {TIME}.", optional=True)


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


def _whole_seconds(word: str) -> int | None:
    found = seconds(word)
    return None if found is None else int(found)


def dense(codes: Int[np.ndarray, " cell"]) -> tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " value"]]:
    """Number values in order of first appearance; return each cell's number and where each value first stands."""
    number = pa.array(codes).dictionary_encode().indices.to_numpy().astype(np.int64)  # hashing is faster than sorting
    most = np.maximum.accumulate(number)
    return number, np.flatnonzero(np.diff(most, prepend=-1))


def numbered(*codes: Int[np.ndarray, " row"]) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " value"]]:
    """Do the same for rows of several codes, none below -1."""
    return dense(_key(codes)[0])


def sorted_codes(*codes: Int[np.ndarray, " row"]) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " value"]]:
    """Do the same, but number in order of the codes, which is faster where most rows differ."""
    key, size = _key(codes)
    bits = len(key).bit_length()
    if size << bits >= 2**63:
        _, start, number = np.unique(key, return_index=True, return_inverse=True)
        return number, start
    both = np.sort((key << bits) + np.arange(len(key)))  # sorting numbers is much faster than sorting their places
    place, key = both & ((1 << bits) - 1), both >> bits
    new = np.diff(key, prepend=-1) > 0
    number = np.empty(len(key), np.int64)
    number[place] = np.cumsum(new) - 1
    return number, place[new]


def _key(codes: tuple[Int[np.ndarray, " row"], ...]) -> tuple[Int[np.ndarray, " row"], int]:
    """Return one number of at least 0 for rows of several codes, and above which it never is."""
    key, size = np.zeros(len(codes[0]), np.int64), 1
    for code in codes:
        width = int(code.max(initial=0)) + 2
        if size * width >= 2**63:
            key, first = sorted_codes(key)
            size = len(first) + 1
        key, size = key * width + code + 1, size * width
    return key, size


def items(
    rows: Rows, builder: Builder, prompt: str, response: str, source: str | None = None, *, optional: bool = False
) -> Int[np.ndarray, " row"]:
    """Return the item of each row, -1 where it has none.

    Args:
        rows: of the table.
        builder: to which the items are added.
        prompt: column of the prompts; not blank.
        response: column of the responses.
        source: column of who wrote them.
        optional: whether a blank response is no item; if not, it may be empty but not missing.

    Raises:
        InputError: a prompt is blank or a response is missing; with the places.
    """
    filled(rows, (prompt,), "A judgement needs a prompt.")
    prompts, responses = column(rows, prompt), column(rows, response)
    none = blank(responses) if optional else np.zeros(len(rows.place), bool)
    lost = np.flatnonzero((responses.codes < 0) & ~none).tolist()
    if lost:
        places = [f"{at(rows, row)}, column {response!r}" for row in lost[:SHOWN]]
        raise InputError(
            f"{rows.name} has {len(lost)} missing response{'s' * (len(lost) > 1)}: {some(places, len(lost))}. "
            "A response may be an empty text, but not missing. Fill them in or drop the rows."
        )
    sources = column(rows, source) if source else None
    codes = (prompts.codes, responses.codes, *((sources.codes,) if sources else ()))
    number, first = numbered(*codes)
    index = [
        -1
        if none[row]
        else builder.item(prompts.at(row) or "", responses.at(row) or "", (sources.at(row) or "") if sources else "")
        for row in first.tolist()
    ]
    return np.array(index, np.int64)[number]


def annotators(rows: Rows, builder: Builder, annotator: str, attributes: tuple[str, ...]) -> Int[np.ndarray, " row"]:
    """Return the annotator of each row; `attributes` are columns that describe the annotator, blank = not known.

    Raises:
        InputError: an annotator is blank, or has two values of an attribute; with the place.
    """
    filled(rows, (annotator,), "A judgement needs an annotator.")
    ids, own = column(rows, annotator), [column(rows, name) for name in attributes]
    number, first = numbered(ids.codes, *(cells.codes for cells in own))
    index = []
    for row in first.tolist():
        known = {name: cells.at(row) or "" for name, cells in zip(attributes, own, strict=True)}
        try:
            index.append(builder.annotator(ids.at(row) or "", 1.0, **{k: v for k, v in known.items() if v.strip()}))
        except InputError as error:
            raise InputError(f"{at(rows, row)}: {error} Mend it, or leave it out of attributes.") from error
    return np.array(index, np.int64)[number]


def check_attributes(attributes: tuple[str, ...]) -> None:
    """Check the names of attributes.

    Raises:
        InputError: one is there twice, or is `id` or `weight`.
    """
    if {"id", "weight"} & set(attributes) or len(set(attributes)) < len(attributes):
        raise InputError(f"attributes is {attributes}; names must differ and not be 'id' or 'weight'.")


def sittings(rows: Rows, name: str | None) -> Int[np.ndarray, " row"]:
    """Return the number of the sitting of each row, -1 where it is not said."""
    if name is None:
        return np.full(len(rows.place), -1)
    cells = column(rows, name)
    return np.where(blank(cells), -1, cells.codes)


def take(rows: Rows, chosen: Int[np.ndarray, " chosen"]) -> Rows:
    """Return some rows of a table."""
    columns = {name: cells.take(chosen) for name, cells in rows.columns.items()}
    return replace(rows, place=rows.place[chosen], columns=columns)
