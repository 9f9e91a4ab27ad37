"""The SQLite file of the ledger: its tables and version, connections to it, and errors that name a remedy."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import KnowledgeBaseError
from data.special_files import special_kind

LEDGER_VERSION = 2
_closing: dict[Path, threading.Lock] = {}

# Parts of the messages of SQLite and of Python's module about a file whose content is damaged.
_DAMAGE = (
    "not a database",
    "malformed",
    "unsupported file format",
    "Could not decode to UTF-8",
    "codec can't decode",
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
    "CREATE INDEX entries_by_base_key ON entries (base_key)",
    "CREATE INDEX entries_by_cost ON entries (cost_usd)",  # sums need not read the answers
)


def closing_lock(path: Path) -> threading.Lock:
    """A lock for whoever reads a ledger that this process may be writing, and for the writer as it closes.

    A reader would keep the ledger's log (`-wal`) on the disk, and a ledger with a log gets no checksum.
    """
    return _closing.setdefault(path.absolute(), threading.Lock())


def open_writer(path: Path) -> sqlite3.Connection:
    """The writer's connection. Creates the tables in a new file."""
    connection = connect_to_write(path)
    try:
        with sqlite_errors(path):
            if not read_version(connection, path):
                connection.execute("BEGIN IMMEDIATE")  # all of it, or nothing
                for statement in _CREATE:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
                connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def ledger_exists(path: Path) -> bool:
    """Whether there is a ledger file. Raises KnowledgeBaseError for a folder, pipe or device in its place.

    SQLite opens pipes too, and waits forever. So the places of its log files are checked as well.
    """
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if found := special_kind(each) or ("a folder" if each.is_dir() else None):
            raise KnowledgeBaseError(f"{each} is {found}, where a file belongs; move it away, then run again")
    return path.is_file()


def connect_to_write(path: Path) -> sqlite3.Connection:
    ledger_exists(path)
    with sqlite_errors(path):
        # Used by worker threads too, one at a time. No isolation level: transactions are written out.
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing.

    A log that a writer has left (`-wal`) must be read with the file. A writable connection removes the log
    that it creates for itself, a read-only one leaves it behind; in a read-only folder none is needed.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        mode = "mode=rw"
    else:
        mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    ledger_exists(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
    connection.execute("PRAGMA query_only = ON")
    return connection


def read_version(connection: sqlite3.Connection, path: Path) -> int:
    """The file's format: `LEDGER_VERSION`, or 0 before its tables were created; else KnowledgeBaseError."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, LEDGER_VERSION}:
        raise KnowledgeBaseError(
            f"{path}: made by another version of this program (ledger format {version}, "
            f"this one reads {LEDGER_VERSION}); use that version, or another knowledge base folder"
        )
    return version


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a KnowledgeBaseError that names the remedy."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # even SQLite's own messages may hold damaged text
        raise knowledge_base_error(path, error) from error


def knowledge_base_error(path: Path, error: Exception) -> KnowledgeBaseError:
    """The KnowledgeBaseError for an error of SQLite."""
    text = str(error).partition(" with text ")[0]  # what follows is the damaged text itself
    if any(words in text for words in _DAMAGE):
        advice = (
            "the file is damaged: restore it from a backup: it holds the answers that were paid for "
            "(without it everything is asked, and paid for, again)"
        )
    elif "full" in text or "I/O" in text:
        advice = "free disk space (or raise the file size limit) and run again: committed answers are kept"
    else:
        advice = "make sure that the folder exists, is writable and on a local disk, then run again"
    return KnowledgeBaseError(f"{path}: {text}; {advice}")
