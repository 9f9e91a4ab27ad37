"""Recognition tasks and anchor sets: which samples to classify, among which categories, by which texts.

Anchor sets are the LLM centers and their controls. Shapes: N samples, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from trainer.evaluate.name_free import NAME_FREE, name_free
from trainer.inputs import CLASS_NAME
from trainer.records import Bools, Centers, Ints, SampleSet

if TYPE_CHECKING:
    from trainer.align.heads import Heads  # imports torch, which `unibind compare` does not need

CENTERS = "llm_centers"  # the anchor set that the others are controls for


@dataclass(frozen=True)
class Task:
    """Which samples to classify, and among which categories."""

    split: Literal["seen", "unseen", "unseen_among_all", "seen_among_all"]
    shown_C: Bools  # samples of these categories are classified
    candidates_C: Bools  # among these categories
    test_only: bool = True

    def of(self, samples: SampleSet) -> SampleSet:
        """The samples to classify: those of the task's split whose first category is in `shown_C`."""
        allowed_N = (samples.splits_N == "test") | (not self.test_only)
        shown_N = np.append(self.shown_C, False)[samples.category_N]  # the last for -1: no category
        return samples.take(allowed_N & shown_N)


def tasks(seen_C: Bools, *, labels_used: bool) -> list[Task]:
    """The recognition tasks of a run.

    seen: test samples of categories with train samples, among these categories. unseen: those of the other
    categories, among the others. seen_among_all and unseen_among_all: the same samples, among all categories;
    the former only where some category is not seen. Where no label was used at all, every category is unseen
    and samples of all splits are classified.
    """
    everything_C = np.ones_like(seen_C)
    if not labels_used:
        return [Task("unseen", everything_C, everything_C, test_only=False)]
    return [
        Task("seen", seen_C, seen_C),
        Task("unseen", ~seen_C, ~seen_C),
        *([] if seen_C.all() else [Task("seen_among_all", seen_C, everything_C)]),
        Task("unseen_among_all", ~seen_C, everything_C),
    ]


@dataclass(frozen=True)
class AnchorSet:
    """The texts that represent the categories: the LLM centers, or a control."""

    texts: Centers
    # Where the texts are the LLM centers in another order: the category that has those of category c,
    # int64[C].
    owner_C: Ints | None = None


def anchor_sets(centers: Centers, controls: dict[str, Centers], *, seed: int) -> dict[str, AnchorSet]:
    """The centers (`llm_centers`) and every control, by name, with at most as many texts per category.

    Of the template and random-word texts the first K_c are taken, K_c being the number of centers of
    category c; of `name_free` those that stand for a center, after the bare name (`name_free.py`). The
    permuted control needs two categories with centers and is absent otherwise. Heads are not trained again
    for a control: only the texts that represent the categories at test time differ.
    """
    sets = {CENTERS: AnchorSet(centers)}
    for name, texts in sorted(controls.items()):
        if name == NAME_FREE:
            if (left := name_free(centers, texts, controls.get(CLASS_NAME))) is not None:
                sets[name] = AnchorSet(left)
            continue
        sets[name] = AnchorSet(texts if name == CLASS_NAME else texts.first(centers.counts()))
    filled = np.flatnonzero(centers.counts())
    if len(filled) > 1:
        sets["permuted"] = permute(centers, filled[derangement(len(filled), seed)], filled)
    return sets


def represent(anchors: dict[str, AnchorSet], heads: Heads) -> dict[str, AnchorSet]:
    """Every anchor set in the space of the heads, each without its own mean."""
    return {name: replace(each, texts=heads.represent(each.texts)) for name, each in anchors.items()}


def permute(centers: Centers, givers: Ints, takers: Ints) -> AnchorSet:
    """Give category `takers[i]` the texts of category `givers[i]`."""
    owner_C = np.arange(len(centers.categories))
    owner_C[givers] = takers
    owner_N = owner_C[centers.category_N]
    order = np.argsort(owner_N, kind="stable")
    return AnchorSet(replace(centers.take(order), category_N=owner_N[order]), owner_C)


def derangement(n: int, seed: int) -> Ints:
    """A permutation of 0 … n-1 without a fixed point, uniformly drawn (by rejection, about e tries)."""
    if n < 2:
        raise ValueError(f"a derangement needs at least 2 items, not {n}")
    rng = np.random.default_rng(seed)
    while True:
        places = rng.permutation(n)
        if not np.any(places == np.arange(n)):
            return places.astype(np.int64)
