"""Ingest: writes the first tables of a knowledge base from a manifest, and rejects unusable files by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.environment import cores
from data.errors import ManifestError, SampleError
from data.manifest.read import Manifest
from data.paths import resolver
from data.readers.axes import Up, turned, up_override
from data.readers.companions import content_hash
from data.reads import hashed, reading
from data.sample import Reject, Sample
from kb_builder.tables.schemas import (
    CATEGORIES,
    GIVEN_DESCRIPTIONS,
    MODALITIES,
    REJECTS,
    SAMPLES,
    write_table,
)

STAGE = "ingest"
log = logging.getLogger(__name__)


def ingest(manifest: Manifest, kb: Path, *, up: Up | None = None) -> dict[str, int]:
    """Hash every file; write categories, samples, modalities, given_descriptions and rejects/ingest.parquet.

    A sample whose file is missing, empty, not a plain file, unreadable, or behind a link that leads outside
    the manifest's folder is rejected with its reason. `up` is the axis that points up in clouds and meshes;
    None: the axis of
    each format. The tables are sorted by id, so the same files and manifest give the same bytes.

    Returns counts: samples, categories, categories_without_samples, rejected, given_descriptions, and
    files_in_train_and_elsewhere (distinct contents in split train and another one: scores on those prove
    nothing). Raises ManifestError if no sample can be used.
    """
    accepted: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    given: list[dict[str, Any]] = []
    for sample, outcome in _hash_all(manifest, up):
        if isinstance(outcome, Reject):
            rejects.append(outcome)
            continue
        accepted.append(outcome)
        if sample.description is not None:
            given.append({"sample_id": sample.sample_id, "text": sample.description})
    if not accepted:
        raise ManifestError(
            f"not one of the {len(rejects)} samples can be used. The first: {rejects[0].reason}. "
            f"The manifest's paths are read relative to {manifest.root}"
        )
    categories = [
        {
            "category_id": category.category_id,
            "name": category.name,
            "aliases": list(category.aliases),
            "parent": category.parent,
            "notes": category.notes,
        }
        for category in manifest.categories
    ]
    write_table(kb / "categories.parquet", _by(categories, "category_id"), CATEGORIES)
    write_table(kb / "samples.parquet", _by(accepted, "sample_id"), SAMPLES)
    present = [{"modality": each} for each in sorted({row["modality"] for row in accepted})]
    write_table(kb / "modalities.parquet", present, MODALITIES)
    write_table(kb / "given_descriptions.parquet", _by(given, "sample_id"), GIVEN_DESCRIPTIONS)
    rejected = [{"sample_id": r.sample_id, "stage": r.stage, "reason": r.reason} for r in rejects]
    write_table(kb / "rejects" / f"{STAGE}.parquet", _by(rejected, "sample_id"), REJECTS)
    used = {each for row in accepted for each in (row["category_id"], *(row["more_category_ids"] or ()))}
    counts = {
        "samples": len(accepted),
        "categories": len(categories),
        "categories_without_samples": sum(row["category_id"] not in used for row in categories),
        "rejected": len(rejects),
        "given_descriptions": len(given),
        "files_in_train_and_elsewhere": _leaked(accepted),
    }
    log.info("ingest: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _hash_all(manifest: Manifest, up: Up | None) -> Iterable[tuple[Sample, dict[str, Any] | Reject]]:
    locate = resolver(manifest.root)
    # Hashing releases the interpreter lock; more threads than cores keep a slow disk busy.
    with ThreadPoolExecutor(max_workers=min(32, 2 * cores())) as pool:
        outcomes = pool.map(lambda sample: _hash_one(sample, locate, up), manifest.samples)
        yield from tqdm(
            zip(manifest.samples, outcomes, strict=True),
            total=len(manifest.samples),
            desc="hash samples",
            unit="file",
            disable=None,
        )


def _hash_one(sample: Sample, locate: Callable[[str], Path], up: Up | None) -> dict[str, Any] | Reject:
    try:
        path = locate(sample.uri)
        if not path.exists():
            reading(path)
            raise SampleError(f"{sample.uri}: no such file")
        if not path.is_file():  # a folder, a pipe or a device: opening one might block forever
            reading(path)
            raise SampleError(f"{sample.uri}: not a plain file")
        size = path.stat().st_size
        if size == 0:
            reading(path)
            raise SampleError(f"{sample.uri}: empty file")
        stated_up = up_override(sample.modality, path, up)
        digest = content_hash(sample.modality, turned(path, stated_up), hash_one=hashed, absent=reading)
    except SampleError as error:
        return Reject(sample.sample_id, STAGE, str(error))
    except OSError as error:
        reading(path)
        return Reject(sample.sample_id, STAGE, f"{sample.uri}: cannot be read: {error.strerror}")
    return {
        "sample_id": sample.sample_id,
        "object_id": sample.object_id,
        "modality": sample.modality,
        "uri": sample.uri,
        "category_id": sample.category_id,
        "split": sample.split,
        "sha256": digest,
        "bytes": size,
        "more_category_ids": list(sample.more_category_ids) or None,
        "up": stated_up,
    }


def _leaked(samples: Iterable[dict[str, Any]]) -> int:
    splits_of = defaultdict(set)
    for sample in samples:
        splits_of[sample["sha256"]].add(sample["split"])
    return sum("train" in splits and len(splits) > 1 for splits in splits_of.values())


def _by(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row[key]))
