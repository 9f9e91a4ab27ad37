"""The encoded samples that guide localization, category by category.

Shapes: M samples, C categories, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.errors import KnowledgeBaseError
from trainer.inputs import KnowledgeBase, load_samples
from trainer.records import Doubles, Floats, Ints
from trainer.rules import mean_direction


@dataclass(frozen=True)
class Guides:
    """Samples sorted by the category they guide; those of category c are `of(c)`."""

    guided_by: str  # the splits they come from, or "transductive"
    vectors_MD: Floats
    starts_C1: Ints
    directions_CD: Doubles  # the unit mean of each category's samples; zeros where none point anywhere

    def of(self, category: int) -> Floats:
        """The samples of one category: float32[M, D]; none is no error."""
        return self.vectors_MD[self.starts_C1[category] : self.starts_C1[category + 1]]


def visible_samples(kb: KnowledgeBase, dim: int, splits: tuple[str, ...]) -> tuple[Floats, Ints]:
    """The samples of some splits as the zero-shot encoder sees them, and their categories (-1: none).

    Not those of the modality `text`: rules ask what a category looks like, not what is said of it. Nor those
    without direction, whose vector is zero. Without a zero-shot encoder there are none. Raises
    KnowledgeBaseError where the vectors do not have the texts' `dim` dimensions.
    """
    vectors, categories = [np.zeros((0, dim), np.float32)], [np.zeros(0, np.int64)]
    sets = load_samples(kb, "zero_shot")[0] if kb.encoders.get("zero_shot") is not None else {}
    for modality, samples in sorted(sets.items()):
        if modality == "text":
            continue
        if samples.vectors_ND.shape[1] != dim:
            raise KnowledgeBaseError(
                f"{kb.encoder('zero_shot').name} gives {samples.vectors_ND.shape[1]} dimensions and the texts"
                f" have {dim}: a zero-shot encoder must share the text encoder's space"
            )
        shown = np.flatnonzero(np.isin(samples.splits_N, splits) & samples.vectors_ND.any(axis=1))
        vectors.append(samples.vectors_ND[shown])
        categories.append(samples.category_N[shown])
    return np.concatenate(vectors), np.concatenate(categories)


def group_guides(vectors_MD: Floats, category_M: Ints, n_categories: int, *, guided_by: str) -> Guides:
    """Samples by category, each category's in the order they come in; those of category -1 guide nothing."""
    order = np.argsort(category_M, kind="stable")
    order = order[np.count_nonzero(category_M < 0) :]
    starts_C1 = np.searchsorted(category_M[order], np.arange(n_categories + 1))
    directions_CD = np.zeros((n_categories, vectors_MD.shape[1]))
    for category in np.unique(category_M[order]).tolist():
        members = order[starts_C1[category] : starts_C1[category + 1]]
        directions_CD[category] = mean_direction(vectors_MD[members])
    return Guides(guided_by, vectors_MD[order], starts_C1, directions_CD)
