"""The ledger as segments: each table's rows in the order of SQLite's row ids, cut at multiples of a size.

A row of the ledger hardly ever changes, so all segments but the last have the same bytes whenever they are
made, and are uploaded once. A segment is a Parquet file with the table's columns and `_rowid`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from kb_builder.ask.ledger_file import connect_to_read, ledger_exists, read_version, sqlite_errors

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

    def segments(self, table: str) -> Iterator[pa.Table]:
        """The rows of a table, in pieces."""
        with sqlite_errors(self._path):
            about = self._connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            fields = [(str(name), _KINDS[str(kind).upper()]) for _, name, kind, *_ in about]
            schema = pa.schema([(_ROWID, pa.int64()), *fields])
            (last,) = self._connection.execute(f'SELECT coalesce(max(rowid), 0) FROM "{table}"').fetchone()
            for start in range(0, last + 1, ROWS):
                rows = self._connection.execute(
                    f'SELECT rowid, * FROM "{table}" WHERE rowid >= ? AND rowid < ? ORDER BY rowid',
                    (start, start + ROWS),
                ).fetchall()
                if rows:
                    columns = zip(*rows, strict=True)
                    arrays = [pa.array(each, kind.type) for each, kind in zip(columns, schema, strict=True)]
                    yield pa.Table.from_arrays(arrays, schema=schema)


def open_snapshot(kb: Path) -> LedgerSnapshot | None:
    """The ledger of a knowledge base; None where nothing was ever asked."""
    path = kb / "ledger.sqlite"
    return LedgerSnapshot(path) if ledger_exists(path) else None


def write_segment(table: pa.Table, path: Path) -> None:
    """Write a segment; equal rows give equal bytes."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


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
