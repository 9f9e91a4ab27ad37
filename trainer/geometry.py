"""Unit vectors, and their products in a form that does not depend on the BLAS."""

from __future__ import annotations

import numpy as np

from trainer.records import Floats

# Float32 products of unit vectors agree between BLAS libraries, and between places in one matrix, to about
# 1e-7. Rounded here, equal vectors tie exactly and the rule for ties decides, not the machine.
SCORE_DECIMALS = 6


def unit_rows(x_ND: Floats) -> Floats:
    """Each row divided by its length: float32[N, D]; a zero row stays zero."""
    lengths_N1 = np.sqrt(np.sum(np.square(x_ND, dtype=np.float64), axis=1, keepdims=True))
    return np.asarray(x_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0), dtype=np.float32)


def require_finite(x_ND: Floats, what: str) -> None:
    """Raise ValueError where a value is NaN or infinite: comparisons with it would be silently false."""
    if not np.isfinite(x_ND).all():
        row = int(np.argmin(np.isfinite(x_ND).all(axis=1)))
        raise ValueError(f"{what}: row {row} holds NaN or infinite values")
