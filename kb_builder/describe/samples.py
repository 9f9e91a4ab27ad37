"""Texts about samples: what the manifest says of them, what can be measured, or what a model says of them.

A sample whose description was given is described no further, unless the given text is too long for the text
encoder: then that row stays as `too_long` and the describer's stands beside it. A text sample is its own
description, whoever describes the others. For every other sample a model is asked up to `tries` times, each
time with another prompt and seed, until a text passes the gates; rejected texts stay with their reason.
Samples that are described alike have the same text, each with a row of its own and status `ok`: the text is
true of each of them, and the embedding store encodes it once.

A file that cannot be read is turned away with its reason (`rejects/describe-NNNNN.parquet`) and recorded
nowhere else: no request was sent for it, so a file that is mended is asked about in the next run.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import KnowledgeBaseError
from data.paths import resolver
from kb_builder.ask.asker import Asker, LedgerOnly
from kb_builder.ask.cost import add_cost
from kb_builder.ask.endpoint.parameters import shape_for
from kb_builder.ask.ledger import Entry, microseconds_now, open_ledger
from kb_builder.ask.request import Request
from kb_builder.ask.session import AskingBar, open_asking
from kb_builder.describe.categories import FAILED_FOR_GOOD, read_categories
from kb_builder.describe.fill import fill
from kb_builder.describe.sample import GIVEN, Row, SampleJob, SampleSubject
from kb_builder.describe.shards import require_cited_answers
from kb_builder.describers.choose import make_describer
from kb_builder.describers.media import MediaFiles
from kb_builder.encoders.tokens import MINILM, token_counter
from kb_builder.gates.faithful import category_phrases
from kb_builder.settings import TRAITS, DescribeSamples
from kb_builder.tables.parts import remove_beyond, write_part
from kb_builder.tables.schemas import (
    REJECTS,
    SAMPLES,
    read_columns,
    read_rows,
    remove_parts_beyond,
    write_table,
)

STAGE = "describe"
log = logging.getLogger(__name__)

OnShard = Callable[[int, dict[str, Any]], None]


def sample_shard_count(kb: Path, settings: DescribeSamples) -> int:
    """How many shards the samples of a knowledge base make."""
    return math.ceil(len(_read_samples(kb)) / settings.shard_samples)


def describe_sample_shard(
    kb: Path, data_root: Path, shard: int, settings: DescribeSamples, *, run_id: str, encoder: str = MINILM
) -> dict[str, Any]:
    """`describe_sample_shards` of one shard; returns its summary."""
    done: dict[int, dict[str, Any]] = {}
    describe_sample_shards(
        kb, data_root, [shard], settings, run_id=run_id, on_shard=done.__setitem__, encoder=encoder
    )
    return done[shard]


def describe_sample_shards(
    kb: Path,
    data_root: Path,
    shards: Sequence[int],
    settings: DescribeSamples,
    *,
    run_id: str,
    on_shard: OnShard,
    asker: Asker | None = None,
    encoder: str = MINILM,
) -> None:
    """Describe the samples of these shards: writes `descriptions/sample/part-NNNNN.parquet` of each.

    A part (sorted by sample_id) and `rejects/describe-NNNNN.parquet` are written as soon as the shard's last
    sample is done; then `on_shard(shard, summary)` is called, in a worker thread. The summary: samples,
    requests, answered_from_ledger, ok, given (rows from the manifest), without_text (samples that have no
    `ok` text), rejected (by status, and `unreadable`), spent_usd and saved_usd (None where a price is
    unknown).

    `encoder` names the text encoder that will read the texts. `asker` None opens the one that the settings
    ask for, if any; one that is given must not be bound to another event loop. Raises `RunError` where a
    describer cannot go on: what was answered is kept, and the next call goes on from there.
    """
    run = _Run(kb, data_root, tuple(shards), settings, run_id, on_shard, encoder)
    asyncio.run(_describe(run, asker, turned_away={}))


def replay_samples(
    kb: Path,
    data_root: Path,
    shards: Sequence[int],
    settings: DescribeSamples,
    *,
    run_id: str,
    on_shard: OnShard,
    encoder: str = MINILM,
) -> None:
    """The same from the ledger alone: parse and judge again, ask nobody.

    A sample whose next request was never answered ends there, with the rows that it has and, where it was
    turned away before, with that reason. Facts are measured again.
    """

    async def replay() -> None:
        async with open_ledger(kb) as ledger:
            run = _Run(kb, data_root, tuple(shards), settings, run_id, on_shard, encoder)
            await _describe(run, LedgerOnly(ledger), turned_away=_read_rejects(kb))

    asyncio.run(replay())


@dataclass(frozen=True)
class _Run:
    kb: Path
    data_root: Path
    shards: tuple[int, ...]
    settings: DescribeSamples
    run_id: str
    on_shard: OnShard
    encoder: str


@dataclass
class _SampleShard:
    """The finished samples of a shard that is not finished."""

    size: int
    done: list[SampleSubject] = field(default_factory=list)


async def _describe(run: _Run, asker: Asker | None, *, turned_away: Mapping[str, str]) -> None:
    settings, size = run.settings, run.settings.shard_samples
    require_cited_answers(run.kb, "sample", "part")
    samples = _read_samples(run.kb)
    count = math.ceil(len(samples) / size)
    for shard in run.shards:
        if not 0 <= shard < count:
            raise ValueError(f"shard {shard} of {count}")
    job = _make_job(run, samples, turned_away)
    shards: dict[int, _SampleShard] = {}

    def subjects() -> Iterator[SampleSubject]:
        for number in run.shards:
            rows = samples.slice(number * size, size).to_pylist()
            shards[number] = _SampleShard(len(rows))
            for row in rows:
                yield SampleSubject(job, number, row)

    def finish(texts: SampleSubject) -> None:
        bar.add(1)
        shard = shards[texts.shard]
        shard.done.append(texts)
        if len(shard.done) == shard.size:
            del shards[texts.shard]
            remove_beyond(run.kb, "sample", "part", count)
            remove_parts_beyond((run.kb / "rejects").glob(f"{STAGE}-*.parquet"), count)
            summary = _write(run.kb, texts.shard, shard.done)
            log.info("sample descriptions: shard %d of %d, %d texts", texts.shard + 1, count, summary["ok"])
            run.on_shard(texts.shard, summary)

    total = sum(min(size, len(samples) - number * size) for number in run.shards)
    async with AsyncExitStack() as stack:
        bar = stack.enter_context(AskingBar("sample descriptions", unit=" samples", total=total))
        if asker is None and job.describer is not None:
            asker = await stack.enter_async_context(
                open_asking(run.kb, job.describer, settings, run_id=run.run_id, bar=bar)
            )
        ready = stack.enter_context(closing(_measured(subjects())))
        await fill(ready, asker or _Nobody(), on_done=finish)


def _make_job(run: _Run, samples: pa.Table, turned_away: Mapping[str, str]) -> SampleJob:
    contents = zip(samples["sha256"].to_pylist(), samples["uri"].to_pylist(), strict=True)
    files = MediaFiles(run.data_root, contents)
    traits = TRAITS[run.settings.describer]
    describer = make_describer(run.settings, files=files) if traits.asks_model else None
    return SampleJob(
        settings=run.settings,
        describer=describer,
        shape=shape_for(run.settings, endpoint=describer.endpoint, model=describer.model)
        if describer
        else None,
        files=files,
        locate=resolver(run.data_root),
        given={row["sample_id"]: row["text"] for row in read_rows(run.kb / "given_descriptions.parquet")},
        names=category_phrases(read_categories(run.kb) if traits.phrases_facts else ()),
        turned_away=turned_away,
        tokens=token_counter(run.encoder),
        started=microseconds_now(),
        run_id=run.run_id,
    )


def _measured(subjects: Iterator[SampleSubject]) -> Generator[SampleSubject, None, None]:
    """The subjects in order, those measured whose facts are needed; a few files are read ahead.

    Threads: decoding and array work let go of the interpreter lock, and no more than one decoded sample per
    thread is in memory.
    """
    threads = os.cpu_count() or 1
    ahead: deque[tuple[SampleSubject, Future[None] | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="measure") as pool:
        try:
            for subject in subjects:
                ahead.append((subject, pool.submit(subject.measure) if subject.needs_facts else None))
                if len(ahead) > 4 * threads:
                    yield _once_measured(*ahead.popleft())
            while ahead:
                yield _once_measured(*ahead.popleft())
        finally:
            for _, measuring in ahead:
                if measuring is not None:
                    measuring.cancel()


def _once_measured(subject: SampleSubject, measuring: Future[None] | None) -> SampleSubject:
    if measuring is not None:
        measuring.result()
    return subject


class _Nobody:
    """The asker of describers that ask nobody: no subject of theirs plans a request."""

    window = 1

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """Nothing was asked."""
        return [None for _ in requests]


def _write(kb: Path, number: int, done: Sequence[SampleSubject]) -> dict[str, Any]:
    """Write a shard's part and its rejects; returns the summary."""
    done = sorted(done, key=lambda texts: str(texts.sample["sample_id"]))
    # Within a sample by source; the sort is stable, so tries keep their order.
    rows: list[Row] = [
        row for texts in done for row in sorted(texts.rows, key=lambda row: str(row["source"]))
    ]
    write_part(kb, "sample", f"part-{number:05d}", rows)
    rejects = [
        {"sample_id": texts.sample["sample_id"], "stage": STAGE, "reason": texts.unreadable}
        for texts in done
        if texts.unreadable is not None
    ]
    write_table(kb / "rejects" / f"{STAGE}-{number:05d}.parquet", rejects, REJECTS)
    statuses = Counter(str(row["status"]) for row in rows)
    ok = statuses.pop("ok", 0)
    if rejects:
        statuses["unreadable"] = len(rejects)
        first = rejects[0]["reason"]
        log.warning("sample descriptions: %d unreadable samples. The first: %s", len(rejects), first)
    if statuses["failed"]:
        first = next(row["reason"] for row in rows if row["status"] == "failed")
        log.warning(FAILED_FOR_GOOD, statuses["failed"], first)
    nothing: tuple[float | None, ...] = (0.0,)
    return {
        "samples": len(done),
        "requests": sum(texts.spending.requests for texts in done),
        "answered_from_ledger": sum(texts.spending.known for texts in done),
        "ok": ok,
        "given": sum(row["source"] == GIVEN.source for row in rows),
        "without_text": sum(not texts.is_described for texts in done),
        "rejected": dict(sorted((+statuses).items())),
        "spent_usd": reduce(add_cost, (*nothing, *(texts.spending.spent_usd for texts in done))),
        "saved_usd": reduce(add_cost, (*nothing, *(texts.spending.saved_usd for texts in done))),
    }


def _read_samples(kb: Path) -> pa.Table:
    """The samples in the order of their ids: a compact table, whose rows are taken shard by shard."""
    path = kb / "samples.parquet"
    if not path.is_file():
        raise KnowledgeBaseError(f"{path} is missing: read in a manifest first (`unibind run` does)")
    table = read_columns(
        path,
        ["sample_id", "modality", "uri", "sha256"],
        hint="unibind ingest",
        optional=[SAMPLES.field("up")],
    )
    return table.sort_by("sample_id")


def _read_rejects(kb: Path) -> dict[str, str]:
    """Who was turned away by an earlier run of this stage, and why."""
    parts = sorted((kb / "rejects").glob(f"{STAGE}-*.parquet"))
    return {row["sample_id"]: row["reason"] for part in parts for row in read_rows(part)}
