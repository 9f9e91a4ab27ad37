"""Sample descriptions: a text for each sample, given in the manifest, measured, or written by a model.

A sample with a given description is asked about no further, unless that text is too long for the text
encoder: then its row has status `too_long`, and the describer adds another. A text sample is its own
description, whichever describer is chosen. For every other sample a model is asked up to `tries` times, each
time with another prompt and seed, until a text passes the gates; rejected texts are kept with their reason.
Equal texts of several samples are all `ok`: each is true of its sample, and the embedding store encodes it
once.

A file that cannot be read is rejected with its reason in `rejects/describe-NNNNN.parquet` only. No request
was sent for it, so once the file is repaired the next run asks about it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import KnowledgeBaseError
from data.paths import resolver
from data.readers.sandbox.budget import FileBudget
from data.work import Carry
from kb_builder.ask.asker import Asker
from kb_builder.ask.endpoint.parameters import shape_for
from kb_builder.ask.ledger import microseconds_now
from kb_builder.describe.categories import read_categories
from kb_builder.describe.cited import require_cited_answers
from kb_builder.describe.measuring import MeasureWork, measured
from kb_builder.describe.sample import GIVEN, SampleJob, SampleSubject
from kb_builder.describe.shards import OnShard, ShardPlan, count_texts, describe_shards, shard_sizes
from kb_builder.describers.choose import make_describer
from kb_builder.describers.media import MediaFiles
from kb_builder.encoders.tokens import token_counter
from kb_builder.gates.faithful import category_phrases
from kb_builder.settings import TRAITS, DescribeSamples
from kb_builder.tables.parts import write_part
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


def sample_shard_count(kb: Path, settings: DescribeSamples) -> int:
    """How many shards the samples of a knowledge base make."""
    return math.ceil(len(_read_samples(kb)) / settings.shard_samples)


def describe_sample_shards(
    kb: Path,
    data_root: Path,
    shards: Sequence[int],
    settings: DescribeSamples,
    *,
    run_id: str,
    encoder: str,
    on_shard: OnShard = lambda shard, summary: None,
    asker: Asker | None = None,
    replay: bool = False,
    carry: Carry | None = None,
    budget: FileBudget | None = None,
) -> dict[int, dict[str, Any]]:
    """Describe the samples of these shards: writes `descriptions/sample/part-NNNNN.parquet` of each.

    A part (sorted by sample_id) comes with `rejects/describe-NNNNN.parquet`. `encoder` names the text encoder
    that will read the texts; `on_shard`, `asker`, `replay` and RunError as in `describe_shards`. `carry`:
    where samples are measured, with this `budget`, for describers that measure; None: in this process. In a
    replay facts are measured again, and a sample without an answer keeps the reason for which an earlier run
    rejected its file, if any. Returns the summary of each shard: `samples`, `given` (rows from the manifest),
    `without_text` (samples that have no `ok` text), and the counts of `count_texts`, whose `rejected` also
    counts `unreadable` files.

    Raises ValueError for a shard that does not exist, and KnowledgeBaseError where there are no samples yet
    or the ledger lacks answers that the present parts cite.
    """
    require_cited_answers(kb, "sample", "part")
    samples = _read_samples(kb)
    size = settings.shard_samples
    sizes = shard_sizes(shards, size=size, total=len(samples))
    count = math.ceil(len(samples) / size)
    rejected = _read_rejects(kb) if replay else {}
    job = _make_job(kb, data_root, samples, settings, run_id=run_id, encoder=encoder, rejected=rejected)

    def unmeasured() -> Iterator[SampleSubject]:
        for shard in sizes:
            for row in samples.slice(shard * size, size).to_pylist():
                yield SampleSubject(job, shard, row)

    def write(shard: int, done: list[SampleSubject]) -> dict[str, Any]:
        remove_parts_beyond((kb / "rejects").glob(f"{STAGE}-*.parquet"), count)
        return _write(kb, shard, sorted(done, key=lambda subject: str(subject.sample["sample_id"])))

    work, measures = MeasureWork(data_root, budget or FileBudget()), TRAITS[settings.describer].measures
    plan = ShardPlan(
        title="sample descriptions",
        unit=" samples",
        total=sum(sizes.values()),
        kind="sample",
        prefix="part",
        count=count,
        sizes=sizes,
        describer=job.describer,
        subjects=lambda bar: measured(unmeasured(), sum(sizes.values()), work, carry if measures else None),
        shard_of=lambda subject: subject.shard,
        write=write,
        bar_steps=1,
    )
    return describe_shards(kb, plan, settings, run_id=run_id, on_shard=on_shard, asker=asker, replay=replay)


def _make_job(
    kb: Path,
    data_root: Path,
    samples: pa.Table,
    settings: DescribeSamples,
    *,
    run_id: str,
    encoder: str,
    rejected: Mapping[str, str],
) -> SampleJob:
    contents = zip(samples["sha256"].to_pylist(), samples["uri"].to_pylist(), strict=True)
    files = MediaFiles(data_root, contents)
    traits = TRAITS[settings.describer]
    describer = make_describer(settings, files=files) if traits.asks_model else None
    shape = shape_for(settings, endpoint=describer.endpoint, model=describer.model) if describer else None
    return SampleJob(
        settings=settings,
        describer=describer,
        shape=shape,
        files=files,
        locate=resolver(data_root),
        given={row["sample_id"]: row["text"] for row in read_rows(kb / "given_descriptions.parquet")},
        names=category_phrases(read_categories(kb) if traits.phrases_facts else ()),
        rejected=rejected,
        tokens=token_counter(encoder),
        started=microseconds_now(),
        run_id=run_id,
    )


def _write(kb: Path, shard: int, done: Sequence[SampleSubject]) -> dict[str, Any]:
    """Write a shard's part and its rejects; returns the summary."""
    write_part(kb, "sample", f"part-{shard:05d}", [row for subject in done for row in subject.rows])
    rejects = [
        {"sample_id": subject.sample["sample_id"], "stage": STAGE, "reason": subject.unreadable}
        for subject in done
        if subject.unreadable is not None
    ]
    write_table(kb / "rejects" / f"{STAGE}-{shard:05d}.parquet", rejects, REJECTS)
    counts = count_texts(done)
    if rejects:
        counts["rejected"] = dict(sorted({**counts["rejected"], "unreadable": len(rejects)}.items()))
        first = rejects[0]["reason"]
        log.warning("sample descriptions: %d unreadable samples. The first: %s", len(rejects), first)
    return {
        "samples": len(done),
        **counts,
        "given": sum(row["source"] == GIVEN.source for subject in done for row in subject.rows),
        "without_text": sum(not subject.is_described for subject in done),
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
    """sample_id -> why an earlier run of this stage rejected the sample's file."""
    parts = sorted((kb / "rejects").glob(f"{STAGE}-*.parquet"))
    return {row["sample_id"]: row["reason"] for part in parts for row in read_rows(part)}
