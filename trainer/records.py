"""The records of stage 2: encoded texts that represent categories, and encoded samples.

Shapes: N rows, D dimensions, C categories, L further categories of a sample. A category is its index in
`categories`, which are sorted by id; -1 means "no category".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TRANSDUCTIVE = "transductive"  # in the column `guided_by` of the centers


@dataclass(frozen=True)
class Centers:
    """Encoded texts that represent categories: embedding centers, or the texts of a control.

    Rows are sorted by category; within a category, the best comes first. A category may have no row.
    """

    categories: tuple[str, ...]  # C category ids, sorted
    row_ids: tuple[str, ...]
    category_N: Ints
    vectors_ND: Floats
    guided_by: frozenset[str] = frozenset()  # splits whose labels guided the choice, or TRANSDUCTIVE
    with_name: bool = False  # the bare name is one of a category's centers

    @property
    def labels_guided(self) -> bool:
        """Whether labelled samples guided the choice of any center."""
        return bool(self.guided_by - {TRANSDUCTIVE})

    @property
    def transductive(self) -> bool:
        """Whether unlabelled samples of every split, test too, guided the choice of any center."""
        return TRANSDUCTIVE in self.guided_by

    def counts(self) -> Ints:
        """How many rows each category has: int64[C]."""
        return np.bincount(self.category_N, minlength=len(self.categories)).astype(np.int64)

    def take(self, rows: Ints | Bools) -> Centers:
        """The centers of some rows only, in the order that `rows` gives."""
        if rows.dtype == np.bool_ and rows.all():
            return self
        indices = np.arange(len(self.row_ids))[rows]
        return replace(
            self,
            row_ids=tuple(self.row_ids[i] for i in indices),
            category_N=self.category_N[indices],
            vectors_ND=self.vectors_ND[indices],
        )

    def first(self, counts_C: Ints) -> Centers:
        """At most `counts_C[c]` rows of each category c, the best ones."""
        return self.take(self._positions() < counts_C[self.category_N])

    def of(self, candidates_C: Bools) -> Centers:
        """The rows of some categories only; the others stay in `categories` without rows."""
        return self.take(candidates_C[self.category_N])

    def _positions(self) -> Ints:
        starts_C = np.searchsorted(self.category_N, np.arange(len(self.categories)))
        return np.arange(len(self.category_N)) - starts_C[self.category_N]


@dataclass(frozen=True)
class SampleSet:
    """The encoded samples of one modality, sorted by sample id."""

    modality: str
    sample_ids: tuple[str, ...]
    splits_N: npt.NDArray[np.str_]  # train | val | test
    category_N: Ints
    object_N: Ints  # equal numbers: one object, in any modality; -1: unknown
    vectors_ND: Floats
    # further categories, -1 where there are fewer than L; None: no sample has one
    more_NL: Ints | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, rows: Ints | Bools) -> SampleSet:
        """Some rows only, in the order that `rows` gives."""
        if rows.dtype == np.bool_ and rows.all():
            return self
        indices = np.arange(len(self.sample_ids))[rows]
        return replace(
            self,
            sample_ids=tuple(self.sample_ids[i] for i in indices),
            splits_N=self.splits_N[indices],
            category_N=self.category_N[indices],
            object_N=self.object_N[indices],
            vectors_ND=self.vectors_ND[indices],
            more_NL=None if self.more_NL is None else self.more_NL[indices],
        )

    def labels(self) -> Ints:
        """Every category of each sample, the first one first: int64[N, 1 + L], -1 where there are fewer."""
        first_N1 = self.category_N[:, None]
        return first_N1 if self.more_NL is None else np.concatenate([first_N1, self.more_NL], axis=1)

    def split(self, name: str) -> SampleSet:
        """The samples of one split."""
        return self.take(self.splits_N == name)


def evenly_spaced(n: int, most: int) -> Ints:
    """At most `most` of n rows (at least one of any), evenly spaced: their numbers, ascending."""
    if n <= most:
        return np.arange(n)
    return np.arange(max(1, most)) * n // max(1, most)
