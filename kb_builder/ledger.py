"""The durable record of every request and its raw answer: one SQLite file, one writer, group commits.

Table `entries`, one row per request that has ended:

    key         TEXT   request_key, primary key
    request     TEXT   the final request, canonical JSON
    answer      TEXT   the answer's body as it came, or null where the request failed for good
    error       TEXT   why it failed for good, or null
    attempts    INTEGER  calls made, the last one included
    latency_ms  REAL   of the last call
    created_at  INTEGER  microseconds since 1970, UTC
    provider, source, run_id   TEXT   who was asked, by which way, in which run
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data.errors import KnowledgeBaseError
from kb_builder.lock import write_lock

LEDGER_VERSION = 1
GROUP_ROWS = 200  # a group is committed when it holds this many rows ...
GROUP_SECONDS = 0.25  # ... or when its first row has waited this long

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CREATE = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT, error TEXT, attempts INTEGER NOT NULL,
    latency_ms REAL NOT NULL, created_at INTEGER NOT NULL, provider TEXT NOT NULL, source TEXT NOT NULL,
    run_id TEXT NOT NULL, CHECK ((answer IS NULL) <> (error IS NULL))
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that has ended: with an answer, or with an error that is final for it."""

    key: str
    request: str
    answer: str | None
    error: str | None
    attempts: int
    latency_ms: float
    created_at: int
    provider: str
    source: str
    run_id: str

    @property
    def time(self) -> datetime:
        """When the entry was made (UTC)."""
        return _EPOCH + timedelta(microseconds=self.created_at)


_COLUMNS = ", ".join(field.name for field in fields(Entry))
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Entry)))})"


def microseconds_now() -> int:
    """Now, in microseconds since 1970."""
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


class Ledger:
    """An open ledger. Make one with `open_ledger`, which holds the write lock around it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _connect(path)
        self._writer = _connect(path)
        self._group: list[tuple[Entry, asyncio.Future[None]]] = []
        self._filled = asyncio.Event()
        self._started = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._write_groups())

    def get(self, key: str) -> Entry | None:
        """The committed entry of a request, or None."""
        try:
            row = self._reader.execute(f"SELECT {_COLUMNS} FROM entries WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _broken(self._path, error) from error
        return None if row is None else Entry(*row)

    async def record(self, entry: Entry) -> None:
        """Store an entry; returns when it is committed, raises `KnowledgeBaseError` if it cannot be."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group.append((entry, committed))
        self._started.set()
        if len(self._group) >= GROUP_ROWS:
            self._filled.set()
        await committed

    async def close(self) -> None:
        """Commit what is waiting and close the file."""
        self._closing = True
        self._started.set()
        self._filled.set()
        try:
            await self._task
        finally:
            self._reader.close()
            self._writer.close()

    async def _write_groups(self) -> None:
        while not (self._closing and not self._group):
            await self._started.wait()
            if not self._closing:
                with suppress(TimeoutError):  # waited long enough: the group goes, full or not
                    await asyncio.wait_for(self._filled.wait(), GROUP_SECONDS)
            group, self._group = self._group, []
            self._started.clear()
            self._filled.clear()
            if not group:
                continue
            try:
                await asyncio.to_thread(self._commit, [entry for entry, _ in group])
            except KnowledgeBaseError as error:
                _settle([future for _, future in group], error)
            else:
                _settle([future for _, future in group], None)

    def _commit(self, entries: Sequence[Entry]) -> None:
        try:
            with self._writer:  # one transaction: commits, or rolls the whole group back
                self._writer.executemany(_INSERT, map(astuple, entries))
        except sqlite3.Error as error:
            raise _broken(self._path, error) from error


def _settle(futures: list[asyncio.Future[None]], error: KnowledgeBaseError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled; the row is in the ledger all the same
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


@asynccontextmanager
async def open_ledger(kb: Path) -> AsyncIterator[Ledger]:
    """Open `<kb>/ledger.sqlite` for writing, alone. What was recorded is committed when the block ends."""
    with write_lock(kb / "ledger.lock"):
        ledger = Ledger(kb / "ledger.sqlite")
        try:
            yield ledger
        finally:
            await ledger.close()


def read_entries(kb: Path) -> list[Entry]:
    """Every entry of a knowledge base's ledger, in the order of the keys. Needs no lock."""
    with closing(_connect(kb / "ledger.sqlite")) as connection:
        return [Entry(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY key")]


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # The writer's connection is used by worker threads, one commit at a time.
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, LEDGER_VERSION}:
                raise KnowledgeBaseError(
                    f"{path}: made by another version of this program (ledger format {version}, "
                    f"this one reads {LEDGER_VERSION}); use that version, or another knowledge base folder"
                )
            with connection:
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _broken(path, error) from error
    return connection


def _broken(path: Path, error: sqlite3.Error) -> KnowledgeBaseError:
    text = str(error)
    if "full" in text or "I/O" in text:
        mend = "free some disk space (or raise the file size limit) and run again: what was committed is kept"
    elif "not a database" in text or "malformed" in text:
        mend = "the file is damaged: restore it from a backup, or move it away to start a new ledger"
    else:
        mend = "see that the folder exists, is writable and on a local disk, then run again"
    return KnowledgeBaseError(f"{path}: {text}; {mend}")
