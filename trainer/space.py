"""The space before and after alignment, as points in the plane for the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.errors import TrainingError
from trainer.centers import category_means, load_centers
from trainer.heads import has_heads, load_heads
from trainer.inputs import load_samples, open_kb
from trainer.records import Ints, SampleSet
from trainer.tsne import tsne

CENTER = "center"


@dataclass(frozen=True)
class Picture:
    """Points of one space in the plane. A point is a test sample, or the mean of a category's centers."""

    xy_N2: npt.NDArray[np.float64]
    kinds: tuple[str, ...]  # the sample's modality, or "center"
    category_N: Ints  # index into `categories`; -1 unknown
    ids: tuple[str, ...]  # sample id or category id
    categories: tuple[str, ...]  # names


def space_pictures(kb: Path, run: Path, *, most: int = 500) -> dict[str, Picture]:
    """The pictures "before" and "after" of a run's test samples, at most `most` of them in either.

    before: the frozen features of the samples encoder, which know nothing of texts, so without centers (and
    without modalities that another encoder gives another dimension). after: the aligned space with the mean
    of each category's centers; absent without heads. Of more samples than `most`, evenly spaced ones of
    every modality are drawn. Raises TrainingError without test samples.
    """
    base = open_kb(kb)
    sets, _ = load_samples(base, "samples")
    test = {m: s.split("test") for m, s in sets.items() if (s.splits_N == "test").any()}
    if not test:
        raise TrainingError(f"{kb}: no encoded test samples to draw; give the manifest rows of split `test`")
    shown = {m: s.take(_spread(len(s), most // len(test))) for m, s in test.items()}
    dims = Counter(s.vectors_ND.shape[1] for s in shown.values())
    dim = max(dims, key=lambda d: (dims[d], d))
    raw = [s for s in shown.values() if s.vectors_ND.shape[1] == dim]
    pictures = {"before": _picture(raw, [s.vectors_ND for s in raw], base.names)}
    if has_heads(run):
        heads, centers = load_heads(run), load_centers(base)
        mapped = [s for m, s in shown.items() if m in heads.modalities]
        filled = np.flatnonzero(centers.counts())
        means_CD = category_means(centers.vectors_ND, centers.category_N, len(base.categories))[filled]
        pictures["after"] = _picture(
            mapped,
            [*(heads.map(s.modality, s.vectors_ND) for s in mapped), means_CD.astype(np.float32)],
            base.names,
            center_ids=tuple(base.categories[c] for c in filled),
            center_N=filled,
        )
    return pictures


def _picture(
    sets: list[SampleSet],
    blocks: list[npt.NDArray[np.float32]],
    names: tuple[str, ...],
    *,
    center_ids: tuple[str, ...] = (),
    center_N: Ints | None = None,
) -> Picture:
    of_centers_N = np.zeros(0, dtype=np.int64) if center_N is None else center_N
    return Picture(
        xy_N2=tsne(np.concatenate(blocks)),
        kinds=tuple(s.modality for s in sets for _ in s.sample_ids) + (CENTER,) * len(center_ids),
        category_N=np.concatenate([*(s.category_N for s in sets), of_centers_N]),
        ids=tuple(sample for s in sets for sample in s.sample_ids) + center_ids,
        categories=names,
    )


def _spread(n: int, most: int) -> Ints:
    """At most `most` of n rows, evenly spaced."""
    if n <= most:
        return np.arange(n)
    return np.arange(max(1, most)) * n // max(1, most)
