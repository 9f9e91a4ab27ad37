"""Exact nearest neighbours, against a full stable sort."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from trainer.records import Floats
from trainer.score import coarse, screen, segments, topk
from trainer.score.geometry import unit_rows
from trainer.score.topk import nearest

Halves = npt.NDArray[np.float16]


def _random(seed: int, n: int, dim: int = 12) -> Floats:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def _scores(queries_ND: Floats, gallery_MD: Floats | Halves) -> npt.NDArray[np.float64]:
    return np.round(queries_ND.astype(np.float64) @ gallery_MD.astype(np.float64).T, 9)


@pytest.fixture(params=["small", "screened", "cut"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As so little work is done; as much work is done; and that in the smallest pieces."""
    if request.param != "small":
        monkeypatch.setattr(topk, "_SMALL", 0)
    if request.param == "cut":
        monkeypatch.setattr(topk, "_QUERIES", 7)
        monkeypatch.setattr(topk, "_ROUND", 500)
        monkeypatch.setattr(screen, "SPARE_PAIRS", 3)
        for module in (segments, coarse):
            monkeypatch.setattr(module, "TILE", 11)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("size", "top"), [(1, 1), (5, 20), (300, 1), (300, 20), (1200, 10)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_agrees_with_a_full_sort(size: int, top: int, dtype: type[np.floating]) -> None:
    """Indices and scores are those of sorting everything, however the work is cut."""
    queries_ND, gallery_MD = _random(0, 40), _random(1, size).astype(dtype)
    indices_NT, scores_NT = nearest(queries_ND, gallery_MD, top)
    all_NM = _scores(queries_ND, gallery_MD)
    np.testing.assert_array_equal(indices_NT, np.argsort(-all_NM, axis=1, kind="stable")[:, :top])
    np.testing.assert_allclose(scores_NT, np.take_along_axis(all_NM, indices_NT, axis=1), atol=1e-9)


@pytest.mark.usefixtures("path")
def test_duplicates_come_in_the_order_of_the_gallery() -> None:
    """Where more rows tie than are asked for, the lower indices are taken."""
    gallery_MD = np.repeat(_random(2, 3), 11, axis=0)[np.random.default_rng(3).permutation(33)]
    indices_NT, _ = nearest(gallery_MD[:9], gallery_MD, 6)
    for query in range(9):
        twins = np.flatnonzero((gallery_MD == gallery_MD[query]).all(axis=1))
        assert indices_NT[query].tolist() == twins[:6].tolist()


@pytest.mark.usefixtures("path")
def test_zero_vectors_are_found_last_and_in_order() -> None:
    """A zero row is at cosine 0 from everything; a zero query ties with all."""
    gallery_MD = np.array([[0, 0], [1, 0], [0, 0], [0.6, 0.8]], dtype=np.float32)
    indices_NT, _ = nearest(np.array([[1, 0], [0, 0]], dtype=np.float32), gallery_MD, 4)
    assert indices_NT.tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]


def test_memory_does_not_grow_with_the_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen times as many rows take no more memory beside themselves than a few bytes for each."""
    monkeypatch.setattr(topk, "_SMALL", 0)
    queries_ND = _random(5, 3, 64)
    peaks = []
    for size in (8_000, 128_000):
        gallery_MD = np.resize(_random(6, 1_001, 64).astype(np.float16), (size, 64))
        nearest(queries_ND, gallery_MD, 5)
        tracemalloc.start()
        nearest(queries_ND, gallery_MD, 5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 16 * 120_000  # a float16 row alone takes 128 bytes


def test_nan_and_an_empty_gallery_are_refused() -> None:
    """Neither can be sorted."""
    bad = _random(4, 3)
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="gallery: row 0"):
        nearest(_random(4, 3), bad, 1)
    with pytest.raises(ValueError, match="queries: row 0"):
        nearest(bad, _random(4, 3), 1)
    with pytest.raises(ValueError, match="the best 1 of 0"):
        nearest(_random(4, 3), _random(4, 0), 1)
