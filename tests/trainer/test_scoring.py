"""The nearest center, against a float64 reference and on inputs that are out to trip it."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import scoring
from trainer.geometry import unit_rows
from trainer.records import Centers, Floats
from trainer.scoring import score


def _random(seed: int, n: int, dim: int = 16) -> Floats:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def _centers(vectors_ND: Floats, category_N: list[int], n_categories: int) -> Centers:
    return Centers(
        categories=tuple(f"c{i}" for i in range(n_categories)),
        row_ids=tuple(f"r{i}" for i in range(len(category_N))),
        category_N=np.array(category_N, dtype=np.int64),
        vectors_ND=vectors_ND,
    )


def _reference(queries_ND: Floats, centers: Centers, top: int) -> list[list[tuple[int, float, str]]]:
    """One query and one center at a time, in float64."""
    answers = []
    for query_D in queries_ND.astype(np.float64):
        best: dict[int, tuple[float, str]] = {}
        for row_id, category, center_D in zip(
            centers.row_ids, centers.category_N.tolist(), centers.vectors_ND.astype(np.float64), strict=True
        ):
            cosine = round(float(query_D @ center_D), 6)
            if category not in best or cosine > best[category][0]:
                best[category] = (cosine, row_id)
        ordered = sorted(best, key=lambda c: (-best[c][0], c))[:top]
        answers.append([(c, *best[c]) for c in ordered])
    return answers


def _agree(queries_ND: Floats, centers: Centers, top: int) -> None:
    ranked = score(queries_ND, centers, top=top)
    for i, expected in enumerate(_reference(queries_ND, centers, top)):
        assert ranked.categories_NT[i].tolist() == [category for category, _, _ in expected]
        np.testing.assert_allclose(ranked.scores_NT[i], [cosine for _, cosine, _ in expected], atol=2e-6)
        assert ranked.why(centers, i) == [row_id for _, _, row_id in expected]


@pytest.mark.parametrize("top", [1, 3, 99])
def test_agrees_with_a_float64_loop(top: int) -> None:
    """Categories, scores and winning rows are those of a plain loop, with uneven and missing categories."""
    category_N = [0] * 7 + [1] + [3] * 20 + [6] * 2
    _agree(_random(1, 60), _centers(_random(2, len(category_N)), category_N, 8), top)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """One query at a time gives what all at once give."""
    centers = _centers(_random(3, 12), sorted([0, 1, 2] * 4), 3)
    whole = score(_random(4, 31), centers, top=2)
    monkeypatch.setattr(scoring, "_CHUNK_NUMBERS", 1)
    single = score(_random(4, 31), centers, top=2)
    assert np.array_equal(whole.categories_NT, single.categories_NT)
    assert np.array_equal(whole.why_NT, single.why_NT)


def test_ties_go_to_the_first_category_and_center() -> None:
    """Equal centers everywhere: the lower category and its earlier center win, wherever they stand."""
    same_ND = np.repeat(_random(5, 1), 37, axis=0)
    ranked = score(_random(6, 23), _centers(same_ND, sorted([0, 1, 2, 3, 4] * 7 + [5, 5]), 6), top=6)
    assert (ranked.categories_NT == np.arange(6)).all()
    assert (ranked.why_NT == [0, 7, 14, 21, 28, 35]).all()


def test_a_zero_query_gets_the_first_category_with_score_zero() -> None:
    """No direction, no preference: the rule for ties decides."""
    ranked = score(np.zeros((1, 16), np.float32), _centers(_random(7, 4), [0, 0, 1, 1], 2), top=1)
    assert ranked.categories_NT.tolist() == [[0]]
    assert ranked.scores_NT.tolist() == [[0.0]]


def test_one_center_owns_everything() -> None:
    """With a single center every query belongs to its category, which need not be the first."""
    ranked = score(_random(8, 5), _centers(_random(9, 1), [2], 3), top=5)
    assert ranked.categories_NT.tolist() == [[2]] * 5


def test_no_query_gives_empty_columns() -> None:
    """Nothing asked, nothing answered, in the right shape."""
    assert score(_random(8, 0), _centers(_random(9, 3), [0, 1, 2], 3), top=2).categories_NT.shape == (0, 2)


def test_nan_is_refused_on_both_sides() -> None:
    """A comparison with NaN is silently false, so neither queries nor centers may hold one."""
    good, bad = _random(10, 2), _random(10, 2)
    bad[1, 3] = np.nan
    with pytest.raises(ValueError, match="queries: row 1"):
        score(bad, _centers(good, [0, 1], 2))
    with pytest.raises(ValueError, match="centers: row 1"):
        score(good, _centers(bad, [0, 1], 2))


def test_no_center_and_an_unknown_scorer_are_refused() -> None:
    """Neither has an answer."""
    with pytest.raises(ValueError, match="no centers"):
        score(_random(11, 1), _centers(_random(11, 0), [], 2))
    with pytest.raises(ValueError, match="unknown scorer 'median'"):
        score(_random(11, 1), _centers(_random(11, 1), [0], 1), scorer="median")  # type: ignore[arg-type]
