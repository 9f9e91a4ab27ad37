"""What the embedding centers are measured against: as many texts per category that should know less.

class_name: the bare name, one text · templates: the name in prompt templates · random_words: the name with
words drawn at random (WaffleCLIP, Roth et al., ICCV 2023) · permuted: the centers of another category.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.names import CLASS_NAME
from trainer.records import Centers, Ints
from trainer.tasks import CENTERS


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
