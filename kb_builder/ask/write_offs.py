"""Answers that broke off and may have been charged: a table of dollars in the ledger's file."""

from __future__ import annotations

import sqlite3


def write_off(connection: sqlite3.Connection, *, usd: float) -> None:
    """Record the worst case of an answer that broke off (a `Work` for `Ledger.write`)."""
    connection.execute("CREATE TABLE IF NOT EXISTS write_offs (usd REAL NOT NULL) STRICT")
    connection.execute("INSERT INTO write_offs VALUES (?)", (usd,))


def written_off(connection: sqlite3.Connection) -> float:
    """The sum of all write-offs, in US dollars."""
    (there,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'write_offs'").fetchone()
    return float(connection.execute("SELECT total(usd) FROM write_offs").fetchone()[0]) if there else 0.0
