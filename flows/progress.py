"""Progress artifacts: how far each long step of a stage is, renewed every few seconds.

The steps count in their own threads (data/progress.py); one thread tells the server, so that a server that is
slow or away delays no work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from data.progress import StepProgress, steps_watched
from flows.markdown import plain, slug

EVERY_S = 5.0
_STOP_S = 20.0  # for the last word to reach the server
_made: dict[tuple[UUID, str], UUID] = {}  # flow run, key -> artifact: several tasks may share one


@contextmanager
def progress_shown(name: str, *, part: int = 0, parts: int = 1) -> Iterator[None]:
    """Show the steps of the block as artifacts of this flow run, their keys beginning with `progress-NAME`.

    `part` of `parts`: the block's share of each step, where shards are tasks of their own. Outside a flow run
    nothing is shown.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    task = TaskRunContext.get()
    shown = _Shown(name, context.flow_run.id, task.task_run.id if task else None, part, parts)
    stopped = threading.Event()

    def tell_now_and_then() -> None:
        reported = False
        with get_client(sync_client=True) as client:
            while True:
                last = stopped.wait(EVERY_S)
                try:
                    shown.tell(client)
                    reported = False
                except Exception as error:  # the server is away; the run goes on without it
                    if not reported:
                        logger.warning("progress is not shown: %s", type(error).__name__)
                    reported = True
                if last:
                    return

    logger = get_run_logger()
    settings = copy_context()  # Prefect's, which are of the context
    teller = threading.Thread(target=settings.run, args=(tell_now_and_then,), name="progress", daemon=True)
    teller.start()
    try:
        with steps_watched(shown.note):
            yield
        shown.end()
    finally:
        stopped.set()
        teller.join(_STOP_S)


class _Shown:
    """The latest progress of every step, and what the server knows of it."""

    def __init__(self, name: str, flow_run: UUID, task_run: UUID | None, part: int, parts: int) -> None:
        self._name, self._flow_run, self._task_run = name, flow_run, task_run
        self._part, self._parts = part, parts
        self._latest: dict[str, StepProgress] = {}
        self._told: dict[str, tuple[float, str]] = {}
        self._ended = False

    def note(self, progress: StepProgress) -> None:
        self._latest[progress.title] = progress

    def end(self) -> None:
        """The block has ended well: every step of it is done, also one that needed less than was planned."""
        self._ended = True

    def tell(self, client: SyncPrefectClient) -> None:
        """Tell the server what has changed since the last time."""
        for title, progress in list(self._latest.items()):
            if not progress.total:
                continue
            share = 1.0 if self._ended else min(1.0, progress.done / progress.total)
            percent = round(100.0 * (self._part + share) / self._parts, 1)
            shard = f", shard {self._part + 1} of {self._parts}" if self._parts > 1 else ""
            words = f": {progress.words}" if progress.words else ""
            text = plain(f"{title}{shard}, {progress.done:,} of {progress.total:,}{words}")
            if self._told.get(title) == (percent, text):
                continue
            self._send(client, f"progress-{slug(f'{self._name}-{title}')}", percent, text)
            self._told[title] = (percent, text)

    def _send(self, client: SyncPrefectClient, key: str, percent: float, text: str) -> None:
        known = _made.get((self._flow_run, key))
        if known is not None:
            client.update_artifact(known, ArtifactUpdate(data=percent, description=text))
            return
        made = client.create_artifact(
            ArtifactCreate(
                key=key,
                type="progress",
                description=text,
                data=percent,
                flow_run_id=self._flow_run,
                task_run_id=self._task_run,
            )
        )
        _made[(self._flow_run, key)] = made.id
