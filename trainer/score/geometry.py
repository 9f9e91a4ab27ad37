"""Unit vectors, and the rounding that makes their products independent of the BLAS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats

# Float64 products of unit vectors differ between BLAS libraries, and between positions in one matrix, by
# about 1e-16. Rounded to this many decimals, equal vectors tie exactly: the rule for ties decides, not the
# machine.
SCORE_DECIMALS = 9

_ROWS = 1024  # processed together


def rounded(scores: Doubles) -> Doubles:
    """Scores rounded to `SCORE_DECIMALS`, in place, without a negative zero; the same array."""
    np.round(scores, SCORE_DECIMALS, out=scores)
    scores += 0.0
    return scores


def unit_rows(x_ND: Floats) -> Floats:
    """Each row divided by its length: float32[N, D]; a zero row stays zero."""
    unit_ND = np.empty(x_ND.shape, dtype=np.float32)
    for start in range(0, len(x_ND), _ROWS):
        x_RD = x_ND[start : start + _ROWS]
        lengths_R1 = np.sqrt(np.sum(np.square(x_RD, dtype=np.float64), axis=1, keepdims=True))
        unit_ND[start : start + _ROWS] = x_RD / np.where(lengths_R1 > 0, lengths_R1, 1.0)
    return unit_ND


def require_finite(x_ND: npt.NDArray[np.floating], what: str, *, first: int = 0) -> None:
    """Raise ValueError where a value is NaN or infinite, because comparisons with NaN are silently false.

    The message names the row, counted from `first`.
    """
    for start in range(0, len(x_ND), _ROWS):
        finite_RD = np.isfinite(x_ND[start : start + _ROWS])
        if not finite_RD.all():
            row = first + start + int(np.argmin(finite_RD.all(axis=1)))
            raise ValueError(f"{what}: row {row} holds NaN or infinite values")
