"""Columns of texts, each different text held once, and what of a file's values is a text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from pluralign.errors import InputError

TURN = {"role", "content"}


@dataclass(frozen=True, eq=False)
class Column:
    """A column of texts, each different text held once: `text[row] = values[codes[row]]`, missing where -1."""

    codes: Int[np.ndarray, " row"]
    values: list[str]

    def take(self, rows: Int[np.ndarray, " chosen"]) -> "Column":
        """Return these rows, in this order."""
        return Column(self.codes[rows], self.values)

    def texts(self) -> list[str | None]:
        """Return the text of every row."""
        return [self.values[code] if code >= 0 else None for code in self.codes.tolist()]

    def at(self, row: int) -> str | None:
        """Return the text of one row."""
        return self.values[self.codes[row]] if self.codes[row] >= 0 else None


@dataclass(frozen=True, eq=False)
class Rows:
    """What was read of a table.

    Attributes:
        name: of the file.
        unit: what `place` counts: "line" of a text file, "record" of a JSON list, "row" of a table.
        place: where each row begins, from 1.
        columns: those that were asked for and are there.
        names: all columns that are there.
    """

    name: str
    unit: str
    place: Int[np.ndarray, " row"]
    columns: dict[str, Column]
    names: tuple[str, ...]


Cells = list[str | None] | pa.DictionaryArray
Pieces = Iterator[tuple[Sequence[int], dict[str, Cells]]]


def as_texts(where: str, places: Sequence[int], name: str, cells: Iterable[Any]) -> list[str | None]:
    """Return the text of each cell; the error names the place of one that is none."""
    texts: list[str | None] = []
    try:
        texts.extend(cell if type(cell) is str else _text(cell) for cell in cells)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} {places[len(texts)]}, column {name!r}: {error}") from error
    return texts


def of_array(name: str, places: Sequence[int], column: str, cells: pa.Array) -> Cells:
    """Look at each different value once; where Arrow cannot tell values apart, or one is bad, at each row."""
    try:
        if isinstance(cells, pa.DictionaryArray):  # taken apart as it is: written out, it may fill the memory
            used = cells.indices.dictionary_encode()
            codes, values = used.indices, cells.dictionary.take(used.dictionary)
        else:
            encoded = cells.dictionary_encode()
            codes, values = encoded.indices, encoded.dictionary
        if pa.types.is_string(values.type):
            values.validate(full=True)
        else:
            values = pa.array([_text(value) for value in values.to_pylist()], pa.string())
        texts = values.dictionary_encode()  # some may be equal, and NaN is missing
        return pa.DictionaryArray.from_arrays(texts.indices.take(codes), texts.dictionary)
    except (pa.ArrowException, TypeError, ValueError):
        return as_texts(f"{name}, row", places, column, (cell.as_py() for cell in cells))


class _Growing:
    """A column as it grows, each different text held once.

    Texts that Arrow has told apart within a piece are compared with those of other pieces when they are as many as
    those already known, so that no text is looked at often.
    """

    def __init__(self) -> None:
        self._codes: list[np.ndarray] = []
        self._known: dict[str | None, int] = {None: -1}
        self._pieces: list[pa.DictionaryArray] = []
        self._waiting = 0

    def add(self, cells: Cells) -> None:
        if isinstance(cells, list):
            self._settle()
            numbers = (self._known.setdefault(cell, len(self._known) - 1) for cell in cells)
            self._codes.append(np.fromiter(numbers, np.int32, len(cells)))
            return
        self._waiting += len(cells.dictionary)
        self._pieces.append(cells)
        if len(self._pieces) > 1 and self._waiting > 2 * len(self._pieces[0].dictionary):
            self._unify()

    def _unify(self) -> None:
        self._pieces = [pa.chunked_array(self._pieces).unify_dictionaries().combine_chunks()]
        self._waiting = len(self._pieces[0].dictionary)

    def _settle(self) -> None:
        """Give texts that Arrow holds to Python."""
        if self._pieces:
            self._unify()
            (cells,) = self._pieces
            self._pieces, self._waiting = [], 0
            own = [self._known.setdefault(text, len(self._known) - 1) for text in cells.dictionary.to_pylist()]
            self._codes.append(np.array([*own, -1], np.int32)[cells.indices.fill_null(-1).to_numpy()])

    def column(self) -> Column:
        self._settle()
        return Column(np.concatenate(self._codes), [text for text in self._known if text is not None])


def assemble(name: str, unit: str, pieces: Pieces, names: Iterable[str]) -> Rows:
    """Put pieces of a table together, as they come; `names` are read at the end."""
    places: list[np.ndarray] = [np.zeros(0, np.int64)]
    growing: dict[str, _Growing] = {}
    for place, columns in pieces:
        places.append(np.array(place, np.int64))
        for column, cells in columns.items():
            growing.setdefault(column, _Growing()).add(cells)
    names = tuple(names)  # only now: a JSONL file names its columns as it goes
    columns = {name: growing.pop(name).column() for name in list(growing) if name in names}
    pa.default_memory_pool().release_unused()  # Arrow keeps what its batches took
    rows = Rows(name, unit, np.concatenate(places), columns, names)
    for column, cells in columns.items():
        for code, text in enumerate(cells.values):
            try:
                text.encode()
            except UnicodeEncodeError as error:  # half a surrogate pair, as JSON may hold after text was cut
                place = rows.place[int((cells.codes == code).argmax())]
                raise InputError(f"{name}, {unit} {place}, column {column!r} is not text: {error}.") from error
    return rows


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        return _chat(value)
    if isinstance(value, dict | list | bytes):
        raise TypeError(f"found {json_kind(value)} where a text is needed; flatten it into one text first.")
    return str(value)


def _is_turn(value: Any) -> bool:
    """Return whether it is a role and a content, both texts, and nothing else: not the call of a tool, nor an image."""
    if not isinstance(value, dict):
        return False
    if value.keys() == TURN:
        return type(value["role"]) is str and type(value["content"]) is str
    said = {name: cell for name, cell in value.items() if cell is not None}  # Parquet fills up what other turns have
    return said.keys() == TURN and all(type(cell) is str for cell in said.values())


def _chat(turns: list[dict[str, str]]) -> str:
    """Return a conversation as `role: content` with a blank line between turns; the content of a single turn."""
    if len(turns) == 1 and turns[0]["role"] in ("user", "assistant"):
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def json_kind(value: Any) -> str:
    """Return what JSON calls a value."""
    return {dict: "object", list: "list", str: "string", type(None): "null"}.get(type(value), type(value).__name__)


def some(shown: list[str], total: int) -> str:
    """Join what is shown, and say how many more there are."""
    return "; ".join(shown) + (f"; and {total - len(shown)} more" if total > len(shown) else "")
