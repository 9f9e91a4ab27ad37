"""The ledger: what is acknowledged is on the disk."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.errors import KnowledgeBaseError
from kb_builder.ledger import Entry, open_ledger, read_entries

ENTRY = Entry(
    key="k0",
    request='{"model":"m"}',
    answer='{"choices":[]}',
    error=None,
    attempts=2,
    latency_ms=12.5,
    created_at=1_767_323_045_000_678,
    provider="fake",
    source="fake",
    run_id="r",
)


def entries(count: int) -> list[Entry]:
    return [replace(ENTRY, key=f"k{number}") for number in range(count)]


def test_entries_come_back_whole(tmp_path: Path) -> None:
    """Answers, final errors, counts and times are read as they were recorded, in this run and the next."""
    failed = replace(ENTRY, key="k1", answer=None, error="status 400")

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await asyncio.gather(ledger.record(ENTRY), ledger.record(failed))
            assert ledger.get("k0") == ENTRY
            assert ledger.get("k2") is None

    asyncio.run(run())
    assert read_entries(tmp_path) == [ENTRY, failed]
    assert ENTRY.time == datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_an_acknowledged_entry_is_seen_by_another_connection(tmp_path: Path) -> None:
    """`record` returns after the commit, and not one by one: 500 entries are few transactions."""
    changes: list[int] = []

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:

            async def one(entry: Entry) -> None:
                await ledger.record(entry)
                assert other.execute(
                    "SELECT count(*) FROM entries WHERE key = ?", (entry.key,)
                ).fetchone() == (1,)
                changes.append(other.execute("PRAGMA data_version").fetchone()[0])

            other = sqlite3.connect(tmp_path / "ledger.sqlite")
            await asyncio.gather(*map(one, entries(500)))
            other.close()

    asyncio.run(run())
    assert len(set(changes)) <= 5


def test_the_file_is_safe_against_power_loss(tmp_path: Path) -> None:
    """Write-ahead log, synchronous=FULL (2): SQLite's documented setting for durable commits."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            assert ledger._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert ledger._writer.execute("PRAGMA synchronous").fetchone() == (2,)

    asyncio.run(run())


def test_closing_commits_what_waits(tmp_path: Path) -> None:
    """A cancelled run loses no answer that had come home."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            task = asyncio.create_task(ledger.record(ENTRY))
            await asyncio.sleep(0)
            task.cancel()

    asyncio.run(run())
    assert read_entries(tmp_path) == [ENTRY]


def test_a_full_disk_is_one_clear_error_and_keeps_the_ledger(tmp_path: Path) -> None:
    """Beyond the file size limit `record` raises; what was acknowledged is whole, and more can follow."""
    big = "x" * 100_000

    async def fill() -> list[str]:
        stored = []
        async with open_ledger(tmp_path) as ledger:
            for entry in entries(100):
                try:
                    await ledger.record(replace(entry, answer=big))
                except KnowledgeBaseError as error:
                    assert "ledger.sqlite" in str(error) and "free some disk space" in str(error)
                    break
                stored.append(entry.key)
        return stored

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        stored = asyncio.run(fill())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(stored) < 100
    assert [entry.key for entry in read_entries(tmp_path)] == sorted(stored)

    async def go_on() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.record(replace(ENTRY, key="later"))

    asyncio.run(go_on())
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """A file that is no ledger gives one line that says which file and what to do."""
    (tmp_path / "ledger.sqlite").write_bytes(content)

    async def run() -> None:
        async with open_ledger(tmp_path):
            pytest.fail("opened")

    with pytest.raises(KnowledgeBaseError, match=r"ledger\.sqlite: .*(damaged|folder)"):
        asyncio.run(run())


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    """A newer format is never written over."""
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()

    async def run() -> None:
        async with open_ledger(tmp_path):
            pytest.fail("opened")

    with pytest.raises(KnowledgeBaseError, match="ledger format 9"):
        asyncio.run(run())


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    """A second run on one knowledge base is told to wait, and the first is not disturbed."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            with pytest.raises(KnowledgeBaseError, match="is being written by process"):
                async with open_ledger(tmp_path):
                    pytest.fail("two writers")
            await ledger.record(ENTRY)

    asyncio.run(run())
    assert read_entries(tmp_path) == [ENTRY]
