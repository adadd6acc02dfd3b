"""Bytes to lines of text and JSON values, with the line of whatever cannot be read."""

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pluralign.errors import InputError
from pluralign.feedback.columns import json_kind

UNPACKED, RATIO = 2**28, 200
"""Bytes and ratio that an unpacked gzip or Parquet file may not exceed both: text shrinks to a tenth, a bomb to a
thousandth."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading bytes, unpacked if its name ends in .gz."""
    try:
        with open(path, "rb") as file:
            if path.suffix.lower() == ".gz":
                with gzip.open(file) as unpacked, io.BufferedReader(_Unpacked(path, file, unpacked), 2**16) as stream:
                    yield stream
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}); was it cut off? Fetch it again.") from error


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, as long as it is not a bomb: a small file that would fill the memory."""

    def __init__(self, path: Path, file: Any, unpacked: Any) -> None:
        self._path, self._file, self._unpacked, self._bytes = path, file, unpacked, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._unpacked.readinto(buffer)
        self._bytes += n
        if self._bytes > max(UNPACKED, RATIO * self._file.tell()):
            raise InputError(
                f"{self._path} unpacks to more than {UNPACKED:,} bytes and {RATIO} times its size, as no table of "
                "texts does; it was not read to its end. If you trust it, `gunzip` it and name the unpacked file, "
                "or raise pluralign.feedback.decode.UNPACKED."
            )
        return n


def text_lines(path: Path, stream: Any) -> Iterator[str]:
    """Decode line by line, so that a wrong byte has a line number. A byte order mark is dropped."""
    for n, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if n == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = "UTF-16" if n == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
            raise InputError(
                f"{path}, line {n}, byte {error.start + 1}: {line[error.start : error.start + 1]!r} is not UTF-8; "
                f"save the file as UTF-8 (`iconv -f {found} -t UTF-8` is the usual mend)."
            ) from error


def json_object(path: Path, n: int, line: str) -> dict[str, Any]:
    """Read one line of JSON lines."""
    row = json_value(path, line.rstrip("\r\n"), n)
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {n} is a JSON {json_kind(row)}, not an object.")
    return row


def json_value(path: Path, text: str, line: int = 1) -> Any:
    """Read JSON that begins on a line."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = f"{path}, line {line + error.lineno - 1}, column {error.colno}"
        many = error.msg == "Extra data" and error.lineno > 1
        lines = " If it holds an object a line, its name must end in .jsonl." * many
        raise InputError(f"{at}: not JSON ({error.msg}).{lines}") from error
    except (ValueError, RecursionError) as error:  # a name that stands twice; a number of thousands of digits; [[[[...
        what = "lists or objects lie too deep in each other" if isinstance(error, RecursionError) else error
        raise InputError(f"{path}, line {line}: {what}; no judgement needs that. Mend it or drop it.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the name {twice!r} more than once")
    return row


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
