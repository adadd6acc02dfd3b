"""Tables of text from files: every cell a string as it stands in the file, every row with its place.

Nothing is guessed: the annotator "007" stays "007", "NA" stays "NA". CSV has no missing cells (an empty cell is an
empty text); JSON, Parquet and data sets do, and there null and NaN are missing. A list of chat messages is the text
of its turns, see `columns`. Files are read in batches, and each different text is held once.
"""

import csv
import difflib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pluralign.errors import InputError
from pluralign.feedback import decode
from pluralign.feedback.columns import Cells, Pieces, Rows, as_texts, assemble, json_kind, of_array, some
from pluralign.feedback.decode import json_object, json_value, opened, text_lines

BATCH = 4_096
ARROW_BATCH = 32_768
SHOWN = 5
COLUMNS = 10_000
"""A table of judgements has a few dozen columns; one of millions is a mistake, and naming near misses would hang."""


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


def read(file: File, wanted: Iterable[str]) -> Rows:
    """Read the `wanted` columns of a file, as far as they are there.

    Raises:
        InputError: no such file, unknown format, no rows, or a line that cannot be read.
    """
    wanted, file = tuple(dict.fromkeys(wanted)), checked(file)
    try:
        rows = _read_dataset(file, wanted) if isinstance(file, AbstractDataset) else _read_file(Path(file), wanted)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from error
    if not len(rows.place):
        raise InputError(f"{rows.name} has no rows.")
    return rows


def checked(file: Any) -> File:
    """Return what is named if it is a file or a data set with rows; a folder of `save_to_disk` is a data set.

    Raises:
        InputError: it is something else; with the mend.
    """
    if isinstance(file, str | Path):
        folder = Path(file)
        if os.path.isfile(folder / "state.json"):  # False, not OSError, where a name is too long
            from datasets import load_from_disk

            try:
                return load_from_disk(str(folder))  # pyright: ignore[reportReturnType]
            except Exception as error:  # of many kinds: files that are missing, cut off, or of another version
                raise InputError(f"{folder} is not a whole data set ({error}); save it again.") from error
        if os.path.isfile(folder / "dataset_dict.json"):
            splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise InputError(f"{folder} holds several data sets; name the folder of one of them: {splits}.")
        return file
    if isinstance(getattr(file, "column_names", None), dict):
        raise InputError(f"this is a dictionary of data sets; pass one of its splits: {sorted(file.column_names)}.")
    if not isinstance(file, AbstractDataset) or not hasattr(file, "__len__"):
        raise InputError(
            f"this is of the type {type(file).__name__}, neither the path of a file nor a data set. A stream, or a "
            "table of another package, becomes one by `datasets.Dataset.from_list(list(stream))`, or "
            "`.from_pandas(frame)`."
        )
    return file


def _read_file(path: Path, wanted: tuple[str, ...]) -> Rows:
    suffixes = [s.lower() for s in path.suffixes]
    plain = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    reader = READERS.get("".join(plain))
    if reader is None or (suffixes[-1:] == [".gz"] and plain == [".parquet"]):
        raise InputError(
            f"{path}: unknown format; the name must end in one of {', '.join(READERS)} (text files also with .gz)."
        )
    if not path.is_file():
        files = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        there = difflib.get_close_matches(path.name, files)
        hint = f" {there[0]!r} is there." if there else ""
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what} (looked for {path.absolute()}).{hint}")
    return reader(path, wanted)


def fingerprint(file: File, wanted: Iterable[str]) -> str:
    """Return the SHA-256 of a file's bytes, or of the `wanted` columns of a data set."""
    file = checked(file)
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
        with opened(path) as stream:
            lines = text_lines(path, stream)
            first = next(lines, "")
            _check_width(f"{path}, line 1", first.count(delimiter) + 1)  # before millions of cells are made
            reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
            try:
                header = next(reader, [])
                if not header:
                    what = ", line 1 is blank" if first else " is empty"
                    raise InputError(f"{path}{what}; the first line must name the columns.")
                _check_names(f"{path}, line 1", header)
                have = [(name, header.index(name)) for name in wanted if name in header]
                if not have:
                    _check_delimiter(path, header)
                return assemble(path.name, "line", _csv_pieces(path, reader, have, header), [*header])
            except csv.Error as error:
                at = f"{path}, line {reader.line_num}"
                if "new-line character" in str(error):
                    raise InputError(
                        f"{at}: a carriage return outside quotes. If lines end in it, as on old Macs, save the file "
                        "with line ends LF or CRLF; if it is in a cell, put quotes around the cell."
                    ) from error
                raise InputError(
                    f"{at}: {error}. A quote that is not closed or not doubled is the usual "
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
        with opened(path) as stream:
            lines = enumerate(text_lines(path, stream), 1)
            while batch := list(islice(((n, line) for n, line in lines if line.strip()), BATCH)):
                rows = [json_object(path, n, line) for n, line in batch]
                for row in rows:
                    names.update(dict.fromkeys(row))
                _check_names(f"{path}, line {batch[-1][0]} and those before", names)
                places = [n for n, _ in batch]
                yield places, _of_objects(path, "line", places, rows, wanted)

    return assemble(path.name, "line", pieces(), names)


def _read_json(path: Path, wanted: tuple[str, ...]) -> Rows:
    with opened(path) as stream:
        text = "".join(text_lines(path, stream))
    rows = json_value(path, text)
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a JSON {json_kind(rows)}; a list of objects, one a judgement, is needed.")
    for n, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, record {n} is a JSON {json_kind(row)}, not an object.")
    names = dict.fromkeys(name for row in rows for name in row)
    _check_names(str(path), names)
    places = range(1, len(rows) + 1)
    piece = places, _of_objects(path, "record", places, rows, wanted)
    return assemble(path.name, "record", iter([piece]), names)


def _read_parquet(path: Path, wanted: tuple[str, ...]) -> Rows:
    try:
        schema = pyarrow.parquet.read_schema(path)
        names = schema.names
        _check_names(str(path), names)
        have = [name for name in wanted if name in names]
        # Without a buffer, every row group is in memory as a whole; without dictionaries, a text for each row.
        coded = [name for name in have if pa.types.is_string(schema.field(name).type)]
        with pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False, read_dictionary=coded) as file:
            _check_unpacked(path, file.metadata, have)
            return _of_arrow(
                path.name, file.iter_batches(ARROW_BATCH, columns=have), have, names, file.metadata.num_rows
            )
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read ({error}); was it cut off?") from error


def _check_unpacked(path: Path, metadata: Any, have: list[str]) -> None:
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    parts = tuple(f"{name}." for name in have)  # a column of lists has parts of its own
    columns = [group.column(c) for group in groups for c in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in columns if f"{c.path_in_schema}.".startswith(parts))
    if size > max(decode.UNPACKED, decode.RATIO * path.stat().st_size):
        raise InputError(
            f"{path} says that it unpacks to {size:,} bytes, more than {decode.UNPACKED:,} and {decode.RATIO} times "
            "its size, as no table of texts does; it was not read. If you trust it, write it anew with "
            "`compression='none'`, or raise pluralign.feedback.decode.UNPACKED."
        )


def _read_dataset(dataset: Any, wanted: tuple[str, ...]) -> Rows:
    names = dataset.column_names
    have = [name for name in wanted if name in names]
    batches = dataset.select_columns(have).with_format("arrow").iter(ARROW_BATCH)
    words = {name: getattr(dataset.features[name], "names", None) for name in have}
    return _of_arrow("data set", (_labelled(batch, words) for batch in batches), have, names, len(dataset))


def _labelled(batch: pa.Table, words: dict[str, list[str] | None]) -> pa.Table:
    """Put the words of class labels in place of their digits."""
    for name, label in words.items():
        if label:
            cells = pa.array(label, pa.string()).take(batch[name].combine_chunks())
            batch = batch.set_column(batch.column_names.index(name), name, cells)
    return batch


READERS: dict[str, Callable[[Path, tuple[str, ...]], Rows]] = {
    ".csv": _read_csv,
    ".tsv": lambda path, wanted: _read_csv(path, wanted, "\t"),
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _check_width(place: str, width: int) -> None:
    if width > COLUMNS:
        raise InputError(
            f"{place}: {width:,} columns, more than {COLUMNS:,}; a table of judgements has one judgement a row. "
            "Is it turned on its side, or is the delimiter or the line end another one?"
        )


def _check_delimiter(path: Path, header: list[str]) -> None:
    other = [mark for mark in ";\t|," if mark in header[0]]
    if len(header) == 1 and other:
        raise InputError(
            f"{path}, line 1: the header is the one column {header[0][:60]!r}, which looks like several with "
            f"{other[0]!r} between them. Save the file with commas, or with tabs and a name that ends in .tsv."
        )


def _check_names(place: str, names: Iterable[str]) -> None:
    """Refuse columns that are too many or have the same name."""
    counts = Counter(iter(names))
    _check_width(place, len(counts))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise InputError(f"{place}: the header names {twice[:SHOWN]} more than once; rename one of them.")


def _of_objects(
    path: Path, unit: str, places: Sequence[int], rows: list[dict[str, Any]], wanted: tuple[str, ...]
) -> dict[str, Cells]:
    return {name: as_texts(f"{path}, {unit}", places, name, [row.get(name) for row in rows]) for name in wanted}


def _of_arrow(name: str, batches: Iterable[Any], have: list[str], names: Sequence[str], n: int) -> Rows:
    if not have:  # without a column, a batch has no rows
        return Rows(name, "row", np.arange(1, n + 1), {}, tuple(names))

    def pieces() -> Pieces:
        begin = 1
        for batch in batches:
            places = range(begin, begin + batch.num_rows)
            begin = places.stop
            columns = {column: _flat(batch[column]) for column in have}
            yield places, {column: of_array(name, places, column, cells) for column, cells in columns.items()}

    return assemble(name, "row", pieces(), names)


def _flat(cells: pa.Array | pa.ChunkedArray) -> pa.Array:
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells


def _count(n: int, noun: str) -> str:
    return f"{n} {noun} has" if n == 1 else f"{n} {noun}s have"
