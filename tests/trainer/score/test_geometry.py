"""Unit rows, and the refusal of what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.score.geometry import require_finite, unit_rows


def test_unit_rows_agree_with_float64() -> None:
    """Rows of any size get length one, to float32 precision."""
    x_ND = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * 1e-15
    expected_ND = x_ND.astype(np.float64) / np.linalg.norm(x_ND.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit_rows(x_ND), expected_ND, atol=1e-7)


def test_a_zero_row_stays_zero() -> None:
    """There is no direction in nothing: no NaN comes out."""
    assert unit_rows(np.zeros((2, 3), dtype=np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_row_that_is_not_finite_is_named(bad: float) -> None:
    """NaN and infinity are refused with their row."""
    x_ND = np.zeros((4, 2), dtype=np.float32)
    x_ND[2, 1] = bad
    with pytest.raises(ValueError, match="queries: row 2"):
        require_finite(x_ND, "queries")
