"""Several rankings from one product, against plain float64 ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from trainer.records import Doubles, Floats, Ints
from trainer.score import segments, ways
from trainer.score.geometry import unit_rows
from trainer.score.ways import Measure, Way, rank_ways

SIZES = {"uneven": (3, 1, 8, 2, 12, 5, 1, 4), "even": (4,) * 9}
MEASURES = [Measure(soft, first) for soft in (False, True) for first in (None, 1, 3, 7)]


@pytest.fixture(params=["float64", "float32"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What products are made in: float32 is what very many of them would be, in tiles and blocks of a few."""
    if request.param == "float32":
        monkeypatch.setattr(ways, "_SMALL", 0)
        monkeypatch.setattr(ways, "_QUERIES", 7)
        monkeypatch.setattr(ways, "_ROUND", 2)
        monkeypatch.setattr(ways, "_PAIRS", 11)
        monkeypatch.setattr(segments, "TILE", 10)
    return str(request.param)


def _world(sizes: tuple[int, ...], *, n: int = 50, dim: int = 6) -> tuple[Floats, Floats, Ints]:
    rng = np.random.default_rng(3)
    queries_ND, centers_MD = (
        unit_rows(rng.normal(size=(rows, dim)).astype(np.float32)) for rows in (n, sum(sizes))
    )
    return queries_ND, centers_MD, np.cumsum((0, *sizes[:-1]))


def _scores(
    queries_ND: Floats, centers_MD: Floats, starts_F: Ints, measure: Measure, temperature: float = 0.05
) -> Doubles:
    """Every run's score by NumPy and SciPy, in one go each: [N, F]."""
    columns = []
    for own_KD in np.split(centers_MD.astype(np.float64), starts_F[1:]):
        cosines_NK = queries_ND.astype(np.float64) @ own_KD[: measure.first].T
        k = cosines_NK.shape[1]
        soft_N = temperature * (logsumexp(cosines_NK / temperature, axis=1) - np.log(k))
        columns.append(soft_N if measure.soft else cosines_NK.max(axis=1))
    return np.round(np.stack(columns, axis=1), 9)


def _ranked(scores_NF: Doubles, owner_F: Ints, top: int) -> tuple[Ints, Doubles]:
    taking = np.flatnonzero(owner_F >= 0)
    taking = taking[np.argsort(owner_F[taking])]  # a stable sort then lets ties go to the lower category
    order_NT = np.argsort(-scores_NF[:, taking], axis=1, kind="stable")[:, :top]
    return owner_F[taking][order_NT], np.take_along_axis(scores_NF[:, taking], order_NT, axis=1)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("top", [1, 5, 99])
def test_every_way_is_ranked_as_if_alone(kind: str, sizes: tuple[int, ...], top: int) -> None:
    """All measures, each among all, among some, and by other names."""
    queries_ND, centers_MD, starts_F = _world(sizes)
    f, rng = len(sizes), np.random.default_rng(0)
    owners = [np.arange(f), np.where(rng.random(f) < 0.6, np.arange(f), -1), rng.permutation(f)]
    asked = [Way(measure, owner_F) for measure in MEASURES for owner_F in owners]
    found, whole_NF = rank_ways(
        queries_ND, centers_MD, starts_F, asked, top=top, temperature=0.05, whole=MEASURES[5]
    )
    for way, ranking in zip(asked, found, strict=True):
        scores_NF = _scores(queries_ND, centers_MD, starts_F, way.measure)
        categories_NT, scores_NT = _ranked(scores_NF, way.owner_F, top)
        assert (ranking.categories_NT == categories_NT).all()
        np.testing.assert_allclose(ranking.scores_NT, scores_NT, rtol=0, atol=1.1e-9)
    assert whole_NF.dtype == np.dtype(kind)
    expected_NF = _scores(queries_ND, centers_MD, starts_F, MEASURES[5])
    np.testing.assert_allclose(whole_NF, expected_NF, rtol=0, atol=1.1e-9 if kind == "float64" else 5e-7)


@pytest.mark.parametrize("exponential", [(np.exp, 1.0), (np.exp2, np.log(2))])
@pytest.mark.parametrize("temperature", [0.05, 1e-3])  # with the lower one, exponentials overflow
def test_the_order_alone_is_the_same(
    kind: str, temperature: float, exponential: tuple[np.ufunc, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for no scores, ways rank alike, also where scores differ by less than float32 can tell."""
    monkeypatch.setattr(ways, "fastest_exponential", lambda: exponential)
    queries_ND, centers_MD, starts_F = _world(SIZES["uneven"])
    centers_MD[20] = centers_MD[3] + np.float32(1e-7)
    f = len(starts_F)
    owners = [np.arange(f), np.where(np.arange(f) == 2, -1, np.arange(f)), np.arange(f)[::-1]]
    asked = [Way(measure, owner_F) for measure in MEASURES for owner_F in owners]
    found, whole_NF = rank_ways(
        queries_ND,
        centers_MD,
        starts_F,
        asked,
        top=3,
        temperature=temperature,
        whole=MEASURES[4],
        order_only=True,
    )
    for way, ranking in zip(asked, found, strict=True):
        scores_NF = _scores(queries_ND, centers_MD, starts_F, way.measure, temperature)
        assert (ranking.categories_NT == _ranked(scores_NF, way.owner_F, 3)[0]).all()
        assert ranking.scores_NT.shape == (50, 0)
    expected_NF = _scores(queries_ND, centers_MD, starts_F, MEASURES[4], temperature)
    np.testing.assert_allclose(whole_NF, expected_NF, rtol=0, atol=1.1e-9 if kind == "float64" else 5e-7)


@pytest.mark.parametrize("order_only", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_ties_go_to_the_lower_category_whatever_the_order_of_the_runs(
    kind: str, soft: bool, order_only: bool
) -> None:
    """Equal runs under permuted names: categories come in their own order."""
    queries_ND, centers_MD, _ = _world((4,))
    owner_F = np.random.default_rng(1).permutation(9)
    (ranking,), _ = rank_ways(
        queries_ND,
        np.tile(centers_MD, (9, 1)),
        np.arange(0, 36, 4),
        [Way(Measure(soft), owner_F)],
        top=6,
        temperature=0.05,
        order_only=order_only,
    )
    assert (ranking.categories_NT == np.arange(6)).all()


@pytest.mark.parametrize("order_only", [False, True])
def test_differences_that_float32_cannot_see_decide(kind: str, order_only: bool) -> None:
    """Centers that differ by less than products are rounded by are told apart, beyond nine decimals not."""
    centers_MD = np.array([[0.5, 1e-9, 0], [0.5, 8e-9, 0], [0.5, 4e-9, 0], [0.5, 8.1e-9, 0]], np.float32)
    queries_ND = np.array([[1, 1, 0], [1, -1, 0], [0, 0, 1]], np.float32)
    way = Way(Measure(), np.arange(4))
    (ranking,), _ = rank_ways(
        queries_ND, centers_MD, np.arange(4), [way], top=4, temperature=0.05, order_only=order_only
    )
    assert ranking.categories_NT.tolist() == [[1, 3, 2, 0], [0, 2, 1, 3], [0, 1, 2, 3]]


def test_vast_vectors_are_not_multiplied_in_float32(kind: str) -> None:
    """Where float32 would overflow, float64 takes over."""
    centers_MD = np.array([[2e38, 0], [0, 3e38]], np.float32)
    ways_ = [Way(Measure(soft), np.arange(2)) for soft in (False, True)]
    found, whole_NF = rank_ways(
        np.array([[3e38, 0], [0, 1e38]], np.float32),
        centers_MD,
        np.arange(2),
        ways_,
        top=2,
        temperature=0.05,
        whole=Measure(),
    )
    assert all(ranking.categories_NT.tolist() == [[0, 1], [1, 0]] for ranking in found)
    assert np.isfinite(whole_NF).all()


def test_nothing_asked_and_no_one_taking_part(kind: str) -> None:
    """No way, no query, and a way in which no run takes part: empty, in the right shapes."""
    queries_ND, centers_MD, starts_F = _world(SIZES["even"])
    found, whole_NF = rank_ways(queries_ND, centers_MD, starts_F, [], top=3, temperature=0.05)
    assert (found, whole_NF.shape) == ([], (50, 0))
    some = [Way(Measure(), np.arange(9)), Way(Measure(), np.full(9, -1))]
    found, _ = rank_ways(queries_ND, centers_MD, starts_F, some, top=3, temperature=0.05)
    assert [ranking.categories_NT.shape for ranking in found] == [(50, 3), (50, 0)]
    found, whole_NF = rank_ways(
        queries_ND[:0], centers_MD, starts_F, some, top=3, temperature=0.05, whole=Measure()
    )
    assert [ranking.scores_NT.shape for ranking in found] == [(0, 3), (0, 0)]
    assert whole_NF.shape == (0, 9)
