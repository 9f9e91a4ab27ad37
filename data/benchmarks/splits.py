"""Splits that a benchmark does not have, and samples taken of each category: drawn by hash, always alike."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from data.sample import Sample, Split

VAL_SHARE = 0.1


def draw_val(samples: Sequence[Sample], share: float = VAL_SHARE) -> list[Sample]:
    """The same samples, some of the train split moved to val: about `share` of each category's.

    Samples of one object (clips cut from one recording) go together. Objects are taken in the order of the
    SHA-256 of their id until the share is reached, and never a category's last one. Test samples stay.
    """
    objects: dict[str | None, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.split == "train":
            objects[sample.category_id][sample.object_id or sample.sample_id].append(sample.sample_id)
    chosen: set[str] = set()
    for of_category in objects.values():
        wanted = round(share * sum(map(len, of_category.values())))
        ranked = sorted(of_category, key=_rank)
        taken = 0
        for object_id in ranked[:-1]:
            if taken >= wanted:
                break
            chosen.update(of_category[object_id])
            taken += len(of_category[object_id])
    return [replace(sample, split="val") if sample.sample_id in chosen else sample for sample in samples]


def fold_splits(samples: Iterable[tuple[Sample, int]], fold: int | None) -> list[Sample]:
    """Samples with their folds, split: the fold `fold` is test, the others train; without one all is test."""

    def split_of(own: int) -> Split:
        return "test" if fold is None or own == fold else "train"

    return [replace(sample, split=split_of(own)) for sample, own in samples]


def limit(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples of each category and split, those with the smallest SHA-256 of their id."""
    groups: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for sample in samples:
        groups[sample.category_id, sample.split].append(sample.sample_id)
    kept = {sample_id for ids in groups.values() for sample_id in sorted(ids, key=_rank)[:most]}
    return [sample for sample in samples if sample.sample_id in kept]


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
