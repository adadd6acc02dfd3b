"""Tables of text from files: every cell a string as it stands in the file, every row with its place.

Nothing is guessed: the annotator "007" stays "007", "NA" stays "NA". CSV has no missing cells (an empty cell is an
empty text); JSON, Parquet and data sets do, and there null and NaN are missing.
"""

import csv
import difflib
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Int

from pluralign.errors import InputError

BATCH = 4_096
SHOWN = 5


@runtime_checkable
class AbstractDataset(Protocol):
    """A `datasets.Dataset`, whose package is slow to import and only needed by those who pass one."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        ...

    def select_columns(self, column_names: list[str]) -> Any:
        """Return the data set with only these columns."""
        ...


File = str | Path | AbstractDataset


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


Pieces = Iterator[tuple[list[int], dict[str, list[str | None]]]]


def read(file: File, wanted: Iterable[str]) -> Rows:
    """Read the `wanted` columns of a file, as far as they are there.

    Raises:
        InputError: no such file, unknown format, no rows, or a line that cannot be read.
    """
    wanted = tuple(dict.fromkeys(wanted))
    rows = _read_dataset(file, wanted) if isinstance(file, AbstractDataset) else _read_file(Path(file), wanted)
    if not len(rows.place):
        raise InputError(f"{rows.name} has no rows.")
    return rows


def _read_file(path: Path, wanted: tuple[str, ...]) -> Rows:
    suffixes = [s.lower() for s in path.suffixes]
    plain = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    reader = READERS.get("".join(plain))
    if reader is None or (suffixes[-1:] == [".gz"] and plain == [".parquet"]):
        raise InputError(
            f"{path}: unknown format; the name must end in one of {', '.join(READERS)} (text files also with .gz)."
        )
    if not path.is_file():
        there = path.parent.is_dir() and difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()])
        hint = f" {there[0]!r} is there." if there else ""
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what} (looked for {path.absolute()}).{hint}")
    return reader(path, wanted)


def fingerprint(file: File, wanted: Iterable[str]) -> str:
    """Return the SHA-256 of a file's bytes, or of the `wanted` columns of a data set."""
    if not isinstance(file, AbstractDataset):
        try:
            with open(file, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}).") from error
    sha = hashlib.sha256()
    names = [name for name in dict.fromkeys(wanted) if name in file.column_names]
    for batch in file.select_columns(names).with_format("arrow").iter(BATCH):
        sha.update(json.dumps(batch.to_pydict(), default=str).encode())
    return sha.hexdigest()


def _read_csv(path: Path, wanted: tuple[str, ...], delimiter: str = ",") -> Rows:
    limit = csv.field_size_limit(2**31 - 1)  # a long response is no fault
    try:
        with _opened(path) as stream:
            reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
            try:
                header = next(reader, [])
                if not header:
                    raise InputError(f"{path} is empty; the first line must name the columns.")
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise InputError(f"{path}, line 1: the header names {twice} more than once; rename one of them.")
                have = [(name, header.index(name)) for name in wanted if name in header]
                return _assemble(path.name, "line", _csv_pieces(path, reader, have, header), [*header])
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: {error}. A quote that is not closed or not doubled is the usual "
                    'cause: write "she said ""yes""" for a cell that holds quotes.'
                ) from error
    finally:
        csv.field_size_limit(limit)


def _csv_pieces(path: Path, reader: Any, have: list[tuple[str, int]], header: list[str]) -> Pieces:
    bad: list[str] = []
    wrong, begin = 0, reader.line_num + 1
    while batch := list(islice(((reader.line_num, row) for row in reader), BATCH)):
        places, rows = [], []
        for end, row in batch:
            if len(row) == len(header):
                places.append(begin)
                rows.append(row)
            elif row:  # a blank line is no row
                wrong += 1
                bad += [f"line {begin} has {len(row)}"] if wrong <= SHOWN else []
            begin = end + 1
        yield places, {name: [row[i] for row in rows] for name, i in have}
    if wrong:
        raise InputError(
            f"{path}: the header has {len(header)} cells, but {_count(wrong, 'line')} not: {some(bad, wrong)}. "
            "A comma or line break inside a cell needs quotes around the cell."
        )


def _read_jsonl(path: Path, wanted: tuple[str, ...]) -> Rows:
    names: dict[str, None] = {}

    def pieces() -> Pieces:
        with _opened(path) as stream:
            lines = enumerate(_lines(path, stream), 1)
            while batch := list(islice(((n, line) for n, line in lines if line.strip()), BATCH)):
                rows = [_object(path, n, line) for n, line in batch]
                for row in rows:
                    names.update(dict.fromkeys(row))
                places = [n for n, _ in batch]
                yield places, _of_objects(path, "line", places, rows, wanted)

    return _assemble(path.name, "line", pieces(), names)


def _read_json(path: Path, wanted: tuple[str, ...]) -> Rows:
    with _opened(path) as stream:
        text = "".join(_lines(path, stream))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a JSON {_kind(rows)}; a list of objects, one a judgement, is needed.")
    for n, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, record {n} is a JSON {_kind(row)}, not an object.")
    places = list(range(1, len(rows) + 1))
    piece = places, _of_objects(path, "record", places, rows, wanted)
    return _assemble(path.name, "record", iter([piece]), dict.fromkeys(name for row in rows for name in row))


def _read_parquet(path: Path, wanted: tuple[str, ...]) -> Rows:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            have = [name for name in wanted if name in names]
            return _of_arrow(path.name, file.read(have), names, file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read ({error}); was it cut off?") from error


def _read_dataset(dataset: Any, wanted: tuple[str, ...]) -> Rows:
    names = dataset.column_names
    have = [name for name in wanted if name in names]
    table = dataset.select_columns(have).with_format("arrow")[:]
    for name in have:  # class labels are stored as digits, but their words are known
        label = getattr(dataset.features[name], "names", None)
        if label:
            words = pa.array([None if i is None else label[i] for i in table[name].to_pylist()], pa.large_string())
            table = table.set_column(table.column_names.index(name), name, words)
    return _of_arrow("data set", table, names, len(dataset))


READERS: dict[str, Callable[[Path, tuple[str, ...]], Rows]] = {
    ".csv": _read_csv,
    ".tsv": lambda path, wanted: _read_csv(path, wanted, "\t"),
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}); was it cut off? Fetch it again.") from error


def _lines(path: Path, stream: Any) -> Iterator[str]:
    """Decode line by line, so that a wrong byte has a line number. A byte order mark is dropped."""
    for n, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if n == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {n}, byte {error.start + 1}: {line[error.start : error.start + 1]!r} is not UTF-8; "
                "save the file as UTF-8 (`iconv -f WINDOWS-1252 -t UTF-8` is the usual mend)."
            ) from error


def _object(path: Path, n: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {n}, column {error.colno}: not JSON ({error.msg}).") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {n} is a JSON {_kind(row)}, not an object.")
    return row


def _of_objects(
    path: Path, unit: str, places: list[int], rows: list[dict[str, Any]], wanted: tuple[str, ...]
) -> dict[str, list[str | None]]:
    columns = {}
    for name in wanted:
        cells = [row.get(name) for row in rows]
        try:
            columns[name] = [cell if type(cell) is str else _text(cell) for cell in cells]
        except TypeError as error:
            place = next(p for p, cell in zip(places, cells, strict=True) if isinstance(cell, dict | list))
            raise InputError(f"{path}, {unit} {place}, column {name!r}: {error}") from error
    return columns


def _of_arrow(name: str, table: pa.Table, names: Iterable[str], n: int) -> Rows:
    columns: dict[str, list[str | None]] = {}
    for column in table.column_names:
        cells = table[column].to_pylist()
        try:
            columns[column] = [cell if type(cell) is str else _text(cell) for cell in cells]
        except TypeError as error:
            raise InputError(f"{name}, column {column!r}: {error}") from error
    return _assemble(name, "row", iter([(list(range(1, n + 1)), columns)]), names)


def _assemble(name: str, unit: str, pieces: Pieces, names: Iterable[str]) -> Rows:
    places, codes, known = [np.zeros(0, np.int64)], {}, {}
    for place, columns in pieces:
        places.append(np.array(place, np.int64))
        for column, cells in columns.items():
            code = known.setdefault(column, {None: -1})
            numbers = (code.setdefault(cell, len(code) - 1) for cell in cells)
            codes.setdefault(column, []).append(np.fromiter(numbers, np.int32, len(cells)))
    names = tuple(names)  # only now: a JSONL file names its columns as it goes
    columns = {c: Column(np.concatenate(codes[c]), list(known[c])[1:]) for c in codes if c in names}
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
    if isinstance(value, dict | list | bytes):
        raise TypeError(f"found {_kind(value)} where a text is needed; flatten it into one text first.")
    return str(value)


def _kind(value: Any) -> str:
    return {dict: "object", list: "list", str: "string", type(None): "null"}.get(type(value), type(value).__name__)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun} has" if n == 1 else f"{n} {noun}s have"


def some(shown: list[str], total: int) -> str:
    """Join what is shown, and say how many more there are."""
    return "; ".join(shown) + (f"; and {total - len(shown)} more" if total > len(shown) else "")
