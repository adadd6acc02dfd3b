"""Files from the web: resumed where they broke off, checked against a known checksum, there whole or not at all."""

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pluralign.errors import InputError

CHUNK = 1 << 18
TRIES = 3
PART, TAG = ".part", ".part.tag"
BROKEN = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError)

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be if the server says so."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def fetch(
    url: str,
    path: Path,
    expected: str | None = None,
    *,
    progress: Progress = lambda have, total: None,
    timeout: float = 30.0,
) -> str:
    """Download a file, and put it in its place only when it is whole and its checksum is right.

    What has come so far lies beside it as `.part`. A connection that breaks is taken up again where it broke, now or
    at the next call, if the server can (HTTP Range) and still has the same file (If-Range); else from the beginning.

    Args:
        url: http or https address.
        path: where the file goes; its folder is made.
        expected: SHA-256 that the file must have; none = any.
        progress: called after every piece.
        timeout: seconds without a byte after which a connection counts as broken.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: no network, refused, gone, broken off more than twice, or not the file that is known.
    """
    part, tag = path.with_name(path.name + PART), path.with_name(path.name + TAG)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(TRIES)):
            try:
                _download(url, part, tag, progress, timeout)
                break
            except BROKEN as error:
                if not left or isinstance(error, urllib.error.HTTPError) or not part.exists():
                    raise InputError(_why(url, part, tag, error)) from error
        found = sha256(part)
        if expected not in (None, found):
            part.unlink()
            raise InputError(
                f"{url} is not the file that is known: its SHA-256 is {found}, not {expected}. Its publisher may have "
                "changed it, or something on the way gives another page; what came is thrown away. Look at it in a "
                "browser; a copy from elsewhere goes to the folder given as --folder."
            )
        os.replace(part, path)
        tag.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose a folder with --folder.") from error
    return found


def _download(url: str, part: Path, tag: Path, progress: Progress, timeout: float) -> None:
    """Append to the part what is missing of it."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": "pluralign", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole, or not part of this file
            total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            if total and int(total[1]) == have:
                return
            tag.unlink()  # begin anew
            raise ConnectionError("the server has another file than the one begun") from error
        raise
    with response:
        start = _start(response, have)
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        same = response.headers.get("ETag", "")
        if not same or same.startswith("W/"):  # a weak tag does not promise the same bytes
            same = response.headers.get("Last-Modified", "")
        if same and (response.status == 206 or response.headers.get("Accept-Ranges") == "bytes"):
            tag.write_text(same)
        else:
            tag.unlink(missing_ok=True)
        with open(part, "ab" if start else "wb") as stream:
            have = start
            while piece := response.read(CHUNK):
                stream.write(piece)
                have += len(piece)
                progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection broke at byte {have:,} of {total:,}")


def _start(response: http.client.HTTPResponse, have: int) -> int:
    """Return the byte at which a response begins: servers without Range send all of it."""
    if response.status != 206:
        return 0
    sent = response.headers.get("Content-Range", "")
    if not sent.startswith(f"bytes {have}-"):
        raise ConnectionError(f"asked for the bytes from {have} on, the server sent {sent or 'some'!r}")
    return have


def _why(url: str, part: Path, tag: Path, error: Exception) -> str:
    """Say what happened, what it usually means, and what to do."""
    if isinstance(error, urllib.error.HTTPError):
        told = f"{url}: the server answers {error.code} ({error.reason}). "
        if error.code in (401, 403):
            return told + (
                "Its publisher wants you to log in and accept conditions first: do so in a browser, download the file "
                "there (or with `hf download`), and give its folder as --folder."
            )
        if error.code in (404, 410):
            return told + "It is not there any more; look for it at its publisher, and give its folder as --folder."
        return told + "Try again later."
    if part.exists():
        going = "goes on from there" if tag.exists() else "starts anew, since this server cannot go on (no HTTP Range)"
        size = part.stat().st_size
        return f"{url} broke off after {size:,} bytes ({error}), {TRIES} times over. The same command {going}."
    reason = getattr(error, "reason", error)
    return (
        f"{url} cannot be reached ({reason}). Is there a network, and does a proxy stand in the way (https_proxy)? "
        "A copy fetched on another machine goes to the folder given as --folder."
    )
