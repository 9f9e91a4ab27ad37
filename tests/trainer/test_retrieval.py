"""Exact nearest neighbours, against a full stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import retrieval
from trainer.geometry import unit_rows
from trainer.records import Floats
from trainer.retrieval import nearest


def _random(seed: int, n: int, dim: int = 12) -> Floats:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def _reference(queries_ND: Floats, gallery_MD: Floats, top: int) -> np.ndarray:
    cosine_NM = np.round(queries_ND.astype(np.float64) @ gallery_MD.astype(np.float64).T, 6)
    return np.lexsort((np.broadcast_to(np.arange(len(gallery_MD)), cosine_NM.shape), -cosine_NM))[:, :top]


@pytest.mark.parametrize(("size", "top"), [(1, 1), (5, 20), (300, 1), (300, 20)])
@pytest.mark.parametrize("block", [7, 16384])
def test_agrees_with_a_full_sort(size: int, top: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices and scores are those of sorting everything, however the work is cut."""
    monkeypatch.setattr(retrieval, "_GALLERY_CHUNK", block)
    monkeypatch.setattr(retrieval, "_QUERY_CHUNK", block)
    queries_ND, gallery_MD = _random(0, 40), _random(1, size)
    indices_NT, scores_NT = nearest(queries_ND, gallery_MD, top)
    assert np.array_equal(indices_NT, _reference(queries_ND, gallery_MD, top))
    exact_NT = np.take_along_axis(
        queries_ND.astype(np.float64) @ gallery_MD.astype(np.float64).T, indices_NT, axis=1
    )
    np.testing.assert_allclose(scores_NT, exact_NT, atol=2e-6)


@pytest.mark.parametrize("block", [3, 16384])
def test_duplicates_come_in_the_order_of_the_gallery(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more rows tie than are asked for, the lower indices are taken."""
    monkeypatch.setattr(retrieval, "_GALLERY_CHUNK", block)
    gallery_MD = np.repeat(_random(2, 3), 11, axis=0)[np.random.default_rng(3).permutation(33)]
    indices_NT, _ = nearest(gallery_MD[:9], gallery_MD, 6)
    for query in range(9):
        twins = np.flatnonzero((gallery_MD == gallery_MD[query]).all(axis=1))
        assert indices_NT[query].tolist() == twins[:6].tolist()


def test_zero_vectors_are_found_last_and_in_order() -> None:
    """A zero row is at cosine 0 from everything; a zero query ties with all."""
    gallery_MD = np.array([[0, 0], [1, 0], [0, 0], [0.6, 0.8]], dtype=np.float32)
    indices_NT, _ = nearest(np.array([[1, 0], [0, 0]], dtype=np.float32), gallery_MD, 4)
    assert indices_NT.tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]


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
