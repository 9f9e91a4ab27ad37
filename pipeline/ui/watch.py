"""What a run is doing, read from its lock, marks, ledger and tables; and runs that the page starts itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import InputError, KnowledgeBaseError
from data.lock import Holder, lock_holder
from kb_builder.ask.ledger import read_ledger
from kb_builder.ask.session import Pause, pauses
from pipeline.project import ProjectFile
from pipeline.run.jobs import STAGES, plan
from pipeline.run.marks import marks
from pipeline.run.stale import why_stale

RECENT_S = 60.0  # of the rates
_LOG_LINES = 40


class StageState(NamedTuple):
    """A stage: `done`, `running`, `waiting` or `stale`, and what its mark says."""

    name: str
    state: str
    seconds: float | None
    shards: int  # done
    counts: dict[str, Any]
    note: str = ""


class Requests(NamedTuple):
    """The ledger, and the requests of the last minute."""

    answered: int
    failed: int
    cost_usd: float | None
    recent: int
    recent_tokens: int
    latency_ms: float | None


class RunProgress(NamedTuple):
    """Everything that the page shows of a run."""

    holder: Holder | None
    stages: Sequence[StageState]
    requests: Requests | None
    left_s: float | None  # of the running stage, where it works in shards
    pauses: Sequence[Pause] = ()  # while no request is sent
    finished: Sequence[tuple[str, float]] = ()  # stages and shards, with their seconds


def progress(project: ProjectFile, stale: dict[str, str | None]) -> RunProgress:
    """The state of a run now. `stale`: why each finished stage must run again (`stale_stages`), or None."""
    holder = lock_holder(project.run / "run.lock")
    doing = None if holder is None else holder.doing
    found = dict(marks(project))
    states = []
    for name in plan(project):
        mark = found.get(name)
        parts = [each for key, each in found.items() if key.startswith(f"{name}-") and key[-5:].isdecimal()]
        if name == doing:
            state, note = "running", ""
        elif mark is None:
            state, note = "waiting", ""
        elif why := stale.get(name):
            state, note = "stale", why
        else:
            state, note = "done", ""
        seconds = mark["seconds"] if mark is not None else sum(part["seconds"] for part in parts) or None
        counts = mark["summary"] if mark is not None else {}
        states.append(StageState(name, state, seconds, len(parts), counts, note))
    paused = [] if holder is None else pauses(project.kb, after=holder.since)
    finished = tuple(sorted((key, mark["seconds"]) for key, mark in found.items()))
    return RunProgress(holder, states, _requests(project), _left(project, states), paused, finished)


def stale_stages(project: ProjectFile) -> dict[str, str | None]:
    """Why each stage that has run must run again; None where it need not. Takes about a second."""
    found = dict(marks(project))
    return {stage.name: why_stale(project, stage.name) for stage in STAGES if stage.name in found}


def _left(project: ProjectFile, states: Sequence[StageState]) -> float | None:
    """Seconds left of a stage in shards, by the mean of the finished ones."""
    running = next((each for each in states if each.state == "running"), None)
    if running is None or not running.shards or running.seconds is None:
        return None
    stage = next(each for each in STAGES if each.name == running.name)
    if stage.shards is None:
        return None
    try:
        total = stage.shards(project)
    except KnowledgeBaseError:
        return None
    return running.seconds / running.shards * max(0, total - running.shards)


def _requests(project: ProjectFile) -> Requests | None:
    """Counts of the ledger; None where there is none, or it is being replaced."""
    since = int((time.time() - RECENT_S) * 1e6)

    def counted(entries: sqlite3.Connection) -> Requests:
        whole = entries.execute("SELECT count(answer), count(error), sum(cost_usd) FROM entries").fetchone()
        recent = entries.execute(
            "SELECT count(*), sum(CASE WHEN json_valid(answer) THEN"
            " coalesce(json_extract(answer, '$.usage.completion_tokens'), 0) ELSE 0 END), avg(latency_ms)"
            " FROM (SELECT answer, latency_ms, created_at FROM entries ORDER BY rowid DESC LIMIT 20000)"
            " WHERE created_at > ?",
            [since],
        ).fetchone()
        return Requests(whole[0], whole[1], whole[2], recent[0], recent[1] or 0, recent[2])

    try:
        with read_ledger(project.kb) as ledger:
            return None if ledger is None else ledger.read(counted)
    except KnowledgeBaseError:
        return None


@dataclass
class Runner:
    """A run that the page has started; it continues when the page's server ends."""

    project: ProjectFile
    _process: subprocess.Popen[bytes] | None = None
    _log: Path | None = field(default=None, repr=False)

    @property
    def at_work(self) -> bool:
        """Whether the run that was started here is still at work."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start or resume the run. Raises InputError where one is at work already."""
        if lock_holder(self.project.run / "run.lock") is not None or self.at_work:
            raise InputError("a run is at work on this project already")
        descriptor, name = tempfile.mkstemp(prefix="unibind-run-", suffix=".log")
        self._log = Path(name)
        command = [sys.executable, "-P", "-m", "unibind", "run", "--project", str(self.project.path)]
        with os.fdopen(descriptor, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.project.path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pause(self) -> None:
        """Stop the run as Ctrl-C does, between two commits; `start` continues it.

        Raises InputError where no run of this machine is at work.
        """
        if self.at_work and self._process is not None:
            self._process.send_signal(signal.SIGINT)
            return
        holder = lock_holder(self.project.run / "run.lock")
        if holder is None:
            raise InputError("no run is at work on this project")
        if holder.host != os.uname().nodename:
            raise InputError(f"the run is at work on {holder.host}; stop it there")
        os.kill(holder.pid, signal.SIGINT)

    def lines(self) -> list[str]:
        """The last lines that the run started here has written."""
        if self._log is None or not self._log.is_file():
            return []
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - 20_000))
            text = log.read().decode("utf-8", "replace")
        return [line.rpartition("\r")[2] for line in text.splitlines() if line.strip()][-_LOG_LINES:]


def counts_text(counts: dict[str, Any]) -> str:
    """The counts of a stage in one line; of lists and longer tables, their length."""
    parts = []
    for name, value in counts.items():
        if isinstance(value, dict) and value and all(isinstance(each, int) for each in value.values()):
            inner = ", ".join(f"{key} {each:,}" for key, each in list(value.items())[:6])
            parts.append(f"{name} ({inner}{', …' if len(value) > 6 else ''})")
        elif isinstance(value, bool | int | float):
            parts.append(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}")
        elif isinstance(value, list | dict) and value:
            parts.append(f"{name} {len(value)}")
        elif isinstance(value, str):
            parts.append(f"{name} {value}")
    return ", ".join(parts)
