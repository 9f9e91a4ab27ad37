"""The durable record of every request and its raw answer: one SQLite file, one writer, group commits.

Table `entries`, one row per request that has ended:

    key         TEXT   request_key, primary key
    request     TEXT   the final request, canonical JSON
    answer      TEXT   the answer's body as it came, or null where the request failed for good
    error       TEXT   why it failed for good, or null
    attempts    INTEGER  calls made, the last one included; 0 where another request's answer was used again
    latency_ms  REAL   of the last call
    created_at  INTEGER  microseconds since 1970, UTC
    provider, source, run_id   TEXT   who was asked, by which way, in which run
    cost_usd    REAL   what the answer cost, or null where its price or its usage is not known
    base_key    TEXT   SHA-256 of the request without its max_tokens: equal questions of other lengths

Other modules may keep tables of their own in the same file (`Ledger.write`). Files of version 1, which had
no cost_usd and no base_key, are brought to version 2 when they are opened for writing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from data.errors import DamagedError, KnowledgeBaseError
from data.files import canonical_json, hash_json, hash_text
from data.lock import write_lock
from data.seals import check_always, seal, unseal
from data.special_files import special_kind
from kb_builder.ask.request import Request, request_json

LEDGER_VERSION = 2
GROUP_ROWS = 200  # a group is committed when it holds this many rows ...
GROUP_SECONDS = 0.25  # ... or when its first row has waited this long

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What makes requests of one kind differ: their subjects, and how much they ask for.
_WORDS = "'$.messages', '$.seed', '$.sample_index', '$.max_tokens', '$.extra.response_format'"
_MEDIA = ("image", "audio", "video")
_KEYS_AT_ONCE = 500  # per query; SQLite takes at least 999 values
# What SQLite and Python's module say of a file whose content is not what was written into it.
_DAMAGE = (
    "not a database",
    "malformed",
    "unsupported file format",
    "Could not decode to UTF-8",
    "codec can't decode",
    "user-defined function raised exception",  # base_key_of: a request that is no JSON
    "no such table: entries",
    "no such column",
)
_CREATE = (
    """
    CREATE TABLE entries (
        key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT, error TEXT, attempts INTEGER NOT NULL,
        latency_ms REAL NOT NULL, created_at INTEGER NOT NULL, provider TEXT NOT NULL, source TEXT NOT NULL,
        run_id TEXT NOT NULL, cost_usd REAL, base_key TEXT NOT NULL,
        CHECK ((answer IS NULL) <> (error IS NULL))
    ) STRICT
    """,
)
_FROM_VERSION_1 = (
    "ALTER TABLE entries ADD COLUMN cost_usd REAL",
    "ALTER TABLE entries ADD COLUMN base_key TEXT NOT NULL DEFAULT ''",
    "UPDATE entries SET base_key = base_key_of(request)",
)
_INDEXES = (
    "CREATE INDEX entries_by_base_key ON entries (base_key)",
    "CREATE INDEX entries_by_cost ON entries (cost_usd)",  # sums need not read the answers
)

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
        """When the entry was made (UTC)."""
        return _EPOCH + timedelta(microseconds=self.created_at)


_COLUMNS = ", ".join(field.name for field in fields(Entry))
_COLUMNS_1 = _COLUMNS.replace("cost_usd, base_key", "NULL, base_key_of(request)")
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
    """An entry of now. `request` may be its canonical JSON, where that is at hand."""
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
    value = json.loads(request)
    value.pop("max_tokens", None)
    return hash_json(value)


def microseconds_now() -> int:
    """Now, in microseconds since 1970."""
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


class StoredEntries:
    """What a ledger file holds, for looking up. Make one with `read_ledger`: it needs no lock."""

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
        """Whether there is an answer to any request that is made as this one is (canonical JSON): by the same
        endpoint and model, with the same parameters and kinds of media. Words, seeds and lengths may differ.
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
        """What `work` returns, given a connection to read from; it sees what is committed."""
        with _wrapped(self._path):
            return work(self._reader)

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with _wrapped(self._path):
            return self._reader.execute(query, values).fetchall()


class Ledger(StoredEntries):
    """An open ledger. Make one with `open_ledger`, which holds the write lock around it."""

    def __init__(self, path: Path) -> None:
        self._writer = _open(path)  # makes the file where there is none
        self._file = path.stat()
        super().__init__(path, _connect(path))
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
        """The answers whose cost is not known, one by one. Nothing is to be recorded meanwhile."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE cost_usd IS NULL AND answer IS NOT NULL"
        with _wrapped(self._path):
            for row in self._reader.execute(query):
                yield Entry(*row)

    def submit(self, entry: Entry) -> asyncio.Future[None]:
        """Store an entry. The future is done when it is committed, or holds `KnowledgeBaseError`.

        An entry that the ledger holds already is left as it is; another answer to its request is an error.
        """
        return self._add(entry)

    async def record(self, entry: Entry) -> None:
        """`submit`, and wait for the commit."""
        await self._add(entry)

    async def write(self, work: Work) -> None:
        """Let `work` change tables that are not ours; returns when that is committed.

        It runs in the writer's thread, after everything submitted before it. What it raises undoes its own
        changes only.
        """
        await self._add(work)

    async def forget_failed(self, keys: Sequence[str] | None = None) -> int:
        """Remove entries that hold no answer (of these requests, or all), so that they are asked again.

        Returns how many were removed. What was answered is never removed.
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
        """Commit now what waits: the caller knows that nothing will join the group soon."""
        if self._group:
            self._filled.set()

    async def close(self) -> None:
        """Commit what is waiting and close the file."""
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
                with suppress(TimeoutError):  # waited long enough: the group goes, full or not
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
        """Write a group in one transaction. Returns each item's own error; raises where none is written."""
        errors: list[Exception | None] = []
        spent = 0.0
        self._require_file()
        with _wrapped(self._path):
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
        """Raise where the file was removed: SQLite would go on writing what nobody can read again."""
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), self._file):
                return
        raise KnowledgeBaseError(
            f"{self._path}: removed or replaced while it was written; the answers since then are lost: "
            "run the same command again to ask for them"
        )

    def _insert(self, entry: Entry) -> tuple[bool, Exception | None]:
        """Whether the entry is new, and what is wrong with it."""
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
            return _broken(self._path, error) if isinstance(error, sqlite3.Error) else error
        self._writer.execute("RELEASE work")
        return None


@asynccontextmanager
async def open_ledger(kb: Path) -> AsyncIterator[Ledger]:
    """Open `<kb>/ledger.sqlite` for writing, alone. What was recorded is committed when the block ends.

    Its checksum (data/seals.py) is written when it is closed. Raises DamagedError where it is another file by
    then: what is made of its answers would be wrong, and nothing could be made again of it.
    """
    path = kb / "ledger.sqlite"
    with write_lock(kb / "ledger.lock"):
        _is_there(path)
        try:
            check_always(path)
        except DamagedError as error:
            raise DamagedError(
                path,
                f"{error.reason.partition(';')[0]}: it was lost or replaced. Restore it from a backup; or,"
                " where it is as you want it, `unibind kb verify --seal` takes it as it is",
            ) from None
        unseal(kb, path.name)
        ledger = Ledger(path)
        try:
            yield ledger
        finally:
            await ledger.close()
            if not path.with_name(f"{path.name}-wal").exists():  # somebody else reads it: not all is in it
                with suppress(OSError):  # a full disk: it stays without a checksum until the next run
                    seal(kb, [path], path.name)


@contextmanager
def read_ledger(kb: Path) -> Iterator[StoredEntries | None]:
    """`<kb>/ledger.sqlite` to look up in, or None where nothing was ever asked. Leaves no file behind."""
    path = kb / "ledger.sqlite"
    if not _is_there(path):
        yield None
        return
    with _wrapped(path):
        connection = _connect_to_read(path)
    with closing(connection):
        with _wrapped(path):
            version = _version(connection, path)
        if version not in {0, LEDGER_VERSION}:
            raise KnowledgeBaseError(
                f"{path}: in an older format ({version}); `unibind kb reparse` brings it up to date"
            )
        yield StoredEntries(path, connection) if version else None


def lacking(kb: Path, keys: Sequence[str]) -> list[str]:
    """Those of the keys that the ledger does not hold. Reads ledgers of older versions too, makes no file."""
    path = kb / "ledger.sqlite"
    if not _is_there(path):
        return list(keys)
    held: set[str] = set()
    with _wrapped(path), closing(_connect_to_read(path)) as connection:
        for start in range(0, len(keys), _KEYS_AT_ONCE) if _version(connection, path) else ():
            some = keys[start : start + _KEYS_AT_ONCE]
            query = f"SELECT key FROM entries WHERE key IN ({', '.join('?' * len(some))})"
            held.update(key for (key,) in connection.execute(query, some))
    return [key for key in keys if key not in held]


def digest_of(kb: Path, keys: Sequence[str]) -> str:
    """The hash of what the ledger holds under these keys; its request and when it was asked apart.

    Keys without an entry are passed over. Reads ledgers of older versions too, makes no file.
    """
    path = kb / "ledger.sqlite"
    sums = hashlib.sha256()
    with _wrapped(path), closing(_connect_to_read(path)) as connection:
        for start in range(0, len(keys), _KEYS_AT_ONCE) if _version(connection, path) else ():
            some = keys[start : start + _KEYS_AT_ONCE]
            query = f"SELECT key, answer, error FROM entries WHERE key IN ({', '.join('?' * len(some))})"
            for row in sorted(connection.execute(query, some), key=lambda row: str(row[0])):
                sums.update(canonical_json(row).encode())
    return sums.hexdigest()


def read_entries(kb: Path) -> list[Entry]:
    """Every entry of a knowledge base's ledger, in the order of the keys; [] where it has no ledger."""
    return list(iter_entries(kb))


def iter_entries(kb: Path) -> Iterator[Entry]:
    """`read_entries`, one by one. Needs no lock, makes no file, and reads ledgers of older versions too."""
    path = kb / "ledger.sqlite"
    if not _is_there(path):
        return
    with _wrapped(path), closing(_connect_to_read(path)) as connection:
        version = _version(connection, path)
        if version:
            columns = _COLUMNS if version == LEDGER_VERSION else _COLUMNS_1
            for row in connection.execute(f"SELECT {columns} FROM entries ORDER BY key"):
                yield Entry(*row)


def _open(path: Path) -> sqlite3.Connection:
    """The writer's connection to a ledger of this version: made or migrated where it is not there yet."""
    connection = _connect(path)
    try:
        with _wrapped(path):
            version = _version(connection, path)
            if version != LEDGER_VERSION:
                connection.execute("BEGIN IMMEDIATE")  # all of it, or nothing
                for statement in (_FROM_VERSION_1 if version else _CREATE) + _INDEXES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
                connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_there(path: Path) -> bool:
    """Whether there is a ledger. Raises KnowledgeBaseError where something stands there that is no file.

    SQLite opens pipes, too, and waits for ever; so also beside it, where its log belongs.
    """
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if found := special_kind(each) or ("a folder" if each.is_dir() else None):
            raise KnowledgeBaseError(f"{each} is {found}, where a file belongs; move it away, then run again")
    return path.is_file()


def _connect(path: Path) -> sqlite3.Connection:
    _is_there(path)
    with _wrapped(path):
        # Used by worker threads too, one at a time. No isolation level: transactions are written out.
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        connection.create_function("base_key_of", 1, base_key_of, deterministic=True)
        return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing.

    A log that a writer has left (`-wal`) must be read with the file. A connection that may write removes the
    log it makes for itself, a read-only one leaves it behind; a folder that cannot be written needs none.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        mode = "mode=rw"
    else:
        mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    _is_there(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
    connection.execute("PRAGMA query_only = ON")
    connection.create_function("base_key_of", 1, base_key_of, deterministic=True)
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > LEDGER_VERSION:
        raise KnowledgeBaseError(
            f"{path}: made by another version of this program (ledger format {version}, "
            f"this one reads {LEDGER_VERSION}); use that version, or another knowledge base folder"
        )
    return version


@contextmanager
def _wrapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # even SQLite's own messages may hold damaged text
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> KnowledgeBaseError:
    text = str(error).partition(" with text ")[0]  # what follows is the damaged text itself
    if any(words in text for words in _DAMAGE):
        advice = (
            "the file is damaged: restore it from a backup: it holds what was paid for "
            "(without it everything is asked, and paid for, again)"
        )
    elif "full" in text or "I/O" in text:
        advice = "free some disk space (or lift the file size limit), run again: what was committed is kept"
    else:
        advice = "see that the folder exists, is writable and on a local disk, then run again"
    return KnowledgeBaseError(f"{path}: {text}; {advice}")


def reused(ledger: StoredEntries, request: str, *, run_id: str) -> Entry | None:
    """An entry for a request (canonical JSON) with the answer to the same request of fewer max_tokens.

    None where there is no such answer or it was cut off. The entry has a key of its own, so that rows can
    cite it; it cost nothing and took no call (`attempts` 0). Provider and source are those of the answer.
    """
    shorter = ledger.shorter(base_key_of(request), json.loads(request)["max_tokens"])
    if shorter is None or shorter.answer is None or _cut_off(shorter.answer):
        return None
    return _under(shorter, request, run_id)


def answered_elsewhere(
    ledger: StoredEntries, request: str, aliases: Sequence[str], *, run_id: str
) -> Entry | None:
    """The same for an answer to the same request at another endpoint of the group (`pool.Pool.aliases`)."""
    if not aliases:
        return None
    value = json.loads(request)
    keys = [hash_text(canonical_json(value | {"endpoint": alias})) for alias in aliases]
    found = ledger.get_many(keys)
    known = next((found[key] for key in keys if key in found and found[key].answer is not None), None)
    return None if known is None else _under(known, request, run_id)


def _under(known: Entry, request: str, run_id: str) -> Entry:
    return replace(
        known,
        key=hash_text(request),
        request=request,
        attempts=0,
        latency_ms=0.0,
        created_at=microseconds_now(),
        run_id=run_id,
        cost_usd=0.0,
    )


def _cut_off(answer: str) -> bool:
    return any(choice.get("finish_reason") == "length" for choice in json.loads(answer)["choices"])
