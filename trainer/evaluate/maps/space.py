"""Map the space before and after alignment to points in the plane, for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.align.heads import has_heads, load_heads
from trainer.evaluate.maps.tsne import tsne
from trainer.inputs import KnowledgeBase, load_samples, open_kb
from trainer.localize.centers import category_means, load_centers
from trainer.records import Centers, Ints, SampleSet, evenly_spaced

CENTER = "center"


@dataclass(frozen=True)
class SpaceMap:
    """Points of one space in the plane. A point is a test sample, or the mean of a category's centers."""

    xy_N2: npt.NDArray[np.float64]
    kinds: tuple[str, ...]  # the sample's modality, or "center"
    category_N: Ints  # index into `categories`; -1: unknown
    ids: tuple[str, ...]  # sample id or category id
    categories: tuple[str, ...]  # names


def space_maps(kb: Path, run: Path, *, most: int = 500) -> dict[str, SpaceMap]:
    """Maps of a run's test samples, at most `most` of them in each: before and after alignment.

    before: the frozen features of the samples encoder, which are not in the text space, so without centers
    (and without modalities of another dimension than most). after: the aligned space with the mean of each
    category's centers. zero_shot, in place of "after" where there are no heads: the same in the space of the
    zero-shot encoder, if there is one and it encodes any of them. Of more samples than `most`, evenly spaced
    ones of every modality are taken. Empty without an encoded test sample.
    """
    base = open_kb(kb)
    shown = _test_samples(base, "samples", most)
    if not shown:
        return {}
    maps = {"before": _space_map(of_commonest_dimension(shown), base, None)}
    if has_heads(run):
        heads = load_heads(run)
        mapped = [
            replace(s, vectors_ND=heads.map(s.modality, s.vectors_ND))
            for s in shown
            if s.modality in heads.modalities
        ]
        if mapped:
            maps["after"] = _space_map(mapped, base, heads.represent(load_centers(base)))
    elif base.encoders.get("zero_shot") is not None and (placed := _test_samples(base, "zero_shot", most)):
        maps["zero_shot"] = _space_map(placed, base, load_centers(base))
    return maps


def _test_samples(base: KnowledgeBase, role: str, most: int) -> list[SampleSet]:
    """Test samples of every modality, with an equal share of `most` for each."""
    sets, _ = load_samples(base, role)
    test = [s.split("test") for s in sets.values() if (s.splits_N == "test").any()]
    return [s.take(evenly_spaced(len(s), most // len(test))) for s in test]


def of_commonest_dimension(sets: Sequence[SampleSet]) -> list[SampleSet]:
    """The sets with the commonest dimension of vectors (of equally common ones, the largest)."""
    dims = Counter(each.vectors_ND.shape[1] for each in sets)
    common = max(dims, key=lambda dim: (dims[dim], dim), default=0)
    return [each for each in sets if each.vectors_ND.shape[1] == common]


def _space_map(sets: list[SampleSet], base: KnowledgeBase, centers: Centers | None) -> SpaceMap:
    blocks = [s.vectors_ND for s in sets]
    owners = [s.category_N for s in sets]
    center_ids: tuple[str, ...] = ()
    if centers is not None:
        filled = np.flatnonzero(centers.counts())
        means_CD = category_means(centers.vectors_ND, centers.category_N, len(base.categories))
        blocks.append(means_CD[filled].astype(np.float32))
        owners.append(filled)
        center_ids = tuple(base.categories[c] for c in filled)
    return SpaceMap(
        xy_N2=tsne(np.concatenate(blocks)),
        kinds=tuple(s.modality for s in sets for _ in s.sample_ids) + (CENTER,) * len(center_ids),
        category_N=np.concatenate(owners),
        ids=tuple(sample for s in sets for sample in s.sample_ids) + center_ids,
        categories=base.names,
    )
