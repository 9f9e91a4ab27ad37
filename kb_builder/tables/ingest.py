"""Ingest: writes the first tables of a knowledge base from a manifest, and rejects unusable files by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import ManifestError
from data.manifest.read import Manifest
from data.readers.axes import Up
from data.readers.sandbox.budget import FileBudget
from data.sample import Reject, Sample
from data.work import Carry
from kb_builder.tables.hashing import STAGE, HashWork, Row, hash_elsewhere, hash_here
from kb_builder.tables.schemas import (
    CATEGORIES,
    GIVEN_DESCRIPTIONS,
    MODALITIES,
    REJECTS,
    SAMPLES,
    write_table,
)

log = logging.getLogger(__name__)


def ingest(
    manifest: Manifest,
    kb: Path,
    *,
    up: Up | None = None,
    carry: Carry | None = None,
    budget: FileBudget | None = None,
) -> dict[str, int]:
    """Hash every file; write categories, samples, modalities, given_descriptions and rejects/ingest.parquet.

    A sample whose file is missing, empty, not a plain file, unreadable, or behind a link that leads outside
    the manifest's folder is rejected with its reason. `up` is the axis that points up in clouds and meshes;
    None: the axis of each format. `carry`: where files are hashed, with this `budget` for decoding what names
    the companions of a mesh; None: in this process. The tables are sorted by id, so the same files and
    manifest give the same bytes.

    Returns counts: samples, categories, categories_without_samples, rejected, given_descriptions,
    files_in_train_and_elsewhere (distinct contents in split train and another one: scores on those prove
    nothing) and files_of_two_categories (contents of samples without a category in common: a label is wrong).
    Raises ManifestError if no sample can be used.
    """
    accepted: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    given: list[dict[str, Any]] = []
    for sample, outcome in _hash_all(manifest, up, carry, budget or FileBudget()):
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
        "files_of_two_categories": _mislabelled(accepted),
    }
    log.info("ingest: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _hash_all(
    manifest: Manifest, up: Up | None, carry: Carry | None, budget: FileBudget
) -> Iterator[tuple[Sample, Row | Reject]]:
    """Every sample with its row or reject, in the manifest's order."""
    samples = manifest.samples
    with tqdm(total=len(samples), desc="hash samples", unit="file", disable=None) as bar:
        work = HashWork(manifest.root, up, budget)
        outcomes = hash_elsewhere(samples, work, carry) if carry else hash_here(samples, manifest.root, up)
        with closing(outcomes):
            for pair in zip(samples, outcomes, strict=True):
                bar.update()
                yield pair


def _leaked(samples: Iterable[dict[str, Any]]) -> int:
    splits_of = defaultdict(set)
    for sample in samples:
        splits_of[sample["sha256"]].add(sample["split"])
    return sum("train" in splits and len(splits) > 1 for splits in splits_of.values())


def _mislabelled(samples: Iterable[dict[str, Any]]) -> int:
    first: dict[str, dict[str, Any]] = {}
    torn = set()
    for sample in samples:
        if sample["category_id"] is not None:
            before = first.setdefault(sample["sha256"], sample)
            if before is not sample and not _categories(before) & _categories(sample):
                torn.add(sample["sha256"])
    return len(torn)


def _categories(sample: dict[str, Any]) -> set[str]:
    return {sample["category_id"], *(sample["more_category_ids"] or ())}


def _by(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row[key]))
