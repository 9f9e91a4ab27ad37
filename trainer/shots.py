"""Few-shot: a knowledge base in which only a few train samples of each category are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.inputs import KnowledgeBase


def with_shots(base: KnowledgeBase, shots: int, *, seed: int) -> KnowledgeBase:
    """The same knowledge base with at most `shots` labelled train samples per category and modality.

    Other train samples are gone, as if never collected: neither localization nor training sees them. Objects
    are ranked at random once, so that the same ones are kept in every modality.
    """
    rng = np.random.default_rng(seed)
    things = sorted({str(row["object_id"] or row["sample_id"]) for row in base.samples})
    place = dict(zip(things, rng.permutation(len(things)).tolist(), strict=True))
    train = [row for row in base.samples if row["split"] == "train" and row["category_id"] is not None]
    train.sort(key=lambda row: (place[str(row["object_id"] or row["sample_id"])], row["sample_id"]))
    kept: dict[tuple[str, str], set[str]] = {}
    for row in train:
        chosen = kept.setdefault((row["modality"], row["category_id"]), set())
        if len(chosen) < shots:
            chosen.add(row["sample_id"])
    names = {name for chosen in kept.values() for name in chosen}
    return replace(
        base,
        samples=tuple(row for row in base.samples if row["split"] != "train" or row["sample_id"] in names),
    )
