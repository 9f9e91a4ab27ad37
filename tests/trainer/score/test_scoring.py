"""Every scorer, against plain float64 loops and on inputs that are out to trip it."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.records import Centers, Floats
from trainer.score import coarse, scoring, screen, segments, topk, ways
from trainer.score.geometry import unit_rows
from trainer.score.scoring import SCORERS, best_categories, category_scores, score
from trainer.settings import Scorer

SCORER_NAMES: tuple[Scorer, ...] = get_args(Scorer)


def _random(seed: int, n: int, dim: int = 16) -> Floats:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def _centers(vectors_ND: Floats, category_N: list[int], n_categories: int) -> Centers:
    return Centers(
        categories=tuple(f"c{i}" for i in range(n_categories)),
        row_ids=tuple(f"r{i}" for i in range(len(category_N))),
        category_N=np.array(category_N, dtype=np.int64),
        vectors_ND=vectors_ND,
    )


def _dot(x_D: list[float], y_D: list[float]) -> float:
    return sum(x * y for x, y in zip(x_D, y_D, strict=True))


def _rounded(value: float) -> float:
    return float(np.round(value, 9))


def _medoid(own_KD: list[list[float]]) -> list[float]:
    sums = [
        _rounded(sum(_dot(z_D, other_D) for j, other_D in enumerate(own_KD) if j != i))
        for i, z_D in enumerate(own_KD)
    ]
    return own_KD[sums.index(max(sums))]


def _mean(own_KD: list[list[float]]) -> list[float]:
    sum_D = [sum(column) for column in zip(*own_KD, strict=True)]
    length = math.sqrt(_dot(sum_D, sum_D))
    return [float(np.float32(x / length)) if length > 0 else 0.0 for x in sum_D]


def _category_score(
    query_D: list[float], own_KD: list[list[float]], scorer: Scorer, temperature: float
) -> float:
    """The formulas of the docstring, one number at a time."""
    cosines = [_dot(query_D, z_D) for z_D in own_KD]
    if scorer == "nearest":
        return _rounded(max(cosines))
    if scorer == "mean":
        return _rounded(_dot(query_D, _mean(own_KD)))
    if scorer == "medoid":
        return _rounded(_dot(query_D, _medoid(own_KD)))
    highest = max(cosines)
    mean = math.fsum(math.exp((cosine - highest) / temperature) for cosine in cosines) / len(cosines)
    return _rounded(highest + temperature * math.log(mean))


def _reference(
    queries_ND: Floats, centers: Centers, scorer: Scorer, temperature: float = scoring.TEMPERATURE
) -> list[list[tuple[int, float, str]]]:
    """For each query all categories that have a center, best first: (category, score, nearest row id)."""
    own: dict[int, list[tuple[str, list[float]]]] = {}
    rows = zip(centers.row_ids, centers.category_N.tolist(), centers.vectors_ND.tolist(), strict=True)
    for row_id, category, center_D in rows:
        own.setdefault(category, []).append((row_id, center_D))
    answers = []
    for query_D in queries_ND.tolist():
        row = []
        for category, texts in own.items():
            cosines = [_rounded(_dot(query_D, center_D)) for _, center_D in texts]
            value = _category_score(query_D, [center_D for _, center_D in texts], scorer, temperature)
            row.append((category, value, texts[cosines.index(max(cosines))][0]))
        answers.append(sorted(row, key=lambda each: (-each[1], each[0])))
    return answers


def _agree(queries_ND: Floats, centers: Centers, scorer: Scorer, top: int) -> None:
    """Categories and reasons are those of the loop, scores to the last decimal but one."""
    expected = _reference(queries_ND, centers, scorer)
    ranked = score(queries_ND, centers, scorer=scorer, top=top)
    named_NT = best_categories(queries_ND, centers, scorer=scorer, top=top)
    np.testing.assert_array_equal(named_NT, ranked.categories_NT)
    scores_NC = category_scores(queries_ND, centers, scorer)
    for i, row in enumerate(expected):
        assert ranked.categories_NT[i].tolist() == [category for category, _, _ in row[:top]]
        assert ranked.why(centers, i) == [row_id for _, _, row_id in row[:top]]
        np.testing.assert_allclose(ranked.scores_NT[i], [value for _, value, _ in row[:top]], atol=2e-9)
        by_category = {category: value for category, value, _ in row}
        every = [by_category.get(c, -math.inf) for c in range(len(centers.categories))]
        np.testing.assert_allclose(scores_NC[i], every, atol=2e-9 if scores_NC.dtype == np.float64 else 5e-7)


@pytest.fixture
def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large path even for little work, in tiles and chunks of a few."""
    monkeypatch.setattr(topk, "_SMALL", 0)
    monkeypatch.setattr(topk, "_QUERIES", 7)
    monkeypatch.setattr(screen, "SPARE_PAIRS", 2)
    for module in (segments, coarse):
        monkeypatch.setattr(module, "TILE", 5)
    monkeypatch.setattr(ways, "_SMALL", 0)
    monkeypatch.setattr(ways, "_CELLS", 60)
    monkeypatch.setattr(ways, "_PAIRS", 9)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@pytest.mark.parametrize("top", [1, 3, 99])
def test_agrees_with_a_float64_loop(scorer: Scorer, top: int) -> None:
    """Uneven categories, some without any center."""
    category_N = [0] * 7 + [1] + [3] * 20 + [6] * 2
    _agree(_random(1, 60), _centers(_random(2, len(category_N)), category_N, 8), scorer, top)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.usefixtures("small_cuts")
def test_the_large_path_agrees_with_the_loop(scorer: Scorer, top: int) -> None:
    """The same where everything is screened, cut into tiles, and spread over threads."""
    category_N = [0] * 7 + [1] + [3] * 20 + [6] * 2 + [7, 8, 9]
    _agree(_random(1, 60), _centers(_random(2, len(category_N)), category_N, 11), scorer, top)


# Whole multiples of 1/8 up to one: products are exact, and scores tie in many ways.
_eighths = st.integers(-8, 8).map(lambda i: i / 8)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_centers_agree_with_the_loop(scorer: Scorer, data: st.DataObject) -> None:
    """Duplicates, zero vectors, ties between and within categories, one center alone."""
    dim = data.draw(st.integers(1, 4))
    rows = st.lists(_eighths, min_size=dim, max_size=dim)
    vectors = data.draw(st.lists(rows, min_size=1, max_size=12))
    vectors += data.draw(st.lists(st.sampled_from(vectors), max_size=6))
    owners = sorted(data.draw(st.lists(st.integers(0, 5), min_size=len(vectors), max_size=len(vectors))))
    queries = data.draw(st.lists(rows | st.sampled_from(vectors), min_size=1, max_size=5))
    centers = _centers(np.array(vectors, dtype=np.float32), owners, 7)
    _agree(np.array(queries, dtype=np.float32), centers, scorer, data.draw(st.integers(1, 7)))


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@pytest.mark.parametrize("cut", ["whole", "small"])
def test_ties_go_to_the_first_category_and_center(
    scorer: Scorer, cut: str, request: pytest.FixtureRequest
) -> None:
    """Equal centers everywhere: the lower category and its earlier center win, wherever they stand."""
    if cut == "small":
        request.getfixturevalue("small_cuts")
    same_ND = np.repeat(_random(5, 1), 37, axis=0)
    centers = _centers(same_ND, sorted([0, 1, 2, 3, 4] * 7 + [5, 5]), 6)
    ranked = score(_random(6, 23), centers, scorer=scorer, top=6)
    assert (ranked.categories_NT == np.arange(6)).all()
    assert (ranked.why_NT == [0, 7, 14, 21, 28, 35]).all()


@pytest.mark.parametrize("scorer", SCORER_NAMES)
def test_a_zero_query_gets_the_first_category_with_score_zero(scorer: Scorer) -> None:
    """No direction, no preference: the rule for ties decides."""
    ranked = score(
        np.zeros((1, 16), np.float32), _centers(_random(7, 4), [0, 0, 1, 1], 2), scorer=scorer, top=1
    )
    assert ranked.categories_NT.tolist() == [[0]]
    assert ranked.scores_NT.tolist() == [[0.0]]


@pytest.mark.parametrize("scorer", SCORER_NAMES)
def test_opposite_centers_and_zero_centers_speak_for_nothing(scorer: Scorer) -> None:
    """A mean of length zero and a center of length zero score 0, without a warning."""
    vectors_ND = np.array([[1, 0], [-1, 0], [0, 0], [0, 1]], dtype=np.float32)
    _agree(np.array([[1, 0], [0, -1]], dtype=np.float32), _centers(vectors_ND, [0, 0, 1, 2], 3), scorer, 3)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
def test_vast_magnitudes_are_scored_without_overflow(scorer: Scorer) -> None:
    """Vectors as long as float32 allows: finite float64 scores in the right order."""
    vectors_ND = np.array([[2e38, 0], [1e38, 0], [0, 3e38]], dtype=np.float32)
    queries_ND = np.array([[3e38, 0], [0, 1e38]], dtype=np.float32)
    ranked = score(queries_ND, _centers(vectors_ND, [0, 0, 1], 2), scorer=scorer, top=2)
    assert ranked.categories_NT.tolist() == [[0, 1], [1, 0]]
    assert np.isfinite(ranked.scores_NT).all()


def test_logsumexp_lies_between_the_nearest_and_the_mean_cosine() -> None:
    """A temperature near 0 gives the nearest center's score, a high one the mean of the cosines."""
    queries_ND, centers = _random(20, 30), _centers(_random(21, 12), sorted([0, 1, 2] * 4), 3)
    nearest_NC = category_scores(queries_ND, centers, "nearest")
    cosines_NM = queries_ND.astype(np.float64) @ centers.vectors_ND.astype(np.float64).T
    mean_NC = cosines_NM.reshape(30, 3, 4).mean(axis=2)
    cold_NC, warm_NC = (category_scores(queries_ND, centers, "logsumexp", temperature=t) for t in (1e-6, 1e5))
    np.testing.assert_allclose(cold_NC, nearest_NC, atol=1e-5)
    np.testing.assert_allclose(warm_NC, mean_NC, atol=1e-5)
    own = score(queries_ND, centers, scorer="logsumexp", top=3, temperature=0.3)
    expected = _reference(queries_ND, centers, "logsumexp", 0.3)
    assert own.categories_NT.tolist() == [[category for category, _, _ in row] for row in expected]


@pytest.mark.parametrize("scorer", SCORER_NAMES)
def test_more_copies_of_a_center_are_no_more_votes(scorer: Scorer) -> None:
    """A category with its texts three times over scores as it does with each once."""
    once, queries_ND = _random(22, 4), _random(23, 9)
    centers = _centers(np.concatenate([once, np.repeat(once, 3, axis=0)]), [0] * 4 + [1] * 12, 2)
    scores_NC = category_scores(queries_ND, centers, scorer)
    np.testing.assert_allclose(scores_NC[:, 0], scores_NC[:, 1], atol=1e-7)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@pytest.mark.parametrize("cut", ["whole", "small"])
def test_the_order_of_the_centers_is_no_preference(
    scorer: Scorer, cut: str, request: pytest.FixtureRequest
) -> None:
    """Categories with the same centers in another order tie, though sums in another order differ a little."""
    if cut == "small":
        request.getfixturevalue("small_cuts")
    own, rng = _random(24, 9), np.random.default_rng(25)
    shuffled = [own[rng.permutation(9)] for _ in range(6)]
    centers = _centers(np.concatenate(shuffled), sorted([*range(6)] * 9), 6)
    ranked = score(_random(26, 40), centers, scorer=scorer, top=6)
    assert (ranked.categories_NT == np.arange(6)).all()


def test_one_center_owns_everything() -> None:
    """With a single center every query belongs to its category, which need not be the first."""
    ranked = score(_random(8, 5), _centers(_random(9, 1), [2], 3), top=5)
    assert ranked.categories_NT.tolist() == [[2]] * 5


@pytest.mark.parametrize("scorer", SCORER_NAMES)
def test_no_query_gives_empty_columns(scorer: Scorer) -> None:
    """Nothing asked, nothing answered, in the right shape."""
    centers = _centers(_random(9, 3), [0, 1, 2], 3)
    assert score(_random(8, 0), centers, scorer=scorer, top=2).categories_NT.shape == (0, 2)
    assert category_scores(_random(8, 0), centers, scorer).shape == (0, 3)


@pytest.mark.parametrize("scorer", SCORER_NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_on_both_sides(scorer: Scorer, bad: float) -> None:
    """A comparison with NaN is silently false, so neither queries nor centers may hold one."""
    good, broken = _random(10, 2), _random(10, 2)
    broken[1, 3] = bad
    for way in (score, category_scores):
        with pytest.raises(ValueError, match="queries: row 1"):
            way(broken, _centers(good, [0, 1], 2), scorer=scorer)
        with pytest.raises(ValueError, match="centers: row 1"):
            way(good, _centers(broken, [0, 1], 2), scorer=scorer)


def test_what_has_no_answer_is_refused() -> None:
    """No centers, an unknown scorer, no order, no temperature, nothing asked for."""
    x, one = _random(11, 1), _centers(_random(11, 1), [0], 1)
    with pytest.raises(ValueError, match="no centers"):
        score(x, _centers(_random(11, 0), [], 2))
    with pytest.raises(ValueError, match="unknown scorer 'median'; known: nearest, logsumexp, mean, medoid"):
        score(x, one, scorer="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not sorted by category"):
        score(x, _centers(_random(11, 3), [0, 1, 0], 2))
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive"):
            score(x, one, scorer="logsumexp", temperature=temperature)
    for scorer in SCORER_NAMES:
        with pytest.raises(ValueError, match="the best 0"):
            score(x, one, scorer=scorer, top=0)


def test_every_scorer_of_the_settings_has_a_function() -> None:
    """`evaluate.scorer` takes exactly the names in `SCORERS`."""
    assert set(SCORERS) == set(get_args(Scorer))
