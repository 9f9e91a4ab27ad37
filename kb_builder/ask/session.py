"""An asker over a describer and the ledger, with a progress bar, for a stage."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tqdm import tqdm

from data.errors import RunError
from data.files import write_json
from data.progress import Step
from kb_builder.ask.asker import Asker, Progress
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.endpoint.parameters import changes_line, shape_for
from kb_builder.ask.endpoint.pool import Pool
from kb_builder.ask.ledger import Ledger, open_ledger
from kb_builder.ask.request import Describer
from kb_builder.ask.scheduler import open_asker
from kb_builder.settings import Asking

log = logging.getLogger(__name__)

_PAUSED = ".paused-"  # hidden: no part of what the knowledge base holds


class AskingBar:
    """A progress bar of texts, with the asker's progress beside it. Disabled without a terminal."""

    def __init__(self, title: str, *, unit: str, total: int) -> None:
        # miniters 0: after a burst of texts tqdm would wait for another burst before its next update.
        self._bar: Any = tqdm(desc=title, unit=unit, total=total, disable=None, miniters=0)
        self._step = Step(title, total=total)

    def add(self, count: int) -> None:
        """Add `count` texts."""
        self._bar.update(count)
        self._step.add(count)

    def show(self, progress: Progress) -> None:
        """Show the asker's progress: requests, calls in flight, cost, and why it is paused."""
        if not self._bar.disable:
            self._bar.set_postfix_str(describe_progress(progress), refresh=False)
            self._bar.update(0)
        if self._step.watched:
            self._step.say(describe_progress(progress))

    def __enter__(self) -> AskingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def describe_progress(progress: Progress) -> str:
    """`paused: …, 1,204 requests, 300 known, 56/256 in flight, $1.20 spent, $0.40 saved`.

    The pause comes first: a narrow terminal cuts the end.
    """
    parts = [] if progress.paused is None else [f"paused: {progress.paused}"]
    parts.append(f"{progress.answered:,} requests")
    if progress.from_ledger:
        parts.append(f"{progress.from_ledger:,} known")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    parts.append(f"{progress.in_flight}/{progress.limit} in flight")
    if progress.spent_usd is not None:
        parts.append(f"${progress.spent_usd:.2f} spent")
    if progress.saved_usd:
        parts.append(f"${progress.saved_usd:.2f} saved")
    return ", ".join(parts)


class PauseNote:
    """A small file beside the ledger while every request is paused, for who watches from another process.

    The file of a process that was killed stays; `pauses` leaves out what is older than the run at work.
    """

    def __init__(self, kb: Path, then: Callable[[Progress], None]) -> None:
        self._path = kb / f"{_PAUSED}{os.getpid()}.json"
        self._then = then
        self._why: str | None = None

    def __call__(self, progress: Progress) -> None:
        """Note a pause when it begins, and take the note away when it ends; then show the progress."""
        if progress.paused != self._why:
            self._why = progress.paused
            if self._why is None:
                self.close()
            else:
                write_json(self._path, {"why": self._why, "since": time.time()})
        self._then(progress)

    def close(self) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)


class Pause(NamedTuple):
    """Why nothing is asked, and since when (seconds since 1970)."""

    why: str
    since: float


def pauses(kb: Path, *, after: float) -> list[Pause]:
    """The pauses that processes have noted since `after` (seconds since 1970) and not ended."""
    found = []
    for path in sorted(kb.glob(f"{_PAUSED}*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            pause = Pause(str(note["why"]), float(note["since"]))
        except (OSError, ValueError, KeyError, TypeError):  # it ended meanwhile
            continue
        if pause.since >= after:
            found.append(pause)
    return found


@asynccontextmanager
async def open_asking(
    kb: Path, describer: Describer, settings: Asking, *, run_id: str, bar: AskingBar
) -> AsyncIterator[Asker]:
    """An asker over the knowledge base's ledger, by `settings.submit`. It closes the describer too."""
    endpoint, model = describer.endpoint, describer.model
    line = changes_line(
        settings, shape_for(settings, endpoint=endpoint, model=model), endpoint=endpoint, model=model
    )
    if line is not None:
        log.warning("%s", line)
    note = PauseNote(kb, bar.show)
    try:
        async with open_ledger(kb) as ledger, _open(kb, describer, ledger, settings, run_id, note) as asker:
            yield asker
    finally:
        note.close()
        await describer.close()


def _open(
    kb: Path, describer: Describer, ledger: Ledger, settings: Asking, run_id: str, note: PauseNote
) -> AbstractAsyncContextManager[Asker]:
    if settings.submit == "online":
        return open_asker(describer, ledger, settings=settings, run_id=run_id, on_progress=note)
    if isinstance(describer, Pool):
        raise RunError('submit = "batch" needs a single `base_url`: a batch exists at one endpoint only')
    if not isinstance(describer, ChatClient) or describer.source != "online":
        raise RunError(f'submit = "batch" needs describer = "openai": {describer.provider} has no Batch API')
    from kb_builder.ask.batch.asker import open_batch_asker

    return open_batch_asker(kb, ledger, describer, settings=settings, run_id=run_id, on_progress=note)
