"""Downloads from a server on loopback that breaks off, resumes, lies and refuses."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import InputError
from kb_builder.weights import download
from kb_builder.weights.download import fetch
from kb_builder.weights.known import ModelFile

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """One file at `/store`, to which `/file` redirects as the hub does. What goes wrong is set per test."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag = '"v1"'
        self.linked: str | None = None  # what the hub says of the file before it redirects
        self.cut: list[int] = []  # break the next answers off after so many bytes
        self.statuses: list[int] = []  # of the next answers
        self.ranges = True
        self.shift = 0  # send another piece than was asked for
        self.lengths = True
        self.asked: list[str | None] = []
        self.url = ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/file":
                self.send_response(302)
                self.send_header("Location", "/store")
                if hub.linked:
                    self.send_header("X-Linked-Etag", f'"{hub.linked}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = self.headers.get("Range")
            hub.asked.append(asked)
            status = hub.statuses.pop(0) if hub.statuses else 200
            start = 0
            same = self.headers.get("If-Range") in {None, hub.etag}
            if status == 200 and asked and hub.ranges and same:
                start = int(re.findall(r"\d+", asked)[0])
                status = 206 if start < len(hub.content) else 416
            body = hub.content[start:] if status in {200, 206} else b"no"
            self.send_response(status)
            self.send_header("ETag", hub.etag)
            if hub.lengths:
                self.send_header("Content-Length", str(len(body)))
            if status == 206:
                first, last, whole = start + hub.shift, len(hub.content) - 1, len(hub.content)
                self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
            self.end_headers()
            self.wfile.write(body[: hub.cut.pop(0)] if hub.cut and status in {200, 206} else body)
            self.wfile.flush()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            return  # a client that has seen enough

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_checked(hub: Hub, tmp_path: Path) -> None:
    """With the list's checksum; nothing else is left behind, and progress ends at the whole."""
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(
        ModelFile("m.bin", hub.url, SHA256),
        tmp_path / "deep" / "m.bin",
        on_bytes=lambda here, total: seen.append((here, total)),
    )
    assert (tmp_path / "deep" / "m.bin").read_bytes() == CONTENT
    assert (fetched.sha256, fetched.checked) == (SHA256, "list")
    assert _left(tmp_path / "deep") == ["m.bin"]
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))


def test_the_hubs_checksum_is_taken_where_the_list_has_none(hub: Hub, tmp_path: Path) -> None:
    """The hub states the SHA-256 of a large file in the answer that redirects to its store."""
    hub.linked = SHA256
    assert fetch(ModelFile("m", hub.url), tmp_path / "m").checked == "server"
    hub.linked = None
    assert fetch(ModelFile("m", hub.url), tmp_path / "n").checked == "nothing"


def test_a_broken_connection_goes_on_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    """Three breaks in one download; each byte comes once."""
    hub.cut = [1_000_000, 500_000, 700_000]
    fetch(ModelFile("m", hub.url, SHA256), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert hub.asked == [None, "bytes=1000000-", "bytes=1500000-", "bytes=2200000-"]


def test_another_run_goes_on_where_the_last_gave_up(hub: Hub, tmp_path: Path) -> None:
    """What has arrived is kept, and said; the next run asks for the rest."""
    hub.cut = [1_000_000, *[0] * download.TRIES]
    with pytest.raises(InputError, match=r"1,000,000 bytes are kept: run the same command again"):
        fetch(ModelFile("m", hub.url, SHA256), tmp_path / "m")
    assert not (tmp_path / "m").exists()
    hub.asked.clear()
    fetch(ModelFile("m", hub.url, SHA256), tmp_path / "m")
    assert hub.asked == ["bytes=1000000-"]
    assert _left(tmp_path) == ["m"]


@pytest.mark.parametrize("how", ["no ranges", "changed", "another address", "torn note"])
def test_what_cannot_be_gone_on_with_is_begun_anew(hub: Hub, tmp_path: Path, how: str) -> None:
    """A server without ranges, another version or another address: pieces of two files are never joined."""
    hub.cut = [1_000_000, *[0] * download.TRIES]
    with pytest.raises(InputError):
        fetch(ModelFile("m", hub.url), tmp_path / "m")
    content = CONTENT
    if how == "no ranges":
        hub.ranges = False
    elif how == "changed":
        content = hub.content = CONTENT[::-1]
        hub.etag = '"v2"'
    elif how == "torn note":
        (tmp_path / "m.part.json").write_text("{", encoding="utf-8")
    url = hub.url.replace("/file", "/store") if how == "another address" else hub.url
    fetch(ModelFile("m", url), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == content


def test_a_file_that_became_shorter_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    """More is here than there is: 416, and then all of the new version."""
    hub.cut = [1_000_000, *[0] * download.TRIES]
    with pytest.raises(InputError):
        fetch(ModelFile("m", hub.url), tmp_path / "m")
    hub.content = CONTENT[:1000]  # under the same ETag
    fetch(ModelFile("m", hub.url), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("who", ["list", "server"])
def test_a_wrong_checksum_is_removed_and_told(hub: Hub, tmp_path: Path, who: str) -> None:
    """Nothing wrong ever has the file's name, and the next run does not go on with it."""
    wrong = "0" * 64
    hub.linked = wrong if who == "server" else None
    with pytest.raises(InputError, match=rf"wrong checksum.*{SHA256}, its {who} says {wrong}") as caught:
        fetch(ModelFile("m", hub.url, wrong if who == "list" else None), tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert _left(tmp_path) == []


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    """503 and 429 pass."""
    hub.statuses = [503, 429]
    fetch(ModelFile("m", hub.url, SHA256), tmp_path / "m")
    assert len(hub.asked) == 3


@pytest.mark.parametrize(
    ("status", "told"), [(404, "answers 404 Not Found"), (401, "asks for a login"), (403, "refuses it")]
)
def test_a_refusal_is_told_at_once(hub: Hub, tmp_path: Path, status: int, told: str) -> None:
    """What will not change is not tried again."""
    hub.statuses = [status]
    with pytest.raises(InputError, match=f"{told}; download it yourself"):
        fetch(ModelFile("m", hub.url), tmp_path / "m")
    assert len(hub.asked) == 1


def test_another_piece_than_was_asked_for_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    """A server that miscounts gives no file."""
    hub.cut, hub.shift = [1_000_000], 5
    with pytest.raises(InputError, match="another range"):
        fetch(ModelFile("m", hub.url), tmp_path / "m")


def test_a_short_answer_without_a_length_is_noticed_by_the_list(hub: Hub, tmp_path: Path) -> None:
    """Where the server says no length, the list's counts."""
    hub.lengths = False
    hub.cut = [1_000_000]
    fetch(ModelFile("m", hub.url, None, len(CONTENT)), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT


def test_a_dead_server_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there."""
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    with pytest.raises(InputError, match="0 bytes are kept") as caught:
        fetch(ModelFile("m", "http://127.0.0.1:9/m"), tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_before(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says how much is to come."""
    usage: Any = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"are missing and 0\.0 GiB are free"):
        fetch(ModelFile("m", hub.url), tmp_path / "m")
