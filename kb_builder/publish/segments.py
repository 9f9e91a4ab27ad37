"""The ledger as segments: each table's rows in the order of SQLite's row ids, cut at multiples of a size.

A row of the ledger hardly ever changes, so all segments but the last have the same bytes whenever they are
made, and are uploaded once. A segment is a Parquet file with the table's columns and `_rowid`.

While a ledger grows, its last rows are cut at multiples of smaller sizes (`cuts`), so that what was sent once
is hardly sent again.
"""

from __future__ import annotations

import hashlib
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from kb_builder.ask.ledger_file import (
    closing_lock,
    connect_to_read,
    ledger_exists,
    read_version,
    sqlite_errors,
)
from kb_builder.publish.versions import Segment

ENTRIES = "entries"  # the table of the answers: rows are added to it, and seldom removed
ROWS = 10_000  # of a segment at most, by row id
_ROWID = "_rowid"
_CREATES = re.compile(r"CREATE (TABLE|INDEX|UNIQUE INDEX) ")
_KINDS = {"TEXT": pa.large_string(), "INTEGER": pa.int64(), "REAL": pa.float64(), "BLOB": pa.large_binary()}


class LedgerSnapshot:
    """A ledger as it was when it was opened: its schema, and its rows in segments."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect_to_read(path)
        try:
            with sqlite_errors(path):
                self._connection.execute("BEGIN")
                self.user_version = read_version(self._connection, path)
                found = self._connection.execute(
                    "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name"
                ).fetchall()
        except BaseException:
            self.close()
            raise
        self.schema = tuple(str(sql) for _, _, sql in found)  # tables before their indexes
        self.tables = [str(name) for kind, name, _ in found if kind == "table"]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def last(self, table: str) -> int:
        """The highest row id of a table, 0 where it is empty."""
        with sqlite_errors(self._path):
            query = f'SELECT coalesce(max(rowid), 0) FROM "{table}"'
            return int(self._connection.execute(query).fetchone()[0])

    def segments(self, table: str) -> Iterator[tuple[Segment, bytes]]:
        """The rows of a table in segments, with the bytes of each."""
        for start in range(0, self.last(table) + 1, ROWS):
            if found := self.segment(table, start, start + ROWS):
                yield found

    def segment(self, table: str, start: int, end: int) -> tuple[Segment, bytes] | None:
        """The rows with these row ids (without `end`) as a segment, and its bytes; None where there are none.

        Equal rows give equal bytes.
        """
        with sqlite_errors(self._path):
            about = self._connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            rows = self._connection.execute(
                f'SELECT rowid, * FROM "{table}" WHERE rowid >= ? AND rowid < ? ORDER BY rowid', (start, end)
            ).fetchall()
        if not rows:
            return None
        fields = [(str(name), _KINDS[str(kind).upper()]) for _, name, kind, *_ in about]
        schema = pa.schema([(_ROWID, pa.int64()), *fields])
        columns = zip(*rows, strict=True)
        arrays = [pa.array(each, kind.type) for each, kind in zip(columns, schema, strict=True)]
        file = io.BytesIO()
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd", write_page_checksum=True
        )
        data = file.getvalue()
        return Segment(len(data), hashlib.sha256(data).hexdigest(), len(rows)), data

    def growth(self) -> Growth:
        """How far the answers have grown."""
        with sqlite_errors(self._path):
            (rows,) = self._connection.execute("SELECT count(*) FROM entries").fetchone()
            last = self.last(ENTRIES)
            return Growth(rows, last, self._stamp(last))

    def has_only_grown(self, since: Growth) -> bool:
        """Whether rows were only added to the answers since then, and none removed or replaced."""
        with sqlite_errors(self._path):
            count = self._connection.execute("SELECT count(*) FROM entries").fetchone()[0]
            query = "SELECT count(*) FROM entries WHERE rowid > ?"
            added = self._connection.execute(query, (since.last,)).fetchone()[0]
            return bool(count - added == since.rows and self._stamp(since.last) == since.stamp)

    def _stamp(self, rowid: int) -> tuple[str, int] | None:
        query = "SELECT key, created_at FROM entries WHERE rowid = ?"
        found: tuple[str, int] | None = self._connection.execute(query, (rowid,)).fetchone()
        return found


@dataclass(frozen=True)
class Growth:
    """How far a ledger's answers have grown."""

    rows: int
    last: int  # the highest row id
    stamp: tuple[str, int] | None  # key and time of its row


def cuts(last: int) -> list[tuple[int, int]]:
    """The row ids up to `last` in ranges [start, end), which change as little as they can while it grows.

    Ranges of `ROWS`, then of a tenth and a hundredth of it, then the rest: about 20 more than whole ones.
    """
    found, start = [], 0
    for size in (ROWS, max(1, ROWS // 10), max(1, ROWS // 100)):
        while start + size <= last + 1:
            found.append((start, start + size))
            start += size
    return [*found, (start, last + 1)] if start <= last else found


def open_snapshot(kb: Path) -> LedgerSnapshot | None:
    """The ledger of a knowledge base; None where nothing was ever asked."""
    path = kb / "ledger.sqlite"
    if not ledger_exists(path):
        return None
    snapshot = LedgerSnapshot(path)
    if snapshot.user_version:
        return snapshot
    snapshot.close()  # its tables are about to be made
    return None


@contextmanager
def beside_the_writer(kb: Path) -> Iterator[LedgerSnapshot | None]:
    """As `open_snapshot`, while this process may be writing the ledger; for a short time."""
    with closing_lock(kb / "ledger.sqlite"):
        snapshot = open_snapshot(kb)
        if snapshot is None:
            yield None
            return
        with closing(snapshot):
            yield snapshot


def restore_ledger(
    path: Path, user_version: int, schema: Sequence[str], tables: Iterable[tuple[str, Iterable[Path]]]
) -> None:
    """Make a ledger file at `path` from its schema and the files of its segments."""
    if not all(_CREATES.match(statement) for statement in schema):
        raise KnowledgeBaseError(f"{path}: published with SQL that no ledger has")
    with sqlite_errors(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in schema:
            connection.execute(statement)
        for table, files in tables:
            for file in files:
                rows = pq.read_table(file, partitioning=None)
                columns = ", ".join(f'"{name}"' for name in rows.column_names[1:])
                marks = ", ".join("?" * rows.num_columns)
                connection.executemany(
                    f'INSERT INTO "{table}" (rowid, {columns}) VALUES ({marks})',
                    zip(*(column.to_pylist() for column in rows.columns), strict=True),
                )
        connection.execute(f"PRAGMA user_version = {user_version:d}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
