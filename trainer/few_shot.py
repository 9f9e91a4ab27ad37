"""How few labelled samples are enough: the linear probe, and the heads, on a handful per category.

Shapes: N samples, C categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.bootstrap import interval
from trainer.probe import fit_probe, labelled
from trainer.recognition import Task
from trainer.records import Bools, SampleSet
from trainer.settings import Evaluate


def few_shot_rows(sets: dict[str, SampleSet], seen_C: Bools, settings: Evaluate) -> list[dict[str, Any]]:
    """Rows {shots, method, modality, split, top1, top1_low, top1_high, n, n_train}, on split `seen`.

    `sets` hold the frozen features. method `probe`: the linear probe of so many train samples per category
    and modality.
    """
    task = Task("seen", seen_C, seen_C)
    shown = {modality: task.of(encoded) for modality, encoded in sets.items()}
    rows: list[dict[str, Any]] = []
    for shots in settings.few_shot:
        for modality, encoded in sets.items():
            if len(shown[modality]) == 0:
                continue
            drawn = draw_shots(labelled(encoded, "train"), shots, seed=settings.seed)
            probe = fit_probe(drawn, encoded.split("val"))
            if probe is None:
                continue
            named_N = probe.named(shown[modality].vectors_ND, 1)[:, 0]
            rows.append(_row(shots, "probe", shown[modality], named_N, len(drawn), settings))
    return rows


def draw_shots(train: SampleSet, shots: int, *, seed: int) -> SampleSet:
    """So many samples of each category, all where there are fewer; samples stay in their order.

    One seed draws nested sets: what 2 shots hold, 4 hold too.
    """
    luck_N = np.random.default_rng(seed).random(len(train))
    order = np.lexsort((luck_N, train.category_N))
    category_N = train.category_N[order]
    rank_N = np.arange(len(order)) - np.searchsorted(category_N, category_N)
    return train.take(np.sort(order[rank_N < shots]))


def _row(
    shots: int, method: str, shown: SampleSet, named_N: Any, n_train: int, settings: Evaluate
) -> dict[str, Any]:
    hit_N = (named_N[:, None] == shown.labels()).any(axis=1)
    low, high = interval(hit_N, resamples=settings.bootstrap, seed=settings.seed)
    return {
        "shots": shots,
        "method": method,
        "modality": shown.modality,
        "split": "seen",
        "top1": float(hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "n": len(shown),
        "n_train": n_train,
    }
