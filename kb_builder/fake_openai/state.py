"""State of the server: counters, rate limits, files and batches."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from kb_builder.fake_openai.limits import RateBudget, budgets
from kb_builder.fake_openai.settings import FakeSettings

WINDOW_S = 24 * 3600


@dataclass
class Stats:
    """Counters since the start or the last reset. Requests are known by the hash of their body.

    `asked` counts every arrival of a valid request, `answered` the answers that were passed to the network:
    an answer that a killed client never read is counted, a fault is not.
    """

    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)  # by name: scripted ones, limits and bad requests
    requests: int = 0
    answers: int = 0
    items: int = 0  # texts in the answers: choices, or the strings of a structured answer's longest array
    in_flight: int = 0
    most_in_flight: int = 0
    batches: int = 0
    batch_requests: int = 0
    started: float = field(default_factory=time.monotonic)
    first_request: float | None = None  # of the valid ones: clients probe with empty ones
    last_answer: float | None = None

    def seconds(self) -> float:
        """Since the server's start or reset."""
        return time.monotonic() - self.started

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON; `first_request_s` and `last_answer_s` are seconds since the start."""
        return {
            "requests": self.requests,
            "answers": self.answers,
            "items": self.items,
            "distinct": len(self.asked),
            "faults": dict(sorted(self.faults.items())),
            "asked_again": _more_than_once(self.asked),
            "answered_again": _more_than_once(self.answered),
            "asked_histogram": _histogram(self.asked),
            "answered_histogram": _histogram(self.answered),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "batches": self.batches,
            "batch_requests": self.batch_requests,
            "seconds": self.seconds(),
            "first_request_s": self._since_start(self.first_request),
            "last_answer_s": self._since_start(self.last_answer),
        }

    def summary(self) -> str:
        """The counters in a few lines, for the terminal."""
        lines = [
            f"requests   {self.requests} ({len(self.asked)} distinct), {self.most_in_flight} at once",
            f"answers    {self.answers} ({len(self.answered)} distinct) with {self.items} texts",
        ]
        if self.batches:
            lines.append(f"batches    {self.batches} with {self.batch_requests} requests")
        lines += [f"{name:<10} {count}" for name, count in sorted(self.faults.items())]
        return "\n".join(lines)

    def _since_start(self, when: float | None) -> float | None:
        return None if when is None else when - self.started


def _more_than_once(counts: Counter[str]) -> dict[str, int]:
    return {key: count for key, count in sorted(counts.items()) if count > 1}


def _histogram(counts: Counter[str]) -> dict[str, int]:
    """Number of requests by how often each one arrived."""
    return {str(times): many for times, many in sorted(Counter(counts.values()).items())}


def append_line(log: Path, line: str) -> None:
    """Append a line to a file in one write, so that it survives a kill of this process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file or a result file, in memory."""

    id: str
    name: str
    purpose: str
    data: bytes
    created_at: int

    def shown(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created_at,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class Batch:
    """A batch and its progress. `times` maps a status to the time it was reached."""

    id: str
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    created_at: int
    status: str = "validating"
    times: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0

    def shown(self) -> dict[str, Any]:
        """The batch object."""
        stages = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.created_at + WINDOW_S,
            **{f"{stage}_at": self.times.get(stage) for stage in stages},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
        }


@dataclass
class State:
    """Counters, budgets, files and batches. `log`, if any, gets a line for each answer."""

    settings: FakeSettings
    log: Path | None = None
    stats: Stats = field(default_factory=Stats)
    budgets: tuple[RateBudget, ...] = field(init=False)
    accepted: int = 0  # admitted requests, for the quota
    files: dict[str, StoredFile] = field(default_factory=dict)  # by id, oldest first
    batches: dict[str, Batch] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # one per batch in progress

    def __post_init__(self) -> None:
        self.budgets = budgets(self.settings)

    def reset(self) -> None:
        """Return to the initial state: counters and clocks at zero, budgets full, no files or batches."""
        self.stop()
        self.stats, self.budgets, self.accepted = Stats(), budgets(self.settings), 0
        self.files, self.batches = {}, {}

    def stop(self) -> None:
        """Cancel the batches in progress."""
        for task in self.tasks:
            task.cancel()


STATE: web.AppKey[State] = web.AppKey("state", State)
