"""Everything the server remembers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from kb_builder.fake_openai.limits import Budget, budgets
from kb_builder.fake_openai.records import Batch, File
from kb_builder.fake_openai.settings import FakeSettings
from kb_builder.fake_openai.stats import Stats


@dataclass
class State:
    """Counters, budgets, files and batches. `log`, if any, gets a line for each answer."""

    settings: FakeSettings
    log: Path | None = None
    stats: Stats = field(default_factory=Stats)
    budgets: tuple[Budget, ...] = field(init=False)
    accepted: int = 0  # requests that were let through, for the quota
    files: dict[str, File] = field(default_factory=dict)  # by id, oldest first
    batches: dict[str, Batch] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # one for each batch at work

    def __post_init__(self) -> None:
        self.budgets = budgets(self.settings)

    def forget(self) -> None:
        """Be as at the start: counters at zero, budgets full, no files, no batches, clocks at zero."""
        self.stop()
        self.stats, self.budgets, self.accepted = Stats(), budgets(self.settings), 0
        self.files, self.batches = {}, {}

    def stop(self) -> None:
        """Give up the batches at work."""
        for task in self.tasks:
            task.cancel()


STATE: web.AppKey[State] = web.AppKey("state", State)
