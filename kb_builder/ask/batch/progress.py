"""Progress of a batch run: counters, the state of the batches at the server, and one-line messages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from data.show import shorten
from kb_builder.ask.asker import Progress
from kb_builder.ask.batch.jobs import Job
from kb_builder.ask.endpoint.client import ChatClient

if TYPE_CHECKING:
    from openai.types import Batch

log = logging.getLogger(__name__)

NO_HURRY = "this may take up to a day: stop the command and run it again whenever you like"


class BatchProgress:
    """Counts of requests, and the reason why nothing arrives. Every change is reported to `on_progress`.

    `in_flight` counts requests in jobs, `spent_usd` is the cost so far (None: not known).
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        limit: int,
        in_flight: Callable[[], int],
        spent_usd: Callable[[], float | None],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.answered = self.from_ledger = self.failed = 0
        self.saved_usd = 0.0
        self.at_server: dict[str, Batch] = {}  # by id, as they were last seen; ended ones are removed
        self._client = client
        self._limit = limit
        self._in_flight = in_flight
        self._spent_usd = spent_usd
        self._on_progress = on_progress
        self._paused: str | None = None

    def pause(self, reason: str | None) -> None:
        """Report why nothing is sent; None: sending goes ahead."""
        self._paused = reason
        self.report()

    def say(self, text: str) -> None:
        """Log a warning. It may quote the server, so the API key is hidden in it."""
        log.warning("%s", shorten(self._client.hide(text)))

    def report(self) -> None:
        """Report all counters."""
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    answered=self.answered,
                    from_ledger=self.from_ledger,
                    failed=self.failed,
                    in_flight=self._in_flight(),
                    limit=self._limit,
                    spent_usd=self._spent_usd(),
                    saved_usd=self.saved_usd,
                    paused=self._paused or self._server_state(),
                )
            )

    def _server_state(self) -> str | None:
        """The batches that the server is working on, by status; None where there are none."""
        batches = self.at_server.values()
        if not batches:
            return None
        states = Counter(str(batch.status) for batch in batches)
        by_state = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
        answered, failed, total = map(sum, zip(*map(_counts, batches), strict=True))
        some = f", {answered + failed:,} of {total:,} requests done" if total else ""
        plural = "es" if len(batches) > 1 else ""
        text = f"waiting for {len(batches)} batch{plural} at the server ({by_state}){some}; {NO_HURRY}"
        return shorten(self._client.hide(text))


def end_line(batch: Batch, job: Job) -> str:
    """`batch b1 ended as completed: 40 requests (38 answered, 2 failed)`."""
    answered, failed, total = _counts(batch)
    counts = f" ({answered:,} answered, {failed:,} failed)" if total else ""
    return f"batch {batch.id} ended as {batch.status}: {job.requests:,} requests{counts}"


def _counts(batch: Batch) -> tuple[int, int, int]:
    """Requests answered, failed and in total; zeros where the server gives no counts."""
    answered, failed, total = (
        getattr(batch.request_counts, name, None) or 0 for name in ("completed", "failed", "total")
    )
    return answered, failed, total
