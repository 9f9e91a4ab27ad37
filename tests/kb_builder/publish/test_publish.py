"""What is published is fetched byte for byte; whatever goes wrong, nothing is lost or sent twice."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import DamagedError, InputError, KnowledgeBaseError
from data.files import hash_file
from data.seals import SEAL, check_always, seal
from kb_builder.ask.ledger import Entry, iter_entries, open_ledger
from kb_builder.ask.write_offs import write_off, written_off
from kb_builder.browse.query import sql
from kb_builder.publish import segments
from kb_builder.publish.fetch import fetch
from kb_builder.publish.place import FolderPlace, Place, open_place
from kb_builder.publish.publish import publish
from kb_builder.publish.versions import Version, read_version, version_numbers, write_version
from kb_builder.publish.writer import Content
from kb_builder.tables.schemas import DESCRIPTIONS, read_columns, write_table

PART = "descriptions/category/part-00001.parquet"
ENTRY = Entry("k", '{"a": 1}', "{}", None, 1, 1.5, 7, "local", "local", "test", None, "b")


# Publishes, and hangs within the fourth object.
_HANGING = """
import itertools, sys, time
from pathlib import Path
from kb_builder.publish.place import open_place
from kb_builder.publish.publish import publish
place, number, put = open_place(sys.argv[2]), itertools.count(), open_place(sys.argv[2]).put
def hanging(pieces):
    yield from pieces
    print("hanging", flush=True)
    time.sleep(600)
place.put = lambda name, pieces: put(name, hanging(pieces) if next(number) == 3 else pieces)
publish(Path(sys.argv[1]), place)
"""


def record(kb: Path, count: int) -> None:
    """Put entries into the ledger, and a broken-off answer into another table of its file."""

    async def run() -> None:
        async with open_ledger(kb) as ledger:
            for number in range(count):
                cost = None if number % 2 else 0.25 * number
                ledger.submit(replace(ENTRY, key=f"k{9 - number}", answer=f"é {number}", cost_usd=cost))
            await ledger.write(lambda connection: write_off(connection, usd=0.5))

    asyncio.run(run())


@pytest.fixture
def kb(browsed_kb: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A knowledge base with a ledger of ten requests, in segments of four, and with checksums."""
    monkeypatch.setattr(segments, "ROWS", 4)
    record(browsed_kb, 10)
    files = [path for path in browsed_kb.rglob("*") if path.is_file() and path.suffix != ".lock"]
    seal(browsed_kb, [path for path in files if path.name != SEAL], "test")
    return browsed_kb


def hashes(kb: Path) -> dict[str, str]:
    """Of all files but the ledger, its locks and the checksums."""
    own = ("ledger.sqlite", "ledger.lock", SEAL)
    files = [path for path in kb.rglob("*") if path.is_file() and path.name not in own]
    return {path.relative_to(kb).as_posix(): hash_file(path) for path in files}


class Breaking:
    """A place that fails after some calls, and counts them."""

    def __init__(self, place: Place, *, puts: int = 10**9, reads: int = 10**9) -> None:
        self._place = place
        self.name = place.name
        self.left = {"put": puts, "pieces": reads}
        self.calls = {"put": 0, "pieces": 0}

    def _call(self, kind: str, name: str) -> None:
        if name.startswith("objects/"):
            if self.left[kind] <= self.calls[kind]:
                raise InputError("the cable was pulled")
            self.calls[kind] += 1

    def listed(self, below: str) -> dict[str, int]:
        return self._place.listed(below)

    def open(self, name: str) -> Any:
        return self._place.open(name)

    def pieces(self, name: str) -> Iterator[bytes]:
        self._call("pieces", name)
        return self._place.pieces(name)

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        self._call("put", name)
        self._place.put(name, pieces)

    def put_new(self, name: str, content: bytes) -> bool:
        return self._place.put_new(name, content)

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        return self._place.tagged(name)

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        return self._place.replace(name, content, tag)


def test_a_version_is_fetched_as_it_was(kb: Path, place_name: str, tmp_path: Path) -> None:
    """Every file and every row of the ledger's tables; queries and checksums hold."""
    done = publish(kb, open_place(place_name))
    assert (done.version, done.new) == (1, True)
    target = tmp_path / "there" / "kb"
    found = fetch(open_place(place_name), target)
    assert (found.version, found.requests) == (1, 10)
    assert hashes(target) == hashes(kb)
    assert [*map(astuple, iter_entries(target))] == [*map(astuple, iter_entries(kb))]
    with closing(sqlite3.connect(target / "ledger.sqlite")) as ledger:
        assert written_off(ledger) == 0.5
    check_always(target / "ledger.sqlite")
    query = (
        "SELECT category_id, count(*), sum(len(vector)) FROM v_descriptions d"
        " JOIN v_category_vectors v ON v.id = d.row_id GROUP BY ALL ORDER BY ALL"
    )
    assert sql(target, query).rows == sql(kb, query).rows
    assert sorted(path.name for path in target.parent.iterdir()) == ["kb"]
    record(target, 1)  # its ledger is one to go on with
    with pytest.raises(InputError, match="already exists; name a new folder"):
        fetch(open_place(place_name), target)


def test_nothing_is_sent_twice(kb: Path, place_name: str, tmp_path: Path) -> None:
    """The next version sends what changed; an earlier one can still be fetched."""
    first = publish(kb, open_place(place_name))
    assert first.uploaded == first.files
    again = publish(kb, open_place(place_name))
    assert (again.version, again.new, again.uploaded) == (1, False, 0)
    before = hashes(kb)
    rows = read_columns(kb / PART, DESCRIPTIONS.names, hint="").to_pylist()
    write_table(kb / PART, rows[:2], DESCRIPTIONS)
    seal(kb, [kb / PART], "changed")
    record(kb, 11)  # one more, in the last of three segments
    second = publish(kb, open_place(place_name))
    # The part, the last segment of each table of the ledger, and the list of checksums.
    assert (second.version, second.new, second.uploaded) == (2, True, 4)
    for number, hashed in ((1, before), (None, hashes(kb))):
        fetch(open_place(place_name), tmp_path / f"v{number}", number)
        assert hashes(tmp_path / f"v{number}") == hashed
    with pytest.raises(InputError, match="no version 3; there are 1 to 2"):
        fetch(open_place(place_name), tmp_path / "v3", 3)


def test_a_publication_that_was_stopped_is_continued(kb: Path, place_name: str, tmp_path: Path) -> None:
    """It shows nothing; the next one sends the rest."""
    place = open_place(place_name)
    broken = Breaking(place, puts=3)
    with pytest.raises(InputError, match="cable"):
        publish(kb, broken)
    assert version_numbers(place) == []
    with pytest.raises(InputError, match="no knowledge base is published here"):
        fetch(place, tmp_path / "new")
    done = publish(kb, place)
    assert done.uploaded == done.files - 3
    fetch(place, tmp_path / "new")
    assert hashes(tmp_path / "new") == hashes(kb)


def test_a_killed_process_leaves_nothing_wrong(kb: Path, place_name: str, tmp_path: Path) -> None:
    """SIGKILL while objects are on their way: no version, and the next publication has every file."""
    with subprocess.Popen(
        [sys.executable, "-c", _HANGING, str(kb), place_name], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        process.kill()
    place = open_place(place_name)
    assert version_numbers(place) == []
    there = len(place.listed("objects"))
    done = publish(kb, place)
    assert done.new
    assert 0 < done.uploaded <= done.files - there  # a server may end what it had received whole
    fetch(place, tmp_path / "new")
    assert hashes(tmp_path / "new") == hashes(kb)


def test_fetching_that_was_stopped_is_continued(kb: Path, place_name: str, tmp_path: Path) -> None:
    """What has arrived is not asked for again, and what an earlier version left is removed."""
    place = open_place(place_name)
    publish(kb, place)
    with pytest.raises(InputError, match="cable"):
        fetch(Breaking(place, reads=4), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / ".new.fetch" / "kb" / "extra.parquet").write_bytes(b"of another version")
    version, counting = read_version(place), Breaking(place)
    fetch(counting, tmp_path / "new")
    assert counting.calls["pieces"] == len([*version.contents()]) - 4
    assert hashes(tmp_path / "new") == hashes(kb)


def test_two_writers_at_once(kb: Path, place_name: str, tmp_path: Path) -> None:
    """The second is told, what the first published is unchanged, and the next try makes another version."""
    place = open_place(place_name)

    class Slow(Breaking):
        def put_new(self, name: str, content: bytes) -> bool:
            if name.startswith("versions/"):
                (kb / "more.json").write_text("{}")  # the other writer has one more file
                publish(kb, place)
            return super().put_new(name, content)

    with pytest.raises(KnowledgeBaseError, match="has taken over; what it has published is unchanged"):
        publish(kb, Slow(place))
    assert version_numbers(place) == [1]
    assert "more.json" in read_version(place).files
    (kb / "more.json").unlink()
    assert publish(kb, place).version == 2


def test_a_repeated_request_is_no_other_writer(kb: Path, tmp_path: Path) -> None:
    """A client that hears no answer asks again, and is refused by its own version."""

    class Deaf(Breaking):
        def put_new(self, name: str, content: bytes) -> bool:
            super().put_new(name, content)
            return super().put_new(name, content)

    done = publish(kb, Deaf(FolderPlace(tmp_path / "published")))
    assert (done.version, done.new) == (1, True)


def test_of_many_writers_one_makes_an_object(tmp_path: Path) -> None:
    """In a folder: a link that exists is refused by the file system."""
    place = FolderPlace(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda number: place.put_new("versions/1", b"%d" % number), range(40))]
    assert sum(made) == 1
    with place.open("versions/1") as file:
        assert file.read() == b"%d" % made.index(True)
    assert place.listed("versions") == {"versions/1": len(str(made.index(True)))}


def test_a_damaged_object_is_refused_and_repaired(kb: Path, place_name: str, tmp_path: Path) -> None:
    """Of the same size, of another one, or gone: `fetch` makes no folder, `--check` sends it again."""
    place = open_place(place_name)
    publish(kb, place)
    content = read_version(place).files[PART]
    for data, repaired in ((b"x" * content.bytes, True), (b"short", False)):
        place.put(content.object, [data])
        with pytest.raises(KnowledgeBaseError, match=r"part-00001.parquet\): damaged, its SHA-256 is not"):
            fetch(place, tmp_path / "new")
        assert not (tmp_path / "new").exists()
        done = publish(kb, place, check=repaired)
        assert (done.uploaded, done.new) == (1, False)
    fetch(place, tmp_path / "new")
    assert hashes(tmp_path / "new") == hashes(kb)


def test_a_missing_object_is_told(kb: Path, tmp_path: Path) -> None:
    """With the name of the file that it is of."""
    place = FolderPlace(tmp_path / "published")
    publish(kb, place)
    (tmp_path / "published" / read_version(place).files[PART].object).unlink()
    with pytest.raises(KnowledgeBaseError, match=r"part-00001.parquet\): missing, though a version names it"):
        fetch(place, tmp_path / "new")
    assert publish(kb, place).uploaded == 1
    fetch(place, tmp_path / "new")


def test_a_damaged_knowledge_base_is_not_published(kb: Path, tmp_path: Path) -> None:
    """Nor one that changes while it is read, nor none."""
    place = FolderPlace(tmp_path / "published")
    with pytest.raises(KnowledgeBaseError, match="holds no knowledge base yet"):
        publish(tmp_path, place)
    whole = (kb / PART).read_bytes()
    (kb / PART).write_bytes(whole[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"part-00001.parquet: damaged"):
        publish(kb, place)
    (kb / PART).write_bytes(whole)

    class Meanwhile(Breaking):
        def put_new(self, name: str, content: bytes) -> bool:
            return super().put_new(name, content)

        def listed(self, below: str) -> dict[str, int]:
            if below == "objects":
                (kb / PART).write_bytes(whole[:-1] + b"x")
            return super().listed(below)

    with pytest.raises(KnowledgeBaseError, match=r"part-00001.parquet: changed while it was published"):
        publish(kb, Meanwhile(place))
    assert version_numbers(place) == []
    assert Content(len(whole), hash_file(kb / PART)).object not in place.listed("objects")


def test_a_server_that_ignores_conditions_is_refused(kb: Path, tmp_path: Path) -> None:
    """Before anything is uploaded: two writers would both believe that theirs is the version."""

    class Ignoring(Breaking):
        def put_new(self, name: str, content: bytes) -> bool:
            self._place.put(name, [content])
            return True

    class IgnoringTags(Breaking):
        def replace(self, name: str, content: bytes, tag: str) -> str | None:
            self._place.put(name, [content])
            return "any"

    for kind, header in ((Ignoring, "If-None-Match"), (IgnoringTags, "If-Match")):
        place = kind(FolderPlace(tmp_path / header))
        with pytest.raises(InputError, match=rf"ignores conditional requests \({header}\)"):
            publish(kb, place)
        assert place.calls["put"] == 0


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ".hidden", "a\\b", ""])
def test_a_version_writes_nowhere_else(name: str, tmp_path: Path) -> None:
    """A name that leads out of the folder makes the version a damaged one."""
    place = FolderPlace(tmp_path / "published")
    content = Content(1, "0" * 64)
    assert write_version(place, Version(1, "2026-01-01T00:00:00+00:00", {name: content}, None))
    with pytest.raises(KnowledgeBaseError, match="is no name of a file here"):
        fetch(place, tmp_path / "new")


def test_a_damaged_version_is_told(kb: Path, tmp_path: Path) -> None:
    """And the next one is published beside it."""
    place = FolderPlace(tmp_path / "published")
    publish(kb, place)
    path = tmp_path / "published" / "versions" / "00000001.json"
    path.write_text(path.read_text().replace("2026", "2025").replace("T", "t", 1))
    with pytest.raises(KnowledgeBaseError, match=r"00000001.json: damaged .* another version"):
        fetch(place, tmp_path / "new")
    assert publish(kb, place).version == 2
    assert fetch(place, tmp_path / "new").version == 2
