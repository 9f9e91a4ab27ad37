"""Average precision, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from trainer.evaluate import recognition as precision
from trainer.evaluate.recognition import average_precision, mean_average_precision
from trainer.records import Centers
from trainer.score.geometry import unit_rows
from trainer.score.scoring import category_scores


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_agrees_with_scikit_learn_ties_included(decimals: int) -> None:
    """Rounded scores tie in groups: each group is one step of the curve."""
    rng = np.random.default_rng(decimals)
    scores_N, relevant_N = np.round(rng.normal(size=80), decimals), rng.random(80) < 0.3
    expected = average_precision_score(relevant_N, scores_N)
    assert average_precision(scores_N, relevant_N) == pytest.approx(expected)
    with pytest.raises(ValueError, match="nothing"):
        average_precision(scores_N, np.zeros(80, dtype=bool))


@pytest.mark.parametrize("block", [2, 64])
def test_the_mean_is_over_the_categories_shown(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples with two labels count for both; a category without samples or not shown counts for nothing."""
    monkeypatch.setattr(precision, "_BLOCK", block)
    rng = np.random.default_rng(5)
    vectors_ND = unit_rows(rng.normal(size=(60, 5)).astype(np.float32))
    labels_NL = np.column_stack([rng.integers(0, 4, 60), rng.choice([-1, 5], 60)])
    owners = np.array([0, 0, 1, 2, 2, 4, 5])  # category 3 has no center
    centers = Centers(
        tuple("abcdef"),
        tuple("tuvwxyz"),
        owners,
        unit_rows(rng.normal(size=(7, 5)).astype(np.float32)),
    )
    scores_NC = category_scores(vectors_ND, centers)
    shown_C = np.array([False, True, True, True, True, True])
    ranked_NC = np.where(np.isinf(scores_NC), 0, scores_NC)
    expected = [average_precision_score((labels_NL == c).any(axis=1), ranked_NC[:, c]) for c in (1, 2, 3, 5)]
    expected[2] = float((labels_NL == 3).any(axis=1).mean())  # nothing is ranked: all tie
    found = mean_average_precision(scores_NC, labels_NL, shown_C)
    assert found == pytest.approx(np.mean(expected))
    nothing_C = np.arange(6) == 4
    assert mean_average_precision(scores_NC, labels_NL, nothing_C) is None
