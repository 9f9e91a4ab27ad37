"""The durable record of every request and its raw answer: one SQLite file, one writer, group commits.

Table `entries`, one row per request that has ended:

    key         TEXT   request_key, primary key
    request     TEXT   the final request, canonical JSON
    answer      TEXT   the answer's body as it came, or null where the request failed for good
    error       TEXT   why it failed for good, or null
    attempts    INTEGER  calls made, the last one included; 0 where another request's answer was used again
    latency_ms  REAL   of the last call
    created_at  INTEGER  microseconds since 1970, UTC
    provider, source, run_id   TEXT   the describer's provider, how it was asked, and in which run
    cost_usd    REAL   cost of the answer, or null where its price or its usage is not known
    base_key    TEXT   SHA-256 of the request without its max_tokens: the same request of another length

Other modules keep further tables in the same file (`Ledger.write`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from data.errors import DamagedError, KnowledgeBaseError
from data.files import canonical_json, hash_json, hash_text
from data.lock import write_lock
from data.seals import FORBIDDEN, check_always, seal, unseal
from kb_builder.ask.ledger_file import (
    closing_lock,
    connect_to_read,
    connect_to_write,
    knowledge_base_error,
    ledger_exists,
    open_writer,
    read_version,
    sqlite_errors,
)
from kb_builder.ask.request import Request, request_json

GROUP_ROWS = 200  # a group is committed when it holds this many rows ...
GROUP_SECONDS = 0.25  # ... or when its first row has waited this long

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_clock = threading.Lock()
_latest = 0  # the last result of `microseconds_now`
_MESSAGES = '"messages":[['
_LENGTH = re.compile(rf'"max_tokens":(?:\d+|null),{re.escape(_MESSAGES)}')
# Fields in which requests of one kind differ: their subject, and how much they ask for.
_WORDS = "'$.messages', '$.seed', '$.sample_index', '$.max_tokens', '$.extra.response_format'"
_MEDIA = ("image", "audio", "video")
_KEYS_AT_ONCE = 500  # per query; SQLite takes at least 999 values

_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], object]


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
    cost_usd: float | None
    base_key: str

    @property
    def time(self) -> datetime:
        """The time of the entry (UTC)."""
        return _EPOCH + timedelta(microseconds=self.created_at)


_COLUMNS = ", ".join(field.name for field in fields(Entry))
_INSERT = (
    f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Entry)))}) "
    "ON CONFLICT (key) DO NOTHING"
)


def new_entry(
    request: Request | str,
    *,
    provider: str,
    source: str,
    run_id: str,
    attempts: int,
    latency_ms: float,
    answer: str | None = None,
    error: str | None = None,
    cost_usd: float | None = None,
) -> Entry:
    """An entry with the current time. `request` is the request or its canonical JSON."""
    text = request if isinstance(request, str) else request_json(request)
    return Entry(
        key=hash_text(text),
        request=text,
        answer=answer,
        error=error,
        attempts=attempts,
        latency_ms=latency_ms,
        created_at=microseconds_now(),
        provider=provider,
        source=source,
        run_id=run_id,
        cost_usd=cost_usd,
        base_key=base_key_of(text),
    )


def base_key_of(request: str) -> str:
    """SHA-256 (hex) of a request (canonical JSON) without its max_tokens."""
    # The field of the request itself is the last: `messages` follows it, which holds no such names unescaped.
    if places := [found.start() for found in _LENGTH.finditer(request)]:
        return hash_text(request[: places[-1]] + request[request.index(_MESSAGES, places[-1]) :])
    value = json.loads(request)
    value.pop("max_tokens", None)
    return hash_json(value)


def microseconds_now() -> int:
    """The current time in microseconds since 1970, UTC; in one process always larger than the last result.

    If the clock is set back, later entries would otherwise count as made before the run, and as not paid by
    it.
    """
    global _latest
    with _clock:
        _latest = max(_latest + 1, (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1))
        return _latest


class StoredEntries:
    """Read access to a ledger file. Made by `read_ledger`, which needs no lock."""

    def __init__(self, path: Path, reader: sqlite3.Connection) -> None:
        self._path = path
        self._reader = reader

    def get(self, key: str) -> Entry | None:
        """The committed entry of a request, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The committed entries of those requests that have one."""
        found: dict[str, Entry] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            query = f"SELECT {_COLUMNS} FROM entries WHERE key IN ({', '.join('?' * len(some))})"
            found |= {row[0]: Entry(*row) for row in self._rows(query, some)}
        return found

    def shorter(self, base_key: str, max_tokens: int | None) -> Entry | None:
        """The answer to the same request with the greatest max_tokens below `max_tokens` (None: no limit)."""
        query = f"""
            SELECT {_COLUMNS} FROM entries
            WHERE base_key = ? AND answer IS NOT NULL AND json_extract(request, '$.max_tokens') < ?
            ORDER BY json_extract(request, '$.max_tokens') DESC LIMIT 1
        """
        rows = self._rows(query, (base_key, float("inf") if max_tokens is None else max_tokens))
        return Entry(*rows[0]) if rows else None

    def answered_like(self, request: str) -> bool:
        """Whether any request like this one (canonical JSON) was answered.

        Alike are requests to the same endpoint and model, with the same parameters and kinds of media. Words,
        seeds and lengths may differ.
        """
        like = [
            "answer IS NOT NULL",
            f"json_remove(request, {_WORDS}) = json_remove(?1, {_WORDS})",
            *(
                f"json_type(request, '{path}') IS json_type(?1, '{path}')"
                for path in ("$.seed", "$.max_tokens", "$.extra.response_format")
            ),
            *(
                f'(instr(request, \'"kind":"{kind}"\') > 0) = (instr(?1, \'"kind":"{kind}"\') > 0)'
                for kind in _MEDIA
            ),
        ]
        query = f"SELECT 1 FROM entries WHERE {' AND '.join(like)} LIMIT 1"
        return bool(self._rows(query, (request,)))

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` with a connection that sees what is committed; returns its result."""
        with sqlite_errors(self._path):
            return work(self._reader)

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with sqlite_errors(self._path):
            return self._reader.execute(query, values).fetchall()


class Ledger(StoredEntries):
    """A ledger that is open for writing. Made by `open_ledger`, which holds the write lock."""

    def __init__(self, path: Path) -> None:
        self._writer = open_writer(path)  # creates a missing file
        self._file = path.stat()
        super().__init__(path, connect_to_write(path))
        self._spent: float = self.read(
            lambda connection: connection.execute("SELECT total(cost_usd) FROM entries").fetchone()[0]
        )
        self._group: list[tuple[Entry | Work, asyncio.Future[None]]] = []
        self._filled = asyncio.Event()
        self._started = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._task = asyncio.create_task(self._write_groups())

    def spent(self) -> float:
        """The sum of every committed entry's known cost, of all runs, in US dollars."""
        return self._spent

    def unpriced(self) -> Iterator[Entry]:
        """The answers whose cost is not known, one by one. Record nothing while iterating."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE cost_usd IS NULL AND answer IS NOT NULL"
        with sqlite_errors(self._path):
            for row in self._reader.execute(query):
                yield Entry(*row)

    def submit(self, entry: Entry) -> asyncio.Future[None]:
        """Store an entry. The future is done when it is committed, or holds `KnowledgeBaseError`.

        An entry that the ledger already holds is unchanged; another answer to its request is an error.
        """
        return self._add(entry)

    async def write(self, work: Work) -> None:
        """Run `work` on a writable connection, for tables of other modules; returns after the commit.

        It runs in the writer's thread, after everything that was submitted before. If it raises, only its own
        changes are undone.
        """
        await self._add(work)

    async def forget_failed(self, keys: Sequence[str] | None = None) -> int:
        """Remove entries that hold no answer (of these requests, or all), so that they are asked again.

        Returns how many were removed. Answers are never removed.
        """
        removed = 0

        def work(connection: sqlite3.Connection) -> None:
            nonlocal removed
            among = "" if keys is None else f" AND key IN ({', '.join('?' * len(keys))})"
            found = connection.execute(f"DELETE FROM entries WHERE answer IS NULL{among}", keys or ())
            removed = found.rowcount

        await self.write(work)
        return removed

    def flush(self) -> None:
        """Commit the open group now: for callers that know that nothing will join it soon."""
        if self._group:
            self._filled.set()

    async def close(self) -> None:
        """Commit the open group and close the file."""
        self._closing = True
        self._started.set()
        self._filled.set()
        try:
            await self._task
        finally:
            self._thread.shutdown()
            self._reader.close()
            self._writer.close()

    def _add(self, item: Entry | Work) -> asyncio.Future[None]:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group.append((item, committed))
        self._started.set()
        if len(self._group) >= GROUP_ROWS:
            self._filled.set()
        return committed

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._closing and not self._group):
            await self._started.wait()
            if not self._closing:
                with suppress(TimeoutError):  # the group is committed, full or not
                    await asyncio.wait_for(self._filled.wait(), GROUP_SECONDS)
            group, self._group = self._group, []
            self._started.clear()
            self._filled.clear()
            if not group:
                continue
            try:
                errors = await loop.run_in_executor(self._thread, self._commit, [item for item, _ in group])
            except KnowledgeBaseError as error:
                errors = [error] * len(group)
            for (_, future), failure in zip(group, errors, strict=True):
                if future.done():  # its task was cancelled; the row is in the ledger all the same
                    continue
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)

    def _commit(self, items: Sequence[Entry | Work]) -> list[Exception | None]:
        """Write a group in one transaction. Returns each item's own error; raises if nothing was written."""
        errors: list[Exception | None] = []
        spent = 0.0
        self._require_file()
        with sqlite_errors(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for item in items:
                    if isinstance(item, Entry):
                        new, error = self._insert(item)
                        spent += (item.cost_usd or 0.0) if new else 0.0
                    else:
                        error = self._work(item)
                    errors.append(error)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk has rolled it back by itself
                    self._writer.execute("ROLLBACK")
                raise
        self._spent += spent
        return errors

    def _require_file(self) -> None:
        """Raise if the file was removed: SQLite would keep writing to an unlinked file, which is lost."""
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), self._file):
                return
        raise KnowledgeBaseError(
            f"{self._path}: removed or replaced while it was written; the answers since then are lost: "
            "run the same command again to ask for them"
        )

    def _insert(self, entry: Entry) -> tuple[bool, Exception | None]:
        """Whether the entry is new, and the error that it makes."""
        if self._writer.execute(_INSERT, astuple(entry)).rowcount:
            return True, None
        query = "SELECT answer, error FROM entries WHERE key = ?"
        if self._writer.execute(query, (entry.key,)).fetchall() == [(entry.answer, entry.error)]:
            return False, None
        return False, KnowledgeBaseError(
            f"{self._path}: holds another answer to request {entry.key}; it is kept, the new one is not"
        )

    def _work(self, work: Work) -> Exception | None:
        self._writer.execute("SAVEPOINT work")
        try:
            work(self._writer)
        except Exception as error:
            self._writer.execute("ROLLBACK TO work")
            self._writer.execute("RELEASE work")
            return knowledge_base_error(self._path, error) if isinstance(error, sqlite3.Error) else error
        self._writer.execute("RELEASE work")
        return None


@asynccontextmanager
async def open_ledger(kb: Path) -> AsyncIterator[Ledger]:
    """Open `<kb>/ledger.sqlite` for writing, exclusively. Everything is committed when the block ends.

    Its checksum (data/seals.py) is written when it is closed. Raises DamagedError if the file is not the one
    that was sealed: tables derived from other answers would be wrong.
    """
    path = kb / "ledger.sqlite"
    with write_lock(kb / "ledger.lock"):
        ledger_exists(path)
        require_unchanged(kb)
        unseal(kb, path.name)
        ledger = Ledger(path)
        try:
            yield ledger
        finally:
            with closing_lock(path):
                await ledger.close()
                if not path.with_name(f"{path.name}-wal").exists():  # else another process reads it
                    with suppress(OSError):  # disk full: no checksum until the next run
                        seal(kb, [path], path.name)


def require_unchanged(kb: Path) -> None:
    """Raise DamagedError if the ledger has a checksum (data/seals.py) and is missing or another file."""
    path = kb / "ledger.sqlite"
    try:
        check_always(path)
    except DamagedError as error:
        if error.reason == FORBIDDEN:
            raise
        raise DamagedError(
            path,
            f"{error.reason.partition(';')[0]}: it was lost or replaced. Restore it from a backup; or,"
            " where it is as you want it, `unibind kb verify --seal` takes it as it is",
        ) from None


@contextmanager
def read_ledger(kb: Path, *, checked: bool = False) -> Iterator[StoredEntries | None]:
    """`<kb>/ledger.sqlite` for reading, or None where nothing was ever asked. Creates no file.

    `checked` raises DamagedError if it has a checksum and is missing or changed. That reads the whole file;
    it is for callers that depend on all of it.
    """
    path = kb / "ledger.sqlite"
    there = ledger_exists(path)
    if checked:
        require_unchanged(kb)
    if not there:
        yield None
        return
    with sqlite_errors(path):
        connection = connect_to_read(path)
    with closing(connection):
        with sqlite_errors(path):
            version = read_version(connection, path)
        yield StoredEntries(path, connection) if version else None


def lacking(kb: Path, keys: Sequence[str]) -> list[str]:
    """The keys that the ledger does not hold. Creates no file."""
    path = kb / "ledger.sqlite"
    if not ledger_exists(path):
        return list(keys)
    held: set[str] = set()
    with sqlite_errors(path), closing(connect_to_read(path)) as connection:
        for start in range(0, len(keys), _KEYS_AT_ONCE) if read_version(connection, path) else ():
            some = keys[start : start + _KEYS_AT_ONCE]
            query = f"SELECT key FROM entries WHERE key IN ({', '.join('?' * len(some))})"
            held.update(key for (key,) in connection.execute(query, some))
    return [key for key in keys if key not in held]


def digest_of(kb: Path, keys: Sequence[str]) -> str:
    """SHA-256 (hex) of the answers and errors under these keys. Keys without an entry are skipped.

    Requests and times are not in it. Creates no file.
    """
    path = kb / "ledger.sqlite"
    sums = hashlib.sha256()
    with sqlite_errors(path), closing(connect_to_read(path)) as connection:
        for start in range(0, len(keys), _KEYS_AT_ONCE) if read_version(connection, path) else ():
            some = keys[start : start + _KEYS_AT_ONCE]
            query = f"SELECT key, answer, error FROM entries WHERE key IN ({', '.join('?' * len(some))})"
            for row in sorted(connection.execute(query, some), key=lambda row: str(row[0])):
                sums.update(canonical_json(row).encode())
    return sums.hexdigest()


def iter_entries(kb: Path) -> Iterator[Entry]:
    """Every entry of a knowledge base's ledger, in the order of the keys. Needs no lock, creates no file."""
    path = kb / "ledger.sqlite"
    if not ledger_exists(path):
        return
    with sqlite_errors(path), closing(connect_to_read(path)) as connection:
        if read_version(connection, path):
            for row in connection.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY key"):
                yield Entry(*row)
