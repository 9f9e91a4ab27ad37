"""Texts about samples: what the manifest says of them, else what can be measured.

A sample whose description was given is not measured, unless the given text is too long for the text encoder:
then that row stays as `too_long` and the describer's stands beside it. Samples that measure alike have the
same text, each with a row of its own and status `ok`: the text is true of each of them, and the embedding
store encodes it once.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import KnowledgeBaseError, SampleError
from data.files import hash_json
from data.paths import resolver
from data.readers import read
from data.sample import Reject
from kb_builder.facts import FACTS_VERSION, measure
from kb_builder.fake import fake_text
from kb_builder.rows import description_row
from kb_builder.schemas import DESCRIPTIONS, REJECTS, read_rows, remove_parts_beyond, write_table
from kb_builder.settings import DescribeSamples
from kb_builder.tokens import TOKEN_LIMIT, count_tokens

STAGE = "describe"
log = logging.getLogger(__name__)

# A measurement is a function of the file and the version alone. Its rows carry no wall clock: measuring
# again gives the same bytes, and nothing downstream is done again.
_NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Source:
    """Who wrote a text: the columns that are the same for all rows of one describer."""

    source: str
    provider: str
    model: str
    version: str


_GIVEN = _Source("manifest", provider="manifest", model="given", version="1")
_FACTS = _Source("facts", provider="unibind", model=f"facts-{FACTS_VERSION}", version=FACTS_VERSION)
_FAKE = _Source("fake", provider="unibind", model="fake-1", version="1")


def sample_shard_count(kb: Path, settings: DescribeSamples) -> int:
    """How many shards the samples of a knowledge base make."""
    return math.ceil(len(_read_samples(kb)) / settings.shard_samples)


def describe_sample_shard(
    kb: Path, data_root: Path, shard: int, settings: DescribeSamples, *, run_id: str
) -> dict[str, Any]:
    """Describe one shard's samples: writes `descriptions/sample/part-NNNNN.parquet`, sorted by sample_id.

    A sample that cannot be read goes to `rejects/describe-NNNNN.parquet` with its reason. Returns counts:
    samples, ok, given (rows from the manifest), and rejected (by `unreadable` or status).
    """
    every = _read_samples(kb)
    count = math.ceil(len(every) / settings.shard_samples)
    if not 0 <= shard < count:
        raise ValueError(f"shard {shard} of {count}")
    samples = every[shard * settings.shard_samples : (shard + 1) * settings.shard_samples]
    given = {row["sample_id"]: row["text"] for row in read_rows(kb / "given_descriptions.parquet")}
    rows = _rows([(s, given[s["sample_id"]]) for s in samples if s["sample_id"] in given], _GIVEN, run_id)
    described = {row["sample_id"] for row in rows if row["status"] == "ok"}
    missing = [sample for sample in samples if sample["sample_id"] not in described]
    made, rejects = _DESCRIBE[settings.describer](missing, data_root, run_id)
    rows = sorted(rows + made, key=lambda row: (row["sample_id"], row["source"]))
    remove_parts_beyond((kb / "descriptions" / "sample").glob("part-*.parquet"), count)
    remove_parts_beyond((kb / "rejects").glob(f"{STAGE}-*.parquet"), count)
    write_table(kb / "descriptions" / "sample" / f"part-{shard:05d}.parquet", rows, DESCRIPTIONS)
    rejected = [{"sample_id": r.sample_id, "stage": r.stage, "reason": r.reason} for r in rejects]
    write_table(kb / "rejects" / f"{STAGE}-{shard:05d}.parquet", rejected, REJECTS)
    statuses = Counter(str(row["status"]) for row in rows)
    ok = statuses.pop("ok", 0)
    if rejects:
        statuses["unreadable"] = len(rejects)
        log.warning(
            "sample descriptions: %d unreadable samples. The first: %s", len(rejects), rejects[0].reason
        )
    log.info("sample descriptions: shard %d of %d, %d texts", shard + 1, count, ok)
    return {
        "samples": len(samples),
        "ok": ok,
        "given": sum(row["source"] == _GIVEN.source for row in rows),
        "rejected": dict(sorted(statuses.items())),
    }


_Described = tuple[list[dict[str, Any]], list[Reject]]


def _by_facts(samples: list[dict[str, Any]], data_root: Path, run_id: str) -> _Described:
    texts: list[tuple[dict[str, Any], str]] = []
    rejects: list[Reject] = []
    for sample, outcome in _measure_all(samples, data_root):
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            texts.append((sample, outcome))
    return _rows(texts, _FACTS, run_id), rejects


def _by_fake(samples: list[dict[str, Any]], data_root: Path, run_id: str) -> _Described:
    question = 'What does the "{} sample" show?'
    texts = [
        (sample, fake_text((("user", question.format(sample["modality"])),), sample["sample_id"]))
        for sample in samples
    ]
    return _rows(texts, _FAKE, run_id), []


def _by_none(samples: list[dict[str, Any]], data_root: Path, run_id: str) -> _Described:
    return [], []


_DESCRIBE: dict[str, Callable[[list[dict[str, Any]], Path, str], _Described]] = {
    "facts": _by_facts,
    "fake": _by_fake,
    "none": _by_none,
}


def _measure_all(
    samples: list[dict[str, Any]], data_root: Path
) -> Iterator[tuple[dict[str, Any], str | Reject]]:
    locate = resolver(data_root)

    def measure_one(sample: dict[str, Any]) -> str | Reject:
        try:
            return measure(read(sample["modality"], locate(sample["uri"])))
        except SampleError as error:
            return Reject(sample["sample_id"], STAGE, str(error))

    # Threads: decoding and array work let go of the interpreter lock, and no more than one decoded sample per
    # thread is in memory.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        yield from tqdm(
            zip(samples, pool.map(measure_one, samples), strict=True),
            total=len(samples),
            desc="sample facts",
            unit="sample",
            disable=None,
        )


def _rows(texts: list[tuple[dict[str, Any], str]], source: _Source, run_id: str) -> list[dict[str, Any]]:
    lengths = count_tokens([text for _, text in texts])
    return [
        description_row(
            kind="sample",
            modality=sample["modality"],
            sample_id=sample["sample_id"],
            text=text,
            n_tokens=n_tokens,
            status="ok" if n_tokens <= TOKEN_LIMIT else "too_long",
            template_id=source.source,
            template_version=source.version,
            prompt_hash=hash_json([source.provider, source.model, sample["modality"]]),
            request_key=hash_json(
                [source.provider, source.model, sample["sample_id"], sample["sha256"], text]
            ),
            provider=source.provider,
            model_requested=source.model,
            model_resolved=source.model,
            finish_reason="stop",
            attempts=1,
            latency_ms=0.0,
            created_at=_NO_MOMENT,
            source=source.source,
            run_id=run_id,
        )
        for (sample, text), n_tokens in zip(texts, lengths, strict=True)
    ]


def _read_samples(kb: Path) -> list[dict[str, Any]]:
    path = kb / "samples.parquet"
    if not path.is_file():
        raise KnowledgeBaseError(f"{path} is missing: read in a manifest first (`unibind run` does)")
    return sorted(read_rows(path), key=lambda row: str(row["sample_id"]))
