"""Downloads from a server on this machine that can go on, cannot go on, breaks off, or sends something else."""

import contextlib
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console

from pluralign.errors import InputError
from pluralign.feedback.fetch import fetch
from pluralign.feedback.known import Entry, File

BODY = bytes(range(256)) * 4096  # 1 MiB: several pieces
SUM = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` at every path; `cuts` says after how many bytes the next connections break."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.tag, self.ranges, self.status = BODY, '"one"', True, 200
        self.cuts: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        start = 0
        if server.ranges and asked and self.headers.get("If-Range") in (None, server.tag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(server.body)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(server.body[start:end])
        self.close_connection = True

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def left(path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def test_a_file_comes_whole(server, tmp_path):
    path, seen = tmp_path / "new" / "file.bin", []
    assert fetch(server.url, path, SUM, progress=lambda *told: seen.append(told)) == SUM
    assert path.read_bytes() == BODY and left(path) == ["file.bin"] and server.asked == [None]
    assert seen[-1] == (len(BODY), len(BODY)) and len(seen) > 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    path = tmp_path / "file.bin"
    server.cuts = [300_000, 100_000]
    fetch(server.url, path, SUM)
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]
    assert path.read_bytes() == BODY and left(path) == ["file.bin"]


def test_the_next_call_goes_on(server, tmp_path):
    path = tmp_path / "file.bin"
    server.cuts = [300_000, 100_000, 1]
    with pytest.raises(InputError, match=r"broke off after 400,001 bytes .*The same command goes on from there"):
        fetch(server.url, path, SUM)
    assert not path.exists()
    server.asked.clear()
    fetch(server.url, path, SUM)
    assert server.asked == ["bytes=400001-"] and path.read_bytes() == BODY


def test_a_server_without_range_starts_anew(server, tmp_path):
    path = tmp_path / "file.bin"
    server.ranges, server.cuts = False, [10, 20, 30]
    with pytest.raises(InputError, match=r"broke off after 30 bytes .*starts anew, since this server cannot go on"):
        fetch(server.url, path, SUM)
    fetch(server.url, path, SUM)
    assert path.read_bytes() == BODY and set(server.asked) == {None}


def test_a_server_that_forgets_range_midway_starts_anew(server, tmp_path):
    path = tmp_path / "file.bin"
    server.cuts = [300_000] * 3
    with pytest.raises(InputError, match="broke off"):
        fetch(server.url, path, SUM)
    server.ranges = False
    fetch(server.url, path, SUM)
    assert server.asked[-1] == "bytes=900000-" and path.read_bytes() == BODY


def test_parts_of_two_files_are_never_joined(server, tmp_path):
    path = tmp_path / "file.bin"
    server.cuts = [300_000] * 3
    with pytest.raises(InputError, match="broke off"):
        fetch(server.url, path)
    server.body, server.tag = BODY[::-1], '"two"'
    assert fetch(server.url, path) == hashlib.sha256(BODY[::-1]).hexdigest()
    assert path.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("body", [BODY, BODY[:500]])
def test_a_part_with_nothing_left_to_send(server, tmp_path, body):
    path = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(BODY)
    (tmp_path / "file.bin.part.tag").write_text(server.tag)
    server.body = body
    assert fetch(server.url, path) == hashlib.sha256(body).hexdigest()
    assert path.read_bytes() == body and left(path) == ["file.bin"]


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    path = tmp_path / "file.bin"
    server.body = b"<html>please log in</html>"
    with pytest.raises(InputError, match=f"not the file that is known: its SHA-256 is [0-9a-f]{{64}}, not {SUM}"):
        fetch(server.url, path, SUM)
    assert not path.exists() and not (tmp_path / "file.bin.part").exists()
    server.body = BODY
    assert fetch(server.url, path, SUM) == SUM


@pytest.mark.parametrize(
    ("status", "message"), [(401, "accept conditions"), (403, "--folder"), (404, "not there any more"), (503, "later")]
)
def test_a_refusal_is_told(server, tmp_path, status, message):
    server.status = status
    with pytest.raises(InputError, match=f"the server answers {status} .*{message}"):
        fetch(server.url, tmp_path / "file.bin")
    assert server.asked == [None] and list(tmp_path.iterdir()) == []


def test_no_network_is_told(server, tmp_path):
    url = server.url
    server.server_close()
    with pytest.raises(InputError, match=r"cannot be reached .*Is there a network.*--folder"):
        fetch(url, tmp_path / "file.bin", timeout=1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot be written .*--folder"):
        fetch(server.url, tmp_path / "file.bin")


def test_a_file_in_the_way_of_the_folder_is_told(server, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*--folder"):
        fetch(server.url, tmp_path / "taken" / "file.bin")


# --- data sets -----------------------------------------------------------------------------------------------------


def entry(server, sha256=None) -> Entry:
    files = File("a.bin", server.url, sha256), File("sub/b.bin", server.url, sha256)
    return Entry("name", "title", "https://home", "licence", "citation", "mapping", files, lambda folder: None)


def test_get_downloads_what_is_missing_and_records_what_it_saw(server, tmp_path, capsys):
    made = entry(server)
    (tmp_path / "a.bin").write_bytes(b"mine")
    assert made.get(tmp_path, Console(width=100)) == tmp_path
    assert "sub/b.bin" in capsys.readouterr().out
    assert len(server.asked) == 1 and (tmp_path / "sub" / "b.bin").read_bytes() == BODY
    mine = hashlib.sha256(b"mine").hexdigest()
    assert (tmp_path / "SHA256SUMS").read_text() == f"{mine}  a.bin\n{SUM}  sub/b.bin\n"
    made.get(tmp_path)
    assert len(server.asked) == 1
    (tmp_path / "a.bin").unlink()
    with pytest.raises(InputError, match=r"a.bin has changed"):  # what is published is not what was here
        made.get(tmp_path)


def test_get_refuses_a_copy_that_is_not_the_known_one(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a.bin is not the file that is known"):
        entry(server, SUM).get(tmp_path)
    (tmp_path / "a.bin").unlink()
    assert entry(server, SUM).get(tmp_path) == tmp_path
    assert {file["standing"] for file in entry(server, SUM).checked(tmp_path)} == {"checksum is right"}
    assert not (tmp_path / "SHA256SUMS").exists()


def test_get_goes_to_the_data_folder_else_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PLURALIGN_DATA", raising=False)
    cached = tmp_path / "cache" / "pluralign" / "data" / "name"
    assert entry(server).get() == cached and (cached / "a.bin").is_file()
    monkeypatch.setenv("PLURALIGN_DATA", str(tmp_path / "own"))
    assert entry(server).get() == cached  # it is there already
    (cached / "a.bin").unlink()
    assert entry(server).get() == tmp_path / "own" / "name"
