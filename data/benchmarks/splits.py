"""Draws missing val splits, and subsets of each category, by hash: the same on every machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from data.sample import Sample, Split

VAL_SHARE = 0.1


def draw_val(samples: Sequence[Sample], share: float = VAL_SHARE) -> list[Sample]:
    """Move about `share` of each category's train samples to val; returns all samples.

    Samples of one object (clips from one recording) move together, even across categories. Objects are taken
    in the order of the SHA-256 of their id until the share is reached, but never a category's last one. Test
    samples stay.
    """
    objects: dict[str | None, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.split == "train":
            objects[sample.category_id][sample.object_id or sample.sample_id].append(sample.sample_id)
    categories_of: dict[str, list[str | None]] = defaultdict(list)
    for category, of_category in objects.items():
        for object_id in of_category:
            categories_of[object_id].append(category)
    left = {category: len(of_category) for category, of_category in objects.items()}  # objects of train
    chosen: set[str] = set()
    for category in sorted(objects, key=str):  # objects shared with an earlier category are drawn there
        of_category = objects[category]
        wanted = round(share * sum(map(len, of_category.values())))
        taken = sum(len(ids) for object_id, ids in of_category.items() if object_id in chosen)
        for object_id in sorted(of_category, key=_rank):
            if taken >= wanted:
                break
            if object_id not in chosen and all(left[each] > 1 for each in categories_of[object_id]):
                chosen.add(object_id)
                taken += len(of_category[object_id])
                for each in categories_of[object_id]:
                    left[each] -= 1
    return [
        replace(sample, split="val")
        if sample.split == "train" and (sample.object_id or sample.sample_id) in chosen
        else sample
        for sample in samples
    ]


def fold_splits(samples: Iterable[tuple[Sample, int]], fold: int | None) -> list[Sample]:
    """Assign splits by fold: `fold` is test, the others are train; with `fold=None` all are test."""

    def split_of(own: int) -> Split:
        return "test" if fold is None or own == fold else "train"

    return [replace(sample, split=split_of(own)) for sample, own in samples]


def limit(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples of each category and split: those with the smallest SHA-256 of their id."""
    groups: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for sample in samples:
        groups[sample.category_id, sample.split].append(sample.sample_id)
    kept = {sample_id for ids in groups.values() for sample_id in sorted(ids, key=_rank)[:most]}
    return [sample for sample in samples if sample.sample_id in kept]


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
