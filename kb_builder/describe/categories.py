"""Category descriptions: every category asked about until it has its texts, is saturated, or at its limit.

All categories of all shards go through one pipeline (kb_builder/describe/fill.py). The plan depends only on
the settings, the categories and earlier answers, never on time or order. So a run that was killed and is
started again plans the same requests, finds those that were answered in the ledger, asks the rest, and ends
with the same tables.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from data.errors import KnowledgeBaseError
from data.sample import Category
from kb_builder.ask.asker import Asker, LedgerOnly
from kb_builder.ask.cost import add_cost
from kb_builder.ask.ledger import microseconds_now, open_ledger
from kb_builder.ask.session import AskingBar, open_asking
from kb_builder.describe.category import CategorySubject, Writing, make_writing
from kb_builder.describe.fill import fill
from kb_builder.describe.prompts import category_library, texts_per_request
from kb_builder.describe.shards import require_cited_answers
from kb_builder.describers.choose import make_describer
from kb_builder.encoders.tokens import MINILM
from kb_builder.gates.gate import CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import remove_beyond, write_part
from kb_builder.tables.schemas import read_rows

log = logging.getLogger(__name__)

_SHARD_REQUESTS = 1000  # a shard is a task and a file: minutes of work, not hours
_MOST_CATEGORIES = 500

FAILED_FOR_GOOD = (
    "%d requests failed for good, the first with: %s (`unibind describe --retry-failed` asks them again)"
)
OnShard = Callable[[int, dict[str, Any]], None]


def category_shard_count(kb: Path, settings: DescribeCategories) -> int:
    """How many shards the categories of a knowledge base make."""
    return math.ceil(len(read_categories(kb)) / categories_per_shard(settings))


def categories_per_shard(settings: DescribeCategories) -> int:
    """How many categories one shard holds: what the settings say, or what makes about 1,000 requests."""
    if settings.shard_categories is not None:
        return settings.shard_categories
    requests = math.ceil(settings.n / texts_per_request(settings))
    return max(1, min(_MOST_CATEGORIES, round(_SHARD_REQUESTS / requests)))


def describe_category_shard(
    kb: Path, shard: int, settings: DescribeCategories, *, run_id: str, encoder: str = MINILM
) -> dict[str, Any]:
    """`describe_category_shards` of one shard; returns its summary."""
    summaries: dict[int, dict[str, Any]] = {}
    describe_category_shards(
        kb, [shard], settings, run_id=run_id, on_shard=summaries.__setitem__, encoder=encoder
    )
    return summaries[shard]


def describe_category_shards(
    kb: Path,
    shards: Sequence[int],
    settings: DescribeCategories,
    *,
    run_id: str,
    on_shard: OnShard,
    asker: Asker | None = None,
    encoder: str = MINILM,
) -> None:
    """Describe the categories of these shards: writes `descriptions/category/part-NNNNN.parquet` of each.

    A part is written as soon as the shard's last category is done; then `on_shard(shard, summary)` is called,
    in a worker thread. The summary: categories, requests (of the whole plan), answered_from_ledger, ok,
    rejected (by status), `saturated`: {category_id: ok texts} of the categories that got fewer than n,
    spent_usd and saved_usd (None where a price is unknown).

    `encoder` names the text encoder that will read the texts. `asker` None opens the one that the settings
    ask for; one that is given must not be bound to another event loop. Raises `RunError` where the describer
    cannot go on; what was answered is kept, and the next call goes on from there.
    """
    asyncio.run(_describe(_CategoryJob(kb, tuple(shards), settings, run_id, on_shard, encoder), asker))


def replay_categories(
    kb: Path,
    shards: Sequence[int],
    settings: DescribeCategories,
    *,
    on_shard: OnShard,
    encoder: str = MINILM,
) -> None:
    """The same from the ledger alone: parse and judge again, ask nobody.

    A category whose next request was never answered ends there, with the rows that it has.
    """

    async def replay() -> None:
        async with open_ledger(kb) as ledger:
            job = _CategoryJob(kb, tuple(shards), settings, "", on_shard, encoder)
            await _describe(job, LedgerOnly(ledger))

    asyncio.run(replay())


@dataclass(frozen=True)
class _CategoryJob:
    kb: Path
    shards: tuple[int, ...]
    settings: DescribeCategories
    run_id: str
    on_shard: OnShard
    encoder: str


@dataclass
class _CategoryShard:
    """The finished categories of a shard that is not finished."""

    categories: Sequence[Category]
    done: dict[str, CategorySubject] = field(default_factory=dict)


async def _describe(job: _CategoryJob, asker: Asker | None) -> None:
    settings = job.settings
    require_cited_answers(job.kb, "category", "part")
    categories = read_categories(job.kb)
    size = categories_per_shard(settings)
    count = math.ceil(len(categories) / size)
    for shard in job.shards:
        if not 0 <= shard < count:
            raise ValueError(f"shard {shard} of {count}")
    shards = {shard: _CategoryShard(categories[shard * size : (shard + 1) * size]) for shard in job.shards}
    shard_of = {category.category_id: shard for shard, mine in shards.items() for category in mine.categories}
    describer = make_describer(settings)
    library = category_library(settings, job.kb)
    writing = make_writing(settings, describer, library, encoder=job.encoder, started=microseconds_now())

    def finish(texts: CategorySubject) -> None:
        shard = shard_of[texts.category.category_id]
        mine = shards[shard]
        mine.done[texts.category.category_id] = texts
        if len(mine.done) == len(mine.categories):
            del shards[shard]
            remove_beyond(job.kb, "category", "part", count)
            summary = _write(job.kb, shard, mine)
            log.info(
                "category descriptions: shard %d of %d, %d texts after %d requests",
                shard + 1,
                count,
                summary["ok"],
                summary["requests"],
            )
            job.on_shard(shard, summary)

    wanted = settings.n * len(shard_of)
    async with AsyncExitStack() as stack:
        bar = stack.enter_context(AskingBar("category descriptions", unit=" texts", total=wanted))
        if asker is None:
            asker = await stack.enter_async_context(
                open_asking(job.kb, describer, settings, run_id=job.run_id, bar=bar)
            )
        subjects = _subjects(categories, [mine.categories for mine in shards.values()], writing, bar)
        await fill(subjects, asker, on_done=finish)


def _subjects(
    categories: Sequence[Category],
    shards: Sequence[Sequence[Category]],
    writing: Writing,
    bar: AskingBar,
) -> Iterator[CategorySubject]:
    names = category_names(categories)
    for mine in shards:
        for category in mine:
            gate = CategoryGate(names[category.category_id], writing.rules)
            yield CategorySubject(category, gate, writing, wanted=writing.settings.n, on_ok=bar.add)


def _write(kb: Path, shard: int, mine: _CategoryShard) -> dict[str, Any]:
    """Write a shard's part, in the order of its categories; returns the summary."""
    done = [mine.done[category.category_id] for category in mine.categories]
    write_part(kb, "category", f"part-{shard:05d}", [row for texts in done for row in texts.rows])
    return summarise(done)


def summarise(done: Sequence[CategorySubject]) -> dict[str, Any]:
    """The counts that a shard reports; see `describe_category_shards`."""
    statuses = Counter(row["status"] for texts in done for row in texts.rows)
    failed = statuses["failed"]
    if failed:
        first = next(texts.first_error for texts in done if texts.first_error)
        log.warning(FAILED_FOR_GOOD, failed, first)
    costs: tuple[float | None, ...] = (0.0,)
    return {
        "categories": len(done),
        "requests": sum(texts.spending.requests for texts in done),
        "answered_from_ledger": sum(texts.spending.known for texts in done),
        "ok": statuses.pop("ok", 0),
        "rejected": dict(sorted(statuses.items())),
        "saturated": {texts.category.category_id: texts.ok for texts in done if texts.short},
        "spent_usd": reduce(add_cost, (*costs, *(texts.spending.spent_usd for texts in done))),
        "saved_usd": reduce(add_cost, (*costs, *(texts.spending.saved_usd for texts in done))),
    }


def read_categories(kb: Path) -> list[Category]:
    """The categories, by their ids. Raises KnowledgeBaseError where there are none yet."""
    path = kb / "categories.parquet"
    if not path.is_file():
        raise KnowledgeBaseError(f"{path} is missing: read in a manifest first (`unibind run` does)")
    rows = sorted(read_rows(path), key=lambda row: str(row["category_id"]))
    return [Category(**(row | {"aliases": tuple(row["aliases"])})) for row in rows]
