"""What there is to name: which samples, among which categories, by texts of which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.records import Bools, SampleSet

CENTERS = "llm_centers"  # the anchor set that the others are controls of


@dataclass(frozen=True)
class Task:
    """Which samples are to be named, and among which categories."""

    split: Literal["seen", "unseen", "unseen_among_all"]
    shown_C: Bools  # samples of these categories
    candidates_C: Bools  # are named among these
    test_only: bool = True

    def of(self, samples: SampleSet) -> SampleSet:
        """The samples that are to be named: by their first category, and by their split."""
        allowed_N = (samples.splits_N == "test") | (not self.test_only)
        shown_N = np.append(self.shown_C, False)[samples.category_N]  # -1, no category, is shown nowhere
        return samples.take(allowed_N & shown_N)


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
