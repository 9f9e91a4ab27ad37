"""The ledger: what is acknowledged is on the disk."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from data.errors import DamagedError, KnowledgeBaseError
from data.files import hash_json
from data.seals import discard
from kb_builder.ask.cost import Spending
from kb_builder.ask.ledger import (
    GROUP_ROWS,
    Entry,
    Ledger,
    base_key_of,
    iter_entries,
    microseconds_now,
    new_entry,
    open_ledger,
    read_ledger,
)
from kb_builder.ask.request import Request, request_json, request_key

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
    cost_usd=0.25,
    base_key="b0",
)


def entries(count: int) -> list[Entry]:
    return [replace(ENTRY, key=f"k{number}") for number in range(count)]


def test_entries_come_back_whole(tmp_path: Path) -> None:
    """Answers, final errors, counts and times are read as they were recorded, in this run and the next."""
    failed = replace(ENTRY, key="k1", answer=None, error="status 400")

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await asyncio.gather(ledger.submit(ENTRY), ledger.submit(failed))
            assert ledger.get("k0") == ENTRY
            assert ledger.get("k2") is None

    asyncio.run(run())
    assert list(iter_entries(tmp_path)) == [ENTRY, failed]
    assert ENTRY.time == datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_an_acknowledged_entry_is_seen_by_another_connection(tmp_path: Path) -> None:
    """`record` returns after the commit, and not one by one: 500 entries are few transactions."""
    changes: list[int] = []

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:

            async def one(entry: Entry) -> None:
                await ledger.submit(entry)
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
            task = ledger.submit(ENTRY)
            await asyncio.sleep(0)
            task.cancel()

    asyncio.run(run())
    assert list(iter_entries(tmp_path)) == [ENTRY]


def test_a_full_disk_is_one_clear_error_and_keeps_the_ledger(tmp_path: Path) -> None:
    """Beyond the file size limit `record` raises; what was acknowledged is whole, and more can follow."""
    big = "x" * 100_000

    async def fill() -> list[str]:
        stored = []
        async with open_ledger(tmp_path) as ledger:
            for entry in entries(100):
                try:
                    await ledger.submit(replace(entry, answer=big))
                except KnowledgeBaseError as error:
                    assert "ledger.sqlite" in str(error) and "free disk space" in str(error)
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
    assert [entry.key for entry in list(iter_entries(tmp_path))] == sorted(stored)

    async def go_on() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(replace(ENTRY, key="later"))

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


def damage_answer(kb: Path) -> None:
    """An answer's bytes, as they are in the file, that are no UTF-8 any more."""
    marked = replace(ENTRY, answer='{"choices":["MARKED"]}')

    async def run() -> None:
        async with open_ledger(kb) as ledger:
            await ledger.submit(marked)

    asyncio.run(run())
    path = kb / "ledger.sqlite"
    whole = path.read_bytes()
    assert whole.count(b"MARKED") == 1
    path.write_bytes(whole.replace(b"MARKED", b"\xff\xfe\x1b[1m"))


def test_a_text_that_cannot_be_decoded_is_damage(tmp_path: Path) -> None:
    """The advice is the backup, it says that a new ledger is paid for again, and the text is not shown."""
    damage_answer(tmp_path)
    with read_ledger(tmp_path) as ledger:
        assert ledger is not None
        with pytest.raises(KnowledgeBaseError, match=r"Could not decode .*restore it from a backup") as error:
            ledger.get("k0")
    assert "holds the answers that were paid for" in str(error.value)
    assert "asked, and paid for, again" in str(error.value)
    assert "choices" not in str(error.value)
    with pytest.raises(KnowledgeBaseError, match="restore it from a backup"):
        list(iter_entries(tmp_path))


@pytest.mark.parametrize(
    "statement", ["DROP TABLE entries", "ALTER TABLE entries RENAME COLUMN answer TO reply"]
)
def test_a_ledger_without_its_table_is_damaged(tmp_path: Path, statement: str) -> None:
    """A file that says it is a ledger and holds none is not told to be on a wrong disk."""

    async def run() -> None:
        async with open_ledger(tmp_path):
            return

    asyncio.run(run())
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute(statement)
    connection.close()
    with pytest.raises(KnowledgeBaseError, match="restore it from a backup"):
        list(iter_entries(tmp_path))


def test_a_folder_that_cannot_be_written_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a log the file is opened as unchanging, which needs no file beside it; else with its log."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)

    asyncio.run(run())
    access = os.access
    monkeypatch.setattr(
        "kb_builder.ask.ledger_file.os.access",
        lambda path, mode: mode != os.W_OK and access(path, mode),  # root may write wherever it likes
    )
    asked: list[str] = []
    connect = sqlite3.connect

    def note(database: Any, *args: Any, **values: Any) -> sqlite3.Connection:
        asked.append(str(database))
        return connect(database, *args, **values)

    monkeypatch.setattr("kb_builder.ask.ledger_file.sqlite3.connect", note)
    before = sorted(tmp_path.iterdir())
    assert list(iter_entries(tmp_path)) == [ENTRY]
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "ledger.sqlite-wal").touch()
    assert list(iter_entries(tmp_path)) == [ENTRY]
    assert [uri.rpartition("?")[2] for uri in asked] == ["immutable=1", "mode=ro"]


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    """Neither a reader nor a writer opens it, and it is not changed."""
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()

    async def run() -> None:
        async with open_ledger(tmp_path):
            pytest.fail("opened")

    with pytest.raises(KnowledgeBaseError, match="ledger format 9"):
        asyncio.run(run())
    with pytest.raises(KnowledgeBaseError, match="ledger format 9"), read_ledger(tmp_path):
        pytest.fail("opened")


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    """A second run on one knowledge base is told to wait, and the first is not disturbed."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            with pytest.raises(KnowledgeBaseError, match="is being written by process"):
                async with open_ledger(tmp_path):
                    pytest.fail("two writers")
            await ledger.submit(ENTRY)

    asyncio.run(run())
    assert list(iter_entries(tmp_path)) == [ENTRY]


REQUEST = Request(
    endpoint="e",
    model="m",
    messages=(("user", 'say "max_tokens":7 twice'),),
    temperature=0.5,
    top_p=None,
    max_tokens=40,
    seed=3,
    sample_index=0,
    extra={"max_tokens": 1},
)


def entry_of(request: Request, answer: str | None = "{}", **changes: Any) -> Entry:
    """An entry for a request, made as the askers make theirs."""
    error = "status 400" if answer is None else None
    entry = new_entry(
        request, provider="p", source="s", run_id="r", attempts=1, latency_ms=1.0, answer=answer, error=error
    )
    return replace(entry, **changes)


def test_an_entry_knows_its_keys() -> None:
    """The key is the request's; the base key leaves out max_tokens, and nothing else that is called so."""
    entry, longer = entry_of(REQUEST), entry_of(replace(REQUEST, max_tokens=80))
    assert entry.key == request_key(REQUEST) != longer.key
    assert entry.base_key == longer.base_key == base_key_of(entry.request)
    for other in (replace(REQUEST, seed=4), replace(REQUEST, extra={"max_tokens": 2})):
        assert entry_of(other).base_key != entry.base_key
    hostile: dict[str, Any] = {"x": {"max_tokens": 5, "messages": [["user", "a"]]}}
    said = (("user", '"max_tokens":7,"messages":[['),)
    for odd in (
        replace(REQUEST, extra=hostile),
        replace(REQUEST, messages=said, max_tokens=None),
        replace(REQUEST, messages=(), names={"max_tokens": None}),
        replace(REQUEST, messages=said, names={"max_tokens": "max_completion_tokens"}),
    ):
        value = json.loads(request_json(odd))
        del value["max_tokens"]
        assert base_key_of(request_json(odd)) == hash_json(value)


def test_moments_go_on_where_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made after a stage has begun counts as made after it, and so as asked and paid for by it."""
    started = microseconds_now()

    class AnHourAgo(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("kb_builder.ask.ledger.datetime", AnHourAgo)
    made = [entry_of(replace(REQUEST, seed=number)) for number in range(3)]
    moments = [started, *(each.created_at for each in made)]
    assert moments == sorted(set(moments))
    spending = Spending()
    for each in made:
        spending.count(each, started=started)
    assert (spending.requests, spending.known) == (3, 0)


def test_a_ledger_that_was_lost_is_no_empty_one(tmp_path: Path) -> None:
    """Gone or altered, though it has a checksum: who counts on all of it says so."""

    async def write() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)

    asyncio.run(write())
    path = tmp_path / "ledger.sqlite"
    with read_ledger(tmp_path, checked=True) as found:
        assert found is not None
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"damaged: .* Restore it from a backup"):  # noqa: SIM117
        with read_ledger(tmp_path, checked=True):
            pass
    path.unlink()
    with pytest.raises(DamagedError, match=r"missing, .* Restore it from a backup"):  # noqa: SIM117
        with read_ledger(tmp_path, checked=True):
            pass
    discard(tmp_path)
    with read_ledger(tmp_path, checked=True) as found:
        assert found is None


def test_many_keys_are_found_at_once(tmp_path: Path) -> None:
    """Any number of keys, those that are not there left out."""
    stored = entries(1200)

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await asyncio.gather(*map(ledger.submit, stored))
            found = ledger.get_many([f"k{number}" for number in range(2400)])
            assert found == {entry.key: entry for entry in stored}
            assert ledger.get_many([]) == {}

    asyncio.run(run())


def test_the_longest_shorter_answer_is_found(tmp_path: Path) -> None:
    """Of the same request with fewer max_tokens, the answered one with the most; no limit is the longest."""
    lengths = [10, 20, 80, None]

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            stored = {length: entry_of(replace(REQUEST, max_tokens=length)) for length in lengths}
            failed = entry_of(replace(REQUEST, max_tokens=30), None)
            other = entry_of(replace(REQUEST, max_tokens=35, seed=9))
            await asyncio.gather(*map(ledger.submit, (*stored.values(), failed, other)))
            base = failed.base_key
            assert ledger.shorter(base, 40) == stored[20]
            assert ledger.shorter(base, 20) == stored[10]
            assert ledger.shorter(base, 10) is None
            assert ledger.shorter(base, None) == stored[80]

    asyncio.run(run())


def test_spending_is_a_running_sum_over_all_runs(tmp_path: Path) -> None:
    """Known costs add up, unknown ones add nothing, and the next run begins with the sum of the earlier."""

    async def run(costs: list[float | None], first: int) -> float:
        async with open_ledger(tmp_path) as ledger:
            await asyncio.gather(
                *(
                    ledger.submit(replace(ENTRY, key=f"k{number}", cost_usd=cost))
                    for number, cost in enumerate(costs, start=first)
                )
            )
            assert [entry.key for entry in ledger.unpriced()] == ["k1"]
            return ledger.spent()

    assert asyncio.run(run([0.5, None, 0.25], 0)) == 0.75
    assert asyncio.run(run([1.0], 3)) == 1.75


def test_an_entry_that_is_there_is_no_error_and_never_overwritten(tmp_path: Path) -> None:
    """A batch's results may be taken in twice; another answer is refused without harm to its neighbours."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)
            again = replace(ENTRY, created_at=1, run_id="s")
            other = replace(ENTRY, answer='{"choices":[1]}')
            results = await asyncio.gather(
                ledger.submit(again),
                ledger.submit(other),
                ledger.submit(replace(ENTRY, key="k1")),
                return_exceptions=True,
            )
            assert results[0] is None and results[2] is None
            assert isinstance(results[1], KnowledgeBaseError) and "another answer" in str(results[1])
            assert ledger.spent() == 0.5

    asyncio.run(run())
    assert list(iter_entries(tmp_path)) == [ENTRY, replace(ENTRY, key="k1")]


def test_other_tables_are_written_in_order_with_the_entries(tmp_path: Path) -> None:
    """A module's own write sees what was submitted before it, fails alone, and is read back."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.write(lambda connection: connection.execute("CREATE TABLE jobs (n INTEGER) STRICT"))

            def fail(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO jobs VALUES (7)")
                raise ValueError("no")

            results = await asyncio.gather(
                ledger.submit(ENTRY),
                ledger.write(fail),
                ledger.write(lambda c: c.execute("INSERT INTO jobs VALUES ('a text')")),
                ledger.write(lambda c: c.execute("INSERT INTO jobs SELECT count(*) FROM entries")),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [
                type(None),
                ValueError,
                KnowledgeBaseError,
                type(None),
            ]
            assert ledger.read(lambda c: c.execute("SELECT n FROM jobs").fetchall()) == [(1,)]

    asyncio.run(run())


def test_a_flushed_group_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the caller knows that nothing will join, the commit comes at once."""
    monkeypatch.setattr("kb_builder.ask.ledger.GROUP_SECONDS", 3600.0)

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            committed = ledger.submit(ENTRY)
            ledger.flush()
            await committed
            assert ledger.get("k0") == ENTRY

    asyncio.run(run())


def test_reading_creates_nothing(tmp_path: Path) -> None:
    """No ledger is no entries and no file; beside a closed ledger no log is left behind."""
    assert list(iter_entries(tmp_path / "nowhere")) == []
    assert list(tmp_path.iterdir()) == []

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)

    asyncio.run(run())
    before = sorted(tmp_path.iterdir())
    assert list(iter_entries(tmp_path)) == [ENTRY]
    assert sorted(tmp_path.iterdir()) == before


def test_entries_are_read_while_they_are_written(tmp_path: Path) -> None:
    """A reader in another process sees what is committed, and neither waits for the other."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)
            reader = iter_entries(tmp_path)
            assert next(reader) == ENTRY
            await ledger.submit(replace(ENTRY, key="k1"))
            assert list(reader) == []
            assert len(list(iter_entries(tmp_path))) == 2

    asyncio.run(run())


def test_a_group_is_as_large_as_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full group is committed without waiting, and one commit takes no more than came until then."""
    monkeypatch.setattr("kb_builder.ask.ledger.GROUP_SECONDS", 3600.0)
    sizes: list[int] = []
    commit = Ledger._commit

    def count(self: Ledger, items: list[Any]) -> list[Exception | None]:
        sizes.append(len(items))
        return commit(self, items)

    monkeypatch.setattr(Ledger, "_commit", count)

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await asyncio.gather(*map(ledger.submit, entries(GROUP_ROWS)))

    asyncio.run(run())
    assert sizes == [GROUP_ROWS]


@pytest.mark.parametrize("removed", [True, False])
def test_a_ledger_that_is_removed_meanwhile_takes_no_more_answers(tmp_path: Path, removed: bool) -> None:
    """SQLite would go on writing into a file that has no name any more."""

    async def run() -> None:
        async with open_ledger(tmp_path) as ledger:
            await ledger.submit(ENTRY)
            (tmp_path / "ledger.sqlite").unlink()
            if not removed:
                (tmp_path / "ledger.sqlite").touch()
            with pytest.raises(KnowledgeBaseError, match="removed or replaced while it was written"):
                await ledger.submit(replace(ENTRY, key="k1"))

    asyncio.run(run())


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_ledger_that_is_no_file_is_named(tmp_path: Path, name: str, kind: str) -> None:
    """A pipe would be waited for, a dangling link be taken for no ledger at all."""
    if name.endswith("-wal"):
        asyncio.run(_record(tmp_path))
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/nowhere/at/all")
    for read in (lambda: list(iter_entries(tmp_path)), lambda: asyncio.run(_record(tmp_path))):
        with pytest.raises(KnowledgeBaseError, match=f"{name} is .*, where a file belongs"):
            read()


async def _record(kb: Path) -> None:
    async with open_ledger(kb) as ledger:
        await ledger.submit(ENTRY)


def test_a_damaged_schema_is_named(tmp_path: Path) -> None:
    """SQLite quotes the damaged text in its message, which Python cannot decode then."""
    asyncio.run(_record(tmp_path))
    path = tmp_path / "ledger.sqlite"
    content = path.read_bytes()
    damaged = content.replace(b"CREATE INDEX entries", b"CRE\xd9TE INDEX entries")
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(KnowledgeBaseError, match="the file is damaged"):
        list(iter_entries(tmp_path))
