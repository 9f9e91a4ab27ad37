"""Batches in the ledger: jobs, and the requests in them.

Table `batch_jobs`, one row per file, kept after its end:

    token         TEXT   random; in the uploaded file's name and in the batch's metadata
    endpoint      TEXT   where it is submitted
    state         TEXT   planned -> uploaded -> submitted -> done, or dead if it ended without results
    requests, bytes  INTEGER  of the file
    file_id, batch_id  TEXT   ids at the server, once they are known
    reserved_usd  REAL   worst case of the file's cost, or null where no price is known
    said          TEXT   the batch's last status or the reason of its end
    run_id        TEXT   the run that wrote the file
    created_at    INTEGER  microseconds since 1970, UTC

Table `batch_items`, one row per request that is or was in a job and has no entry yet:

    key           TEXT   request_key, primary key: a request is in at most one job
    token         TEXT   its job, or null if its job ended without an answer to it
    line          INTEGER  its place in the file, from 1
    request       TEXT   the final request, canonical JSON
    deaths        INTEGER  jobs that ended without an answer to it

A job is recorded as `planned` before its file is uploaded. So after any interruption the next run knows the
jobs that may be at the server, finds them there by their token, and submits no request a second time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

from kb_builder.ask.ledger import Ledger, Work

PLANNED, UPLOADED, SUBMITTED, DONE, DEAD = "planned", "uploaded", "submitted", "done", "dead"

_CREATE = (
    """
    CREATE TABLE IF NOT EXISTS batch_jobs (
        token TEXT PRIMARY KEY, endpoint TEXT NOT NULL, state TEXT NOT NULL, requests INTEGER NOT NULL,
        bytes INTEGER NOT NULL, file_id TEXT, batch_id TEXT, reserved_usd REAL, said TEXT,
        run_id TEXT NOT NULL, created_at INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE IF NOT EXISTS batch_items (
        key TEXT PRIMARY KEY, token TEXT, line INTEGER, request TEXT NOT NULL, deaths INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX IF NOT EXISTS batch_items_by_token ON batch_items (token, line)",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One batch, from the moment its file is written."""

    token: str
    endpoint: str
    state: str
    requests: int
    bytes: int
    file_id: str | None
    batch_id: str | None
    reserved_usd: float | None
    said: str | None
    run_id: str
    created_at: int


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One request of a job."""

    key: str
    request: str
    deaths: int


_JOB = ", ".join(field.name for field in fields(Job))


async def create_tables(ledger: Ledger) -> None:
    """Create the two tables if they do not exist."""

    def create(connection: sqlite3.Connection) -> None:
        for statement in _CREATE:
            connection.execute(statement)

    await _write(ledger, create)


def unfinished(ledger: Ledger, endpoint: str) -> list[Job]:
    """The jobs of an endpoint that may still get answers, the oldest first."""
    query = (
        f"SELECT {_JOB} FROM batch_jobs WHERE endpoint = ? AND state IN (?, ?, ?) ORDER BY created_at, token"
    )
    values = (endpoint, PLANNED, UPLOADED, SUBMITTED)
    rows = ledger.read(lambda connection: connection.execute(query, values).fetchall())
    return [Job(*row) for row in rows]


def items(ledger: Ledger, token: str) -> list[BatchItem]:
    """The requests of a job that have no entry yet, in the order of its file."""
    query = "SELECT key, request, deaths FROM batch_items WHERE token = ? ORDER BY line"
    rows = ledger.read(lambda connection: connection.execute(query, (token,)).fetchall())
    return [BatchItem(*row) for row in rows]


def keys(ledger: Ledger, token: str) -> list[str]:
    """The keys of `items`."""
    query = "SELECT key FROM batch_items WHERE token = ? ORDER BY line"
    return [key for (key,) in ledger.read(lambda connection: connection.execute(query, (token,)).fetchall())]


def find(ledger: Ledger, token: str, wanted: Sequence[str]) -> dict[str, BatchItem]:
    """The items of these keys (some hundreds) in a job that have no entry yet."""
    marks = ", ".join("?" * len(wanted))
    query = f"SELECT key, request, deaths FROM batch_items WHERE token = ? AND key IN ({marks})"
    rows = ledger.read(lambda connection: connection.execute(query, (token, *wanted)).fetchall())
    return {row[0]: BatchItem(*row) for row in rows}


def at_lines(ledger: Ledger, token: str, lines: Iterable[int]) -> dict[int, BatchItem]:
    """The requests at some lines (from 1) of a job's file."""
    query = "SELECT line, key, request, deaths FROM batch_items WHERE token = ?"
    wanted = set(lines)
    rows = ledger.read(lambda connection: connection.execute(query, (token,)).fetchall())
    return {line: BatchItem(*rest) for line, *rest in rows if line in wanted}


async def plan(ledger: Ledger, job: Job, requests: Sequence[tuple[str, str]]) -> None:
    """Record a job and its (key, request JSON), in the order of its file, in one transaction."""

    def record(connection: sqlite3.Connection) -> None:
        connection.execute(
            f"INSERT INTO batch_jobs ({_JOB}) VALUES ({', '.join('?' * len(fields(Job)))})", astuple(job)
        )
        connection.executemany(
            "INSERT INTO batch_items (key, token, line, request, deaths) VALUES (?, ?, ?, ?, 0) "
            "ON CONFLICT (key) DO UPDATE SET token = excluded.token, line = excluded.line",
            [(key, job.token, line, request) for line, (key, request) in enumerate(requests, start=1)],
        )

    await _write(ledger, record)


async def update(ledger: Ledger, job: Job) -> None:
    """Record the state, ids and reason of a job."""
    values = (job.state, job.file_id, job.batch_id, job.said, job.token)
    query = "UPDATE batch_jobs SET state = ?, file_id = ?, batch_id = ?, said = ? WHERE token = ?"
    await _write(ledger, lambda connection: connection.execute(query, values))


async def settle(ledger: Ledger, settled: Iterable[str]) -> None:
    """Delete the items of requests that have their entry."""
    rows = [(key,) for key in settled]
    query = "DELETE FROM batch_items WHERE key = ?"
    await _write(ledger, lambda connection: connection.executemany(query, rows))


async def end(ledger: Ledger, job: Job, *, died: bool) -> None:
    """Record a job's end (`job.state`, `job.said`) and free the requests without an entry.

    `died` counts the end against those requests: False for a job that the server never processed.
    """

    def record(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE batch_jobs SET state = ?, said = ? WHERE token = ?", (job.state, job.said, job.token)
        )
        connection.execute(
            "UPDATE batch_items SET token = NULL, line = NULL, deaths = deaths + ? WHERE token = ?",
            (int(died), job.token),
        )

    await _write(ledger, record)


async def _write(ledger: Ledger, work: Work) -> None:
    """Commit at once: the next step waits for this commit."""
    writing = asyncio.ensure_future(ledger.write(work))
    await asyncio.sleep(0)
    ledger.flush()
    await writing
