"""A table whose rows are completed by those of another file."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback import read
from pluralign.feedback.cells import quoted
from pluralign.feedback.columns import Column, Rows, some
from pluralign.feedback.read import File

NAMED = 50


def joined(
    file: File, wanted: tuple[str, ...], other: File | None, key: str
) -> tuple[Rows, dict[str, Column], Callable[[int], str]]:
    """Read a file and join another one to each of its rows; where both have a column, the first one has it.

    Args:
        file: one row a judgement.
        wanted: columns that must be in one of the files.
        other: file that is joined; none: nothing is.
        key: column of both files by which they are joined; unique in the other one.

    Returns:
        The rows of the file, the wanted columns, and what names the place of a row.

    Raises:
        InputError: a file cannot be read, a column is missing, a key stands twice in the other file or not at all.
    """
    rows = read.read(file, wanted if other is None else (*wanted, key))
    columns, there = dict(rows.columns), {rows.name: rows.names}

    def at(row: int) -> str:
        return f"{rows.name}, {rows.unit} {rows.place[row]}"

    if other is not None:
        _require((key,), rows.columns, there)
        found = read.read(other, (key, *(name for name in wanted if name not in rows.columns)))
        _require((key,), found.columns, {found.name: found.names})
        match = _match(rows, found, key)
        columns = {name: column.take(match) for name, column in found.columns.items()} | columns
        there[found.name] = found.names

        def at(row: int) -> str:
            place = f"{rows.name}, {rows.unit} {rows.place[row]}"
            return f"{place} (with {found.name}, {found.unit} {found.place[match[row]]})"

    _require(wanted, columns, there)
    return rows, columns, at


def _require(wanted: Iterable[str], columns: dict[str, Column], there: dict[str, tuple[str, ...]]) -> None:
    missing = [name for name in dict.fromkeys(wanted) if name not in columns]
    if missing:
        names = [name for have in there.values() for name in have]
        near = {name: get_close_matches(name, names, 1) for name in missing}
        hints = " ".join(f"For {name!r}, did you mean {close[0]!r}?" for name, close in near.items() if close)
        lists = [f"{file} has {_list(have) or 'none'}" for file, have in there.items()]
        raise InputError(f"no column {', '.join(map(repr, missing))}. {'; '.join(lists)}. {hints}".rstrip())


def _match(rows: Rows, other: Rows, on: str) -> Int[np.ndarray, " row"]:
    """Return the row of `other` with the key of each row."""
    key, keys = rows.columns[on], other.columns[on]
    code, start, count = np.unique(keys.codes, return_index=True, return_counts=True)
    if ((count > 1) & (code >= 0)).any():
        twice = int(start[(count > 1) & (code >= 0)][0])
        raise InputError(
            f"{other.name}: the key {on!r} is {quoted(keys.at(twice))} in more than one row, "
            f"first at {other.unit} {other.place[twice]}; keys of a joined file must be unique."
        )
    row_of = np.full(len(keys.values) + 1, -1)
    row_of[keys.codes] = np.arange(len(keys.codes))
    row_of[-1] = -1  # a missing key matches nothing
    known = {word: i for i, word in enumerate(keys.values)}
    code_of = np.array([known.get(word, -1) for word in key.values] + [-1])
    match = row_of[code_of[key.codes]]
    lost = np.flatnonzero(match < 0)
    if len(lost):
        shown = [f"{rows.unit} {rows.place[row]}: {quoted(key.at(row))}" for row in lost[:5].tolist()]
        raise InputError(
            f"{rows.name}: {len(lost)} row{'s' * (len(lost) > 1)} with a key {on!r} that {other.name} does not have. "
            f"{some(shown, len(lost))}. Is {on!r} the key of both files?"
        )
    return match


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(quoted, names[:NAMED]))
    return f"{shown}, and {len(names) - NAMED} more" if len(names) > NAMED else shown
