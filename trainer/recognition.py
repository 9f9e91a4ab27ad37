"""Recognition: which category is it? Top-1 and top-5 per modality, on seen and unseen categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainer.bootstrap import interval
from trainer.records import Bools, Centers, SampleSet
from trainer.scoring import score
from trainer.settings import Scorer


@dataclass(frozen=True)
class Task:
    """Which samples are to be named, and among which categories."""

    split: Literal["seen", "unseen", "unseen_among_all"]
    shown_C: Bools  # samples of these categories
    candidates_C: Bools  # are named among these
    test_only: bool = True


def tasks(seen_C: Bools, *, labels_used: bool) -> list[Task]:
    """The recognition tasks of a run.

    seen: test samples of categories with train samples, among these categories. unseen: those of the other
    categories, among the others. unseen_among_all: the same samples, among all. Where no label was used at
    all, everything is unseen and every sample, of whatever split, may be scored.
    """
    everything_C = np.ones_like(seen_C)
    if not labels_used:
        return [Task("unseen", everything_C, everything_C, test_only=False)]
    return [
        Task("seen", seen_C, seen_C),
        Task("unseen", ~seen_C, ~seen_C),
        Task("unseen_among_all", ~seen_C, everything_C),
    ]


def recognise(
    sets: dict[str, SampleSet],
    anchors: dict[str, Centers],
    tasks: list[Task],
    *,
    model: str,
    scorer: Scorer,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows {modality, split, anchors, k, scorer, model, top1, top1_low, top1_high, top5, chance, n}.

    `sets` hold vectors in the text space. `k` is the largest number of texts per candidate, `chance` is one
    over the number of candidates. A candidate without a text can never be named; its samples count as
    errors. Tasks without samples or texts give no row.
    """
    rows: list[dict[str, Any]] = []
    for modality, encoded in sets.items():
        for task in tasks:
            allowed_N = (encoded.splits_N == "test") | (not task.test_only)
            shown = encoded.take(allowed_N & (encoded.category_N >= 0) & task.shown_C[encoded.category_N])
            for name, centers in anchors.items():
                among = centers.of(task.candidates_C)
                if len(shown) == 0 or len(among.row_ids) == 0:
                    continue
                named_NT = score(shown.vectors_ND, among, scorer=scorer, top=5).categories_NT
                hits_NT = named_NT == shown.category_N[:, None]
                low, high = interval(hits_NT[:, 0], resamples=resamples, seed=seed)
                rows.append(
                    {
                        "modality": modality,
                        "split": task.split,
                        "anchors": name,
                        "k": int(among.counts().max()),
                        "scorer": scorer,
                        "model": model,
                        "top1": float(hits_NT[:, 0].mean()),
                        "top1_low": low,
                        "top1_high": high,
                        "top5": float(hits_NT.any(axis=1).mean()),
                        "chance": 1 / int(task.candidates_C.sum()),
                        "n": len(shown),
                    }
                )
    return rows
