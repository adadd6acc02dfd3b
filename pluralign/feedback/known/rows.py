"""Rows of published files, whose cells are checked as they are used, so that an error names file, place and column."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet

from pluralign.errors import InputError
from pluralign.feedback import read
from pluralign.feedback.columns import Rows
from pluralign.feedback.decode import json_object, json_value, opened, text_lines
from pluralign.feedback.times import seconds

Word = TypeVar("Word")


@dataclass(frozen=True)
class Row:
    """One JSON object or table row.

    Args:
        place: where it stands, such as "votes.jsonl, line 3".
        cells: its values by column.
    """

    place: str
    cells: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.cells:
            near = difflib.get_close_matches(name, list(self.cells), 1)
            hint = f" Did its publisher rename it to {near[0]!r}?" if near else ""
            raise InputError(f"{self.place} has no {name!r}; it has {', '.join(map(repr, self.cells))}.{hint}")
        return self.cells[name]

    def text(self, name: str) -> str:
        """Return a cell that must be a text, which may be empty."""
        return self._is(name, str, "a text")

    def whole(self, name: str) -> int:
        """Return a cell that must be a whole number."""
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
            raise self.wrong(name, "a whole number")
        return int(value)

    def row(self, name: str) -> "Row":
        """Return a cell that must be an object."""
        return Row(f"{self.place}, {name}", self._is(name, dict, "an object"))

    def rows(self, name: str) -> list["Row"]:
        """Return a cell that must be a list of objects."""
        found = self._is(name, list, "a list of objects")
        if not all(isinstance(cells, dict) for cells in found):
            raise self.wrong(name, "a list of objects")
        return [Row(f"{self.place}, {name} {n}", cells) for n, cells in enumerate(found, 1)]

    def one_of(self, name: str, meanings: Mapping[str, Word]) -> Word:
        """Return what a cell means that must be one of these words."""
        value = self[name]
        if not isinstance(value, str) or value not in meanings:
            raise self.wrong(name, f"one of {', '.join(map(repr, meanings))}")
        return meanings[value]

    def time(self, name: str) -> int:
        """Return a cell that must be a date with a time, in UTC if it names no zone, in seconds since 1970."""
        found = seconds(self.text(name))
        if found is None:
            raise self.wrong(name, "a date since 1970 such as '2016-01-31 16:59:52'")
        return int(found)

    def wrong(self, name: str, needed: str) -> InputError:
        """Return the error that a cell is not what it must be."""
        shown = repr(self[name])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return InputError(
            f"{self.place}: {name!r} is {shown}, not {needed}. Its publisher may have changed the format; "
            "is this the file that is described?"
        )

    def _is(self, name: str, kind: type, needed: str) -> Any:
        if not isinstance(self[name], kind):
            raise self.wrong(name, needed)
        return self[name]


def rows(path: Path) -> Iterator[Row]:
    """Return the objects of a JSON list, JSON lines (also with .gz) or Parquet file, in order.

    Raises:
        InputError: the file cannot be read; the place is named.
    """
    return READERS[path.name.removesuffix(".gz").rpartition(".")[2]](path)


def table(path: Path, *columns: str) -> Iterator[Row]:
    """Return the rows of a CSV file as texts; only these columns, which must be there."""
    found = _found(path, columns)
    cells = [found.columns[name].texts() for name in columns]
    for place, *row in zip(found.place.tolist(), *cells, strict=True):
        yield Row(f"{path.name}, {found.unit} {place}", dict(zip(columns, row, strict=True)))


def texts(path: Path, *columns: str) -> dict[str, list[str]]:
    """Return columns of a CSV file, which must be there, for files too long to be looked at row by row."""
    found = _found(path, columns)
    return {name: [text or "" for text in found.columns[name].texts()] for name in columns}


def _found(path: Path, columns: tuple[str, ...]) -> Rows:
    found = read.read(path, columns)
    missing = [name for name in columns if name not in found.columns]
    if missing:
        raise InputError(f"{path.name} has no column {missing[0]!r}; it has {', '.join(map(repr, found.names))}.")
    return found


def _jsonl(path: Path) -> Iterator[Row]:
    with opened(path) as stream:
        for n, line in enumerate(text_lines(path, stream), 1):
            if line.strip():
                yield Row(f"{path.name}, line {n}", json_object(path, n, line))


def _json(path: Path) -> Iterator[Row]:
    with opened(path) as stream:
        text = "".join(text_lines(path, stream))
    yield from Row(path.name, {"record": json_value(path, text)}).rows("record")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            n = 0
            for batch in file.iter_batches(read.BATCH):
                for cells in batch.to_pylist():
                    n += 1
                    yield Row(f"{path.name}, row {n}", cells)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read ({error}); was it cut off?") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {"jsonl": _jsonl, "json": _json, "parquet": _parquet}
