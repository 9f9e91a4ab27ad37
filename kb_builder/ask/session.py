"""An asker over a describer and the ledger, with a progress bar, for a stage."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from data.errors import RunError
from kb_builder.ask.asker import Asker, Progress
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.endpoint.parameters import changes_line, shape_for
from kb_builder.ask.endpoint.pool import Pool
from kb_builder.ask.ledger import Ledger, open_ledger
from kb_builder.ask.request import Describer
from kb_builder.ask.scheduler import open_asker
from kb_builder.settings import Asking

log = logging.getLogger(__name__)


class AskingBar:
    """A progress bar of texts, with the asker's progress beside it. Disabled without a terminal."""

    def __init__(self, title: str, *, unit: str, total: int) -> None:
        # miniters 0: after a burst of texts tqdm would wait for another burst before its next update.
        self._bar: Any = tqdm(desc=title, unit=unit, total=total, disable=None, miniters=0)

    def add(self, count: int) -> None:
        """Add `count` texts."""
        self._bar.update(count)

    def show(self, progress: Progress) -> None:
        """Show the asker's progress: requests, calls in flight, cost, and why it is paused."""
        if not self._bar.disable:
            self._bar.set_postfix_str(describe_progress(progress), refresh=False)
            self._bar.update(0)

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
    try:
        async with open_ledger(kb) as ledger, _open(kb, describer, ledger, settings, run_id, bar) as asker:
            yield asker
    finally:
        await describer.close()


def _open(
    kb: Path, describer: Describer, ledger: Ledger, settings: Asking, run_id: str, bar: AskingBar
) -> AbstractAsyncContextManager[Asker]:
    if settings.submit == "online":
        return open_asker(describer, ledger, settings=settings, run_id=run_id, on_progress=bar.show)
    if isinstance(describer, Pool):
        raise RunError('submit = "batch" needs a single `base_url`: a batch exists at one endpoint only')
    if not isinstance(describer, ChatClient) or describer.source != "online":
        raise RunError(f'submit = "batch" needs describer = "openai": {describer.provider} has no Batch API')
    from kb_builder.ask.batch.asker import open_batch_asker

    return open_batch_asker(kb, ledger, describer, settings=settings, run_id=run_id, on_progress=bar.show)
