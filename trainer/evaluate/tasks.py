"""What there is to name: which samples, among which categories, by texts of which name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trainer.inputs import CLASS_NAME
from trainer.records import Bools, Centers, Ints, SampleSet

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


def anchor_sets(centers: Centers, controls: dict[str, Centers], *, seed: int) -> dict[str, Centers]:
    """The centers (`llm_centers`) and every control, by name, with at most as many texts per category.

    Of the template and random-word texts the first K_c are taken, K_c being the number of centers of
    category c. The permuted control needs two categories with centers and is absent otherwise. Heads are not
    trained anew for a control: only what stands for the categories at test time differs.
    """
    sets = {CENTERS: centers}
    for name, texts in sorted(controls.items()):
        sets[name] = texts if name == CLASS_NAME else texts.first(centers.counts())
    filled = np.flatnonzero(centers.counts())
    if len(filled) > 1:
        sets["permuted"] = permute(centers, filled[derangement(len(filled), seed)], filled)
    return sets


def permute(centers: Centers, givers: Ints, takers: Ints) -> Centers:
    """Give category `takers[i]` the texts of category `givers[i]`."""
    new_owner_C = np.arange(len(centers.categories))
    new_owner_C[givers] = takers
    owners_N = new_owner_C[centers.category_N]
    order = np.argsort(owners_N, kind="stable")
    return replace(centers.take(order), category_N=owners_N[order])


def derangement(n: int, seed: int) -> Ints:
    """A permutation of 0 … n-1 without a fixed point, evenly drawn (by rejection, about e tries)."""
    if n < 2:
        raise ValueError(f"{n} things cannot all change places")
    rng = np.random.default_rng(seed)
    while True:
        places = rng.permutation(n)
        if not np.any(places == np.arange(n)):
            return places.astype(np.int64)
