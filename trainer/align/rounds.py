"""The rounds of a training: which modalities each trains, and what it aligns them with.

Text-centred alignment (UniBind) has one round: every modality is aligned with texts. Image-centred alignment,
the baseline, has two: first the image head is aligned with texts; then it is fixed, and its vectors replace
the texts for every other modality: images of the same object in place of descriptions, and images of the same
category in place of its centers (as ImageBind binds each modality to images: Girdhar et al., CVPR 2023). Text
samples are aligned with texts in both: in the first round.
Loss, heads, batches, epochs and the choice by val samples are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.errors import TrainingError
from trainer.align.heads import Heads
from trainer.align.pairs import Pairs, make_pairs
from trainer.align.shared import SharedSpace
from trainer.inputs import SampleTexts
from trainer.records import Bools, Centers, Floats, Ints, SampleSet
from trainer.settings import Train


@dataclass(frozen=True)
class Round:
    """The pairs of one round; the first rows of `texts_MR` are centers, of the categories `owners_M`."""

    pairs: dict[str, Pairs]
    texts_MR: Floats  # by their coordinates in the shared space
    owners_M: Ints
    counts: dict[str, int]
    space: SharedSpace


def rounds(
    sets: dict[str, SampleSet], texts: SampleTexts, centers: Centers, settings: Train
) -> list[Callable[[Heads | None], Round]]:
    """The rounds in order, each a function of the heads of the rounds before it (None for the first).

    Raises TrainingError for modalities that cannot be trained.
    """
    sets = _select_modalities(sets, settings)
    text_head = settings.text_head and (settings.modalities is None or "text" in settings.modalities)
    space = SharedSpace.of(centers, _trained_categories(sets, centers), settings)

    def text_round(modalities: dict[str, SampleSet]) -> Round:
        represented = space.represent(centers)
        pairs, texts_MR, counts = make_pairs(modalities, texts, represented, space, text_head=text_head)
        return Round(pairs, texts_MR, centers.category_N, counts, space)

    if settings.align == "text":
        return [lambda _: text_round(sets)]
    if len(sets.get("image", ())) == 0 or not (sets["image"].splits_N == "train").any():
        raise TrainingError(
            'train.align = "image" needs train samples of the modality image; add some, or set "text"'
        )

    def image_round(heads: Heads | None) -> Round:
        assert heads is not None  # the heads of the first round
        others = {m: s for m, s in sets.items() if m not in ("image", "text")}
        train = sets["image"].split("train")
        images = Centers(
            categories=centers.categories,
            row_ids=train.sample_ids,
            category_N=train.category_N,
            vectors_ND=heads.map("image", train.vectors_ND),
        )
        order = np.argsort(images.category_N, kind="stable")
        labelled = images.take(order[images.category_N[order] >= 0])
        by_object = _by_object(others, train, images.vectors_ND)
        # Images that a head has mapped are in the shared space already, without their mean.
        basis = SharedSpace(basis_RT=space.basis_RT)
        pairs, vectors_MR, counts = make_pairs(others, by_object, labelled, basis)
        return Round(pairs, vectors_MR, labelled.category_N, counts, space)

    first = {m: s for m, s in sets.items() if m in ("image", "text")}
    return [lambda _: text_round(first), image_round]


def _trained_categories(sets: dict[str, SampleSet], centers: Centers) -> Bools:
    """Whether each category has a train sample of a modality that is trained: bool[C]."""
    trained_C = np.zeros(len(centers.categories) + 1, dtype=np.bool_)  # the last for -1: no category
    for samples in sets.values():
        trained_C[samples.category_N[samples.splits_N == "train"]] = True
    return trained_C[:-1]


def _select_modalities(sets: dict[str, SampleSet], settings: Train) -> dict[str, SampleSet]:
    """The modalities to train; text is always among them, for its notes on objects."""
    wanted = settings.modalities
    if wanted is None:
        return sets
    missing = [m for m in wanted if m != "text" and m not in sets]
    if missing:
        raise TrainingError(
            f"train.modalities names {', '.join(missing)}, but no such sample is encoded;"
            f" there are: {', '.join(sorted(sets))}"
        )
    return {m: s for m, s in sets.items() if m in wanted or m == "text"}


def _by_object(sets: dict[str, SampleSet], images: SampleSet, vectors_ND: Floats) -> SampleTexts:
    """For each sample the images of its object, in place of texts about it."""
    of_object: dict[int, list[int]] = {}
    for row, thing in enumerate(images.object_N.tolist()):
        if thing >= 0:
            of_object.setdefault(thing, []).append(row)
    rows = {
        sample: tuple(of_object[thing])
        for s in sets.values()
        for sample, thing in zip(s.sample_ids, s.object_N.tolist(), strict=True)
        if thing in of_object
    }
    return SampleTexts(rows, vectors_ND)
