"""Shards of a describe stage: the part of the three stages that is the same.

A stage describes *subjects* (categories, pairs of confusable categories, samples), which are divided into
shards. All shards of a call go through one pipeline (kb_builder/describe/fill.py), so the last slow answer of
one shard does not leave the endpoint idle. A shard is written as soon as its last subject is finished, and is
then forgotten: memory holds the shards in progress only.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from kb_builder.ask.asker import Asker, LedgerOnly
from kb_builder.ask.cost import Spending, add_cost
from kb_builder.ask.ledger import Entry, open_ledger
from kb_builder.ask.request import Describer, Request
from kb_builder.ask.session import AskingBar, open_asking
from kb_builder.describe.fill import Subject, fill
from kb_builder.settings import Asking
from kb_builder.tables.parts import remove_beyond

log = logging.getLogger(__name__)

OnShard = Callable[[int, dict[str, Any]], None]
_S = TypeVar("_S", bound=Subject)


class _Described(Protocol):
    """What is counted of a finished subject."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def spending(self) -> Spending: ...


@dataclass(frozen=True)
class ShardPlan(Generic[_S]):
    """What a stage describes, and how one of its shards is written."""

    title: str  # of the progress bar and the log
    unit: str  # of the progress bar
    total: int  # units
    kind: str  # the parts are `descriptions/<kind>/<prefix>-NNNNN.parquet`
    prefix: str
    count: int  # shards of the whole knowledge base: parts beyond them are removed
    sizes: Mapping[int, int]  # shard -> its number of subjects, of the shards to be described
    describer: Describer | None  # None: no subject plans a request
    subjects: Callable[[AskingBar], Generator[_S, None, None]]  # lazily, shard after shard
    shard_of: Callable[[_S], int]
    write: Callable[[int, list[_S]], dict[str, Any]]  # writes a shard's subjects; returns its summary
    first: Subject | None = None  # filled before the subjects, which may depend on it; it has no rows
    bar_steps: int = 0  # of the progress bar per finished subject; 0: subjects move the bar themselves


def shard_sizes(shards: Iterable[int], *, size: int, total: int) -> dict[int, int]:
    """The number of subjects in each of these shards, of `total` subjects in shards of `size`.

    Raises ValueError for a shard that does not exist.
    """
    shards, count = list(shards), math.ceil(total / size)
    for shard in shards:
        if not 0 <= shard < count:
            raise ValueError(f"there is no shard {shard}: {total} subjects make {count} shards of {size}")
    return {shard: min(size, total - shard * size) for shard in shards}


def describe_shards(
    kb: Path,
    plan: ShardPlan[Any],
    settings: Asking,
    *,
    run_id: str,
    on_shard: OnShard = lambda shard, summary: None,
    asker: Asker | None = None,
    replay: bool = False,
) -> dict[int, dict[str, Any]]:
    """Describe the subjects of a plan; returns the summary of each shard.

    `on_shard(shard, summary)` is called in a worker thread as soon as a shard is written. `asker` None opens
    the asker that `settings` describe; a given one must not be bound to another event loop. With `replay` the
    answers come from the ledger alone and nothing is sent: a subject whose next request was never answered
    ends there. Raises `RunError` where the describer fails for good: answers received until then are in the
    ledger, and the next call continues from them.
    """
    return asyncio.run(_describe(kb, plan, settings, run_id, on_shard, asker, replay))


async def _describe(
    kb: Path,
    plan: ShardPlan[_S],
    settings: Asking,
    run_id: str,
    on_shard: OnShard,
    asker: Asker | None,
    replay: bool,
) -> dict[int, dict[str, Any]]:
    done: dict[int, list[_S]] = defaultdict(list)
    summaries: dict[int, dict[str, Any]] = {}

    def finish(subject: _S) -> None:
        bar.add(plan.bar_steps)
        shard = plan.shard_of(subject)
        done[shard].append(subject)
        if len(done[shard]) < plan.sizes[shard]:
            return
        remove_beyond(kb, plan.kind, plan.prefix, plan.count)
        summary = plan.write(shard, done.pop(shard))
        texts, requests = summary["ok"], summary["requests"]
        log.info(
            "%s: shard %d of %d, %d texts after %d requests",
            plan.title,
            shard + 1,
            plan.count,
            texts,
            requests,
        )
        summaries[shard] = summary
        on_shard(shard, summary)

    async with AsyncExitStack() as stack:
        bar = stack.enter_context(AskingBar(plan.title, unit=plan.unit, total=plan.total))
        if asker is None and replay:
            asker = LedgerOnly(await stack.enter_async_context(open_ledger(kb)))
        elif asker is None and plan.describer is not None:
            asker = await stack.enter_async_context(
                open_asking(kb, plan.describer, settings, run_id=run_id, bar=bar)
            )
        if plan.first is not None:
            await fill([plan.first], asker or _NoAsker(), on_done=lambda subject: None)
        subjects = stack.enter_context(closing(plan.subjects(bar)))
        await fill(subjects, asker or _NoAsker(), on_done=finish)
    return summaries


class _NoAsker:
    """An `Asker` for describers that send nothing: their subjects plan no request."""

    window = 1

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """No answers."""
        return [None for _ in requests]


def count_texts(done: Sequence[_Described]) -> dict[str, Any]:
    """The counts that every stage reports of its finished subjects; failed requests are logged.

    `requests` (of the whole plan), `answered_from_ledger`, `ok`, `rejected` (by status), and `spent_usd` and
    `saved_usd`, which are None where a price is unknown.
    """
    statuses = Counter(str(row["status"]) for subject in done for row in subject.rows)
    if failed := statuses["failed"]:
        first = next(row["reason"] for each in done for row in each.rows if row["status"] == "failed")
        log.warning(
            "%d requests failed for good, the first with: %s "
            "(`unibind describe --retry-failed` asks them again)",
            failed,
            first,
        )
    free: tuple[float | None, ...] = (0.0,)
    return {
        "requests": sum(subject.spending.requests for subject in done),
        "answered_from_ledger": sum(subject.spending.known for subject in done),
        "ok": statuses.pop("ok", 0),
        "rejected": dict(sorted(statuses.items())),
        "spent_usd": reduce(add_cost, (*free, *(subject.spending.spent_usd for subject in done))),
        "saved_usd": reduce(add_cost, (*free, *(subject.spending.saved_usd for subject in done))),
    }
