"""How well heads in training name the val samples: what decides which epoch is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.heads import Heads
from trainer.inputs import KnowledgeBase, seen_categories
from trainer.records import Centers, SampleSet
from trainer.scoring import score


@dataclass(frozen=True)
class Validation:
    """Labelled val samples of categories that are trained on, and those categories' centers."""

    sets: dict[str, SampleSet]
    centers: Centers

    def top1(self, heads: Heads) -> float | None:
        """The mean over modalities of the share named rightly; None without val samples."""
        shares = [
            float(
                np.mean(
                    score(heads.map(m, s.vectors_ND), self.centers, top=1).categories_NT[:, 0] == s.category_N
                )
            )
            for m, s in self.sets.items()
            if m in heads.weights
        ]
        return sum(shares) / len(shares) if shares else None


def validation(base: KnowledgeBase, sets: dict[str, SampleSet], centers: Centers) -> Validation:
    """The val samples of trained categories: the held-out categories must have no say, not even here."""
    seen_C = seen_categories(base)
    centers = centers.of(seen_C)
    usable_C = np.append(seen_C & (centers.counts() > 0), False)  # the last for -1: no category
    chosen = {
        m: s.take((s.splits_N == "val") & (s.category_N >= 0) & usable_C[s.category_N])
        for m, s in sets.items()
    }
    return Validation({m: s for m, s in chosen.items() if len(s)}, centers)
