"""The shared space: the part of the text space in which samples and categories are compared.

Texts of one encoder lie in a narrow cone, samples in another; what all centers have in common tells no
category from another. So the mean of the centers is taken off them, and that of each modality off its
samples. What is left is projected onto the span of the trained categories' centers (its first principal
components): heads learn nothing outside of it, and a category that was not trained would lose by the part of
its centers that no sample can reach.

Shapes: N rows, T text dimensions, R dimensions of the shared space, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trainer.align.losses import LOSSES
from trainer.localize.centers import category_means
from trainer.records import Bools, Centers, Doubles, Floats
from trainer.score.geometry import unit_rows
from trainer.settings import Train

# Of fewer categories every direction is kept: their means span few dimensions already.
_KEPT_WHOLE = 8
_NOTHING = 1e-6  # of the largest singular value: below, a direction is rounding


@dataclass(frozen=True)
class SharedSpace:
    """The mean of the centers and an orthonormal basis; the whole text space, where both are None."""

    mean_T: Floats | None = None
    basis_RT: Floats | None = None

    @classmethod
    def of(cls, centers: Centers, trained_C: Bools, settings: Train) -> SharedSpace:
        """The shared space of the centers of all categories, of which `trained_C` have train samples.

        Fewer than three categories are not centred: two would differ in their sign alone. Where samples are
        also drawn to texts about themselves, which say more than the category, all of the text space is kept.
        """
        is_centred = settings.centred and np.count_nonzero(centers.counts()) > 2
        space = cls(mean_T=_mean_of_categories(centers) if is_centred else None)
        trained_C = trained_C & (centers.counts() > 0)
        by_centers_alone = settings.center_weight == 1 and LOSSES[settings.loss].uses_centers
        if settings.subspace == 0 or not by_centers_alone or not trained_C.any():
            return space
        represented = space.represent(centers)
        means_CT = category_means(represented.vectors_ND, represented.category_N, len(trained_C))[trained_C]
        _, values, directions_CT = np.linalg.svd(means_CT, full_matrices=False)
        share = settings.subspace if is_centred else 1.0  # else the common mean is most of the variance
        kept = _components(values, share)
        if kept in (0, means_CT.shape[1]):
            return space
        return cls(space.mean_T, directions_CT[:kept].astype(np.float32))

    def represent(self, centers: Centers) -> Centers:
        """An anchor set's texts as unit rows of the shared space: without their own mean, projected."""
        mean_T = None if self.mean_T is None else _mean_of_categories(centers)
        return replace(centers, vectors_ND=self._without(centers.vectors_ND, mean_T))

    def represent_rows(self, x_NT: Floats) -> Floats:
        """Texts of one kind in the shared space, as unit rows: without their own mean, projected."""
        mean_T = None if self.mean_T is None or len(x_NT) < 3 else x_NT.mean(axis=0, dtype=np.float64)
        return self._without(x_NT, mean_T)

    def place(self, x_NT: Floats) -> Floats:
        """Single texts in the shared space, as unit rows: without the mean of the centers, projected."""
        return self._without(unit_rows(x_NT), self.mean_T)

    def project(self, x_NT: Floats) -> Floats:
        """The nearest rows of the shared space: [N, T]."""
        return self.from_coordinates(self.coordinates(x_NT))

    def coordinates(self, x_NT: Floats) -> Floats:
        """Rows of the shared space by their coordinates in its basis: [N, R]."""
        return x_NT if self.basis_RT is None else x_NT @ self.basis_RT.T

    def from_coordinates(self, x_NR: Floats) -> Floats:
        """The rows of the text space that have these coordinates: [N, T]."""
        return x_NR if self.basis_RT is None else x_NR @ self.basis_RT

    def _without(self, x_NT: Floats, mean_T: Floats | Doubles | None) -> Floats:
        off_NT = x_NT if mean_T is None else np.asarray(x_NT - mean_T, dtype=np.float32)
        return unit_rows(self.project(off_NT))


def _mean_of_categories(centers: Centers) -> Floats:
    """The mean over categories of the mean of their rows; zeros without any: [T]."""
    counts_C = centers.counts()
    sums_CT = np.zeros((len(counts_C), centers.vectors_ND.shape[1]))
    np.add.at(sums_CT, centers.category_N, centers.vectors_ND.astype(np.float64))
    filled_C = counts_C > 0
    if not filled_C.any():
        return np.zeros(sums_CT.shape[1], dtype=np.float32)
    means_FT = sums_CT[filled_C] / counts_C[filled_C, None]
    return np.asarray(means_FT.mean(axis=0), dtype=np.float32)


def _components(values: Doubles, share: float) -> int:
    """How many principal components hold `share` of the variance; at least `_KEPT_WHOLE`, if there are."""
    kept = int(np.count_nonzero(values > _NOTHING * values[0])) if len(values) else 0
    variance = np.cumsum(values[:kept] ** 2)
    enough = int(np.searchsorted(variance, share * variance[-1] * (1 - 1e-9))) + 1 if kept else 0
    return min(kept, max(enough, _KEPT_WHOLE))
