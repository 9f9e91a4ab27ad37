"""Unit vectors, and their products in a form that does not depend on the BLAS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats

# Float64 products of unit vectors agree between BLAS libraries, and between places in one matrix, to about
# 1e-16. Rounded here, equal vectors tie exactly and the rule for ties decides, not the machine.
SCORE_DECIMALS = 9

_ROWS = 4096  # looked at in one go


def rounded(scores: Doubles) -> Doubles:
    """Scores rounded to `SCORE_DECIMALS`, in place, without a negative zero; the same array."""
    np.round(scores, SCORE_DECIMALS, out=scores)
    scores += 0.0
    return scores


def unit_rows(x_ND: Floats) -> Floats:
    """Each row divided by its length: float32[N, D]; a zero row stays zero."""
    lengths_N1 = np.sqrt(np.sum(np.square(x_ND, dtype=np.float64), axis=1, keepdims=True))
    return np.asarray(x_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0), dtype=np.float32)


def require_finite(x_ND: npt.NDArray[np.floating], what: str, *, first: int = 0) -> None:
    """Raise ValueError where a value is NaN or infinite: comparisons with it would be silently false.

    The message names the row, counted from `first`.
    """
    for start in range(0, len(x_ND), _ROWS):
        finite_RD = np.isfinite(x_ND[start : start + _ROWS])
        if not finite_RD.all():
            row = first + start + int(np.argmin(finite_RD.all(axis=1)))
            raise ValueError(f"{what}: row {row} holds NaN or infinite values")
