"""The kernel of scoring and retrieval, against plain float64 loops, on the small and on the screened path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.score import coarse, screen, segments, topk
from trainer.score.blas import Product, bfloat16_product, numpy_product
from trainer.score.coarse import ByBytes
from trainer.score.segments import Top
from trainer.score.topk import nearest_keys, top_segments

Floats = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.floating]


def _reference(queries_ND: Vectors, keys_MD: Vectors, starts: list[int], top: int) -> Top:
    """One query and one key at a time, in float64."""
    owners = [
        segment for segment, start in enumerate(starts) for _ in range(start, _next(starts, segment, keys_MD))
    ]
    answers = []
    for query_D in queries_ND.astype(np.float64):
        best: dict[int, tuple[float, int]] = {}
        for key, (segment, key_D) in enumerate(zip(owners, keys_MD.astype(np.float64), strict=True)):
            score = float(np.round(sum(x * y for x, y in zip(query_D, key_D, strict=True)), 9))
            if segment not in best or score > best[segment][0]:
                best[segment] = (score, key)
        order = sorted(best, key=lambda segment: (-best[segment][0], segment))[:top]
        answers.append([(segment, *best[segment]) for segment in order])
    table = np.array(answers, dtype=np.float64).reshape(len(queries_ND), min(top, len(starts)), 3)
    return Top(table[:, :, 0].astype(np.int64), table[:, :, 1], table[:, :, 2].astype(np.int64))


def _next(starts: list[int], segment: int, keys_MD: Vectors) -> int:
    return [*starts, len(keys_MD)][segment + 1]


FLOAT32, BFLOAT16 = Product(numpy_product, 0.0), Product(bfloat16_product, 2.0**-8)
PRODUCTS = [((FLOAT32,), False), ((BFLOAT16, FLOAT32), False), ((FLOAT32,), True)]


def _multiply_bytes(a_ND: npt.NDArray[np.int8], b_DM: npt.NDArray[np.int8], out_NM: Any) -> None:
    out_NM[...] = a_ND.astype(np.int32) @ b_DM.astype(np.int32)


def _use(patch: pytest.MonkeyPatch, *products: Product, with_bytes: bool = False) -> None:
    """Screen even the smallest task by `products`, whatever is fast here; with bytes first, or without."""
    patch.setattr(topk, "_SMALL", 0)
    patch.setattr(topk, "_MANY", 0)
    patch.setattr(topk, "fastest_products", lambda _: products or (BFLOAT16, FLOAT32))
    patch.setattr(topk, "bytes_pay", lambda _: with_bytes)
    patch.setattr(topk, "ByBytes", partial(ByBytes, multiply=_multiply_bytes))


@contextmanager
def _screened(*products: Product, with_bytes: bool = False) -> Iterator[None]:
    """Within: as `_use`, in tiles so small that every edge is met."""
    with pytest.MonkeyPatch.context() as patch:
        _use(patch, *products, with_bytes=with_bytes)
        patch.setattr(topk, "_QUERIES", 3)
        patch.setattr(topk, "_ROUND", 30)
        patch.setattr(topk, "SPARE_PAIRS", 1)
        patch.setattr(topk, "_PAIRS", 5)
        patch.setattr(topk, "_NORM_ROWS", 2)
        patch.setattr(topk, "BLOCK", 2)
        patch.setattr(segments, "BLOCK", 2)
        patch.setattr(segments, "TILE", 6)
        patch.setattr(segments, "_PAIRS", 2)
        patch.setattr(screen, "_SEGMENTS", 5)
        patch.setattr(coarse, "TILE", 6)
        patch.setattr(screen, "SPARE_PAIRS", 1)
        patch.setattr(screen, "_GROUPS", 1)
        patch.setattr(screen, "_GATHERED", 1)
        yield


def _agree(queries_ND: Vectors, keys_MD: Vectors, starts: list[int], top: int) -> None:
    """Small and screened give the segments, the scores and the keys of the loop, to the last bit."""
    expected = _reference(queries_ND, keys_MD, starts, top)
    given_starts = np.array(starts, dtype=np.int64)
    found = [top_segments(queries_ND, keys_MD, given_starts, top=top)]
    for products, with_bytes in PRODUCTS:
        with _screened(*products, with_bytes=with_bytes):
            found.append(top_segments(queries_ND, keys_MD, given_starts, top=top))
            order = top_segments(queries_ND, keys_MD, given_starts, top=top, order_only=True)
            assert order.segments_NT.tolist() == expected.segments_NT.tolist()
    for best in found:
        assert best.segments_NT.tolist() == expected.segments_NT.tolist()
        assert best.keys_NT.tolist() == expected.keys_NT.tolist()
        np.testing.assert_array_equal(best.scores_NT, expected.scores_NT)


# Whole multiples of 2⁻¹²: sums of their products are exact in float64 in whatever order, and not in float32.
_fine = st.integers(-(2**12), 2**12).map(lambda i: i * 2.0**-12)
_coarse = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])  # ties everywhere


@st.composite
def _tasks(draw: st.DrawFn) -> tuple[Floats, Floats, list[int], int]:
    dim = draw(st.integers(1, 6))
    rows = st.lists(draw(st.sampled_from([_fine, _coarse])), min_size=dim, max_size=dim)
    keys = draw(st.lists(rows, min_size=1, max_size=20))
    twins = draw(st.lists(st.sampled_from(keys), max_size=12))
    keys = draw(st.permutations(keys + twins))
    queries = draw(st.lists(rows | st.sampled_from(keys), min_size=1, max_size=9))
    starts = {0} | draw(st.sets(st.integers(0, len(keys) - 1)))
    scale = draw(st.sampled_from([1.0, 2.0**40, 2.0**-10]))
    return (
        np.array(queries, dtype=np.float32),
        np.array(keys, dtype=np.float32) * np.float32(scale),
        sorted(starts),
        draw(st.integers(1, 8)),
    )


@given(_tasks())
@settings(deadline=None, max_examples=150)
def test_any_task_agrees_with_the_loop(task: tuple[Floats, Floats, list[int], int]) -> None:
    """Ties, twins, zero rows, segments of any size, vast and tiny keys: always the loop's answer."""
    _agree(*task)


def _grid(seed: int, n: int, dim: int) -> Floats:
    return (np.random.default_rng(seed).integers(-(2**10), 2**10, (n, dim)) * 2.0**-12).astype(np.float32)


@pytest.mark.parametrize("top", [1, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_many_keys_of_many_dimensions_agree_with_the_loop(top: int, dtype: type[np.floating]) -> None:
    """Both kinds of vectors, with segments of one key, of several, and of more than a tile."""
    keys_MD = _grid(1, 70, 48).astype(dtype)
    _agree(_grid(2, 20, 48), keys_MD, [0, 1, 2, 3, 9, 12, 13, 30, 60, 61], top)
    _agree(_grid(3, 20, 48), keys_MD, list(range(70)), top)


@pytest.mark.parametrize("spare", [1, 100])
@pytest.mark.parametrize(("product", "apart"), [(FLOAT32, 1e-7), (BFLOAT16, 1e-3)])
def test_scores_nearer_than_the_product_can_tell_are_told_apart(
    spare: int, product: Product, apart: float
) -> None:
    """Keys that hardly differ are ranked as in float64, be they kept in the race or the query lost."""
    rng = np.random.default_rng(4)
    base_D = rng.normal(size=96)
    base_D /= np.linalg.norm(base_D)
    keys_MD = (base_D + apart * rng.normal(size=(60, 96))).astype(np.float32)
    queries_ND = np.stack([base_D, keys_MD[7], -base_D]).astype(np.float32)
    exact_NM = np.round(queries_ND.astype(np.float64) @ keys_MD.astype(np.float64).T, 9)
    order_NM = np.argsort(-exact_NM, axis=1, kind="stable")
    coarse_NM = np.empty((3, 60), np.float32)
    product.multiply(queries_ND, np.ascontiguousarray(keys_MD.T), coarse_NM)
    assert (order_NM[:, :5] != np.argsort(-coarse_NM, axis=1, kind="stable")[:, :5]).any()
    for with_bytes in (False, True):
        with _screened(product, FLOAT32, with_bytes=with_bytes), pytest.MonkeyPatch.context() as patch:
            patch.setattr(screen, "SPARE_PAIRS", spare)
            for order_only in (False, True):
                best = top_segments(queries_ND, keys_MD, top=5, order_only=order_only)
                np.testing.assert_array_equal(best.segments_NT, order_NM[:, :5])


def test_scores_that_are_equal_when_rounded_tie() -> None:
    """Two scores below 10⁻⁹ of one another that round to the same go by their place; no zero is negative."""
    keys_MD = np.array([[1.2e-9], [1.4e-9], [-1e-10]], dtype=np.float32)
    for path in (nullcontext(), _screened()):
        with path:
            best = top_segments(np.ones((1, 1), np.float32), keys_MD, top=3)
            first = top_segments(np.ones((1, 1), np.float32), keys_MD, top=1)
        assert (best.segments_NT.tolist(), best.scores_NT.tolist()) == ([[0, 1, 2]], [[1e-9, 1e-9, 0]])
        assert not np.signbit(best.scores_NT).any()
        assert first.segments_NT.tolist() == [[0]]


@pytest.mark.parametrize(("products", "with_bytes"), PRODUCTS)
def test_the_full_size_of_blocks_and_tiles_agrees_with_a_sort(
    products: tuple[Product, ...], with_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Screening as it is really cut: several blocks, tiles and parts, and queries that are lost in ties."""
    _use(monkeypatch, *products, with_bytes=with_bytes)
    keys_MD = _grid(5, 2300, 24)
    keys_MD[1000:1400] = keys_MD[0]
    queries_ND = np.concatenate([_grid(6, 1400, 24), keys_MD[:3], np.zeros((2, 24), np.float32)])
    scores_NM = np.round(queries_ND.astype(np.float64) @ keys_MD.astype(np.float64).T, 9)
    best = top_segments(queries_ND, keys_MD, top=20)
    order_NT = np.argsort(-scores_NM, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(best.segments_NT, order_NT)
    np.testing.assert_array_equal(best.keys_NT, order_NT)
    np.testing.assert_array_equal(best.scores_NT, np.take_along_axis(scores_NM, order_NT, axis=1))
    for order_only in (False, True):
        few = top_segments(queries_ND[:5], keys_MD, top=20, order_only=order_only)
        np.testing.assert_array_equal(few.segments_NT, order_NT[:5])
    every = top_segments(queries_ND, keys_MD, top=20, order_only=True)
    np.testing.assert_array_equal(every.segments_NT, order_NT)


def test_a_product_that_loses_most_of_the_first_round_is_not_asked_again() -> None:
    """Keys closer than bfloat16 can tell: it is tried on one round only, and the answers are the loop's."""
    asked: list[str] = []

    def counted(name: str, product: Product) -> Product:
        def multiply(a_ND: Floats, b_DM: Floats, out_NM: Floats) -> None:
            asked.append(name)
            product.multiply(a_ND, b_DM, out_NM)

        return Product(multiply, product.unit)

    keys_MD = (1 + 1e-4 * _grid(10, 30, 8)).astype(np.float32)
    queries_ND = np.repeat(keys_MD[:6], 20, axis=0)
    with _screened(counted("coarse", BFLOAT16), counted("fine", FLOAT32)):
        best = top_segments(queries_ND, keys_MD, top=1)
    expected_NM = np.round(queries_ND.astype(np.float64) @ keys_MD.astype(np.float64).T, 9)
    assert best.segments_NT[:, 0].tolist() == expected_NM.argmax(axis=1).tolist()
    assert 0 < asked.count("coarse") < asked.count("fine") / 4


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((1, 2, 3), 0), ((2, 1, 3), 1), ((3, 2, 1), 2), ((1, 1, 0), 0)]
)
def test_the_clock_decides_which_coarse_scores_come_first(
    seconds: tuple[int, int, int], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried on one small round while it is faster than the one before; the fastest takes the rest."""
    clock, asked = [0.0], []

    def timed(number: int, product: Product) -> Product:
        def multiply(a_ND: Floats, b_DM: Floats, out_NM: Floats) -> None:
            asked.append(number)
            clock[0] += seconds[number]
            product.multiply(a_ND, b_DM, out_NM)

        return Product(multiply, product.unit)

    _use(monkeypatch, *(timed(*each) for each in enumerate((BFLOAT16, FLOAT32, FLOAT32))))
    monkeypatch.setattr(topk, "_QUERIES", 8)
    monkeypatch.setattr(topk, "cores", lambda: 1)
    monkeypatch.setattr(topk.time, "process_time", lambda: clock[0])
    keys_MD, queries_ND = _grid(11, 40, 16), _grid(12, 400, 16)
    best = top_segments(queries_ND, keys_MD, top=1)
    expected_NM = np.round(queries_ND.astype(np.float64) @ keys_MD.astype(np.float64).T, 9)
    assert best.segments_NT[:, 0].tolist() == expected_NM.argmax(axis=1).tolist()
    tries = [asked.count(number) for number in range(3)]
    assert max(range(3), key=lambda number: tries[number]) == chosen
    assert min(tries) <= 2


def test_vectors_beyond_float32_are_compared_in_float64() -> None:
    """Where products in float32 would be infinite, the order is still right and nothing warns."""
    queries_ND = np.array([[3e38, 0], [0, -3e38]], dtype=np.float32)
    keys_MD = np.array([[1e38, 1], [2e38, -1], [2e38, 3e38]], dtype=np.float32)
    _agree(queries_ND, keys_MD, [0, 1, 2], 3)


def test_nearest_keys_keeps_to_the_segments_given() -> None:
    """The key is the nearest of that segment and the first of equals, even if another segment has better."""
    keys_MD = np.array([[1, 0], [0, 1], [0, 1], [0.5, 0], [0.5, 0.1]], dtype=np.float32)
    queries_ND = np.array([[0, 1], [1, 0]], dtype=np.float32)
    rows = nearest_keys(queries_ND, keys_MD, np.array([0, 3]), np.array([[1, 0], [0, 1]]))
    assert rows.tolist() == [[4, 1], [0, 3]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_row(bad: float) -> None:
    """On either side, on either path, and beside a row so long that its float32 square is infinite."""
    good, broken = _grid(7, 6, 4), _grid(7, 6, 4)
    broken[0] = 3e38
    broken[5, 1] = bad
    with pytest.raises(ValueError, match="queries: row 5 holds NaN or infinite values"):
        top_segments(broken, good, top=1)
    with pytest.raises(ValueError, match="centers: row 5 holds"):
        top_segments(good, broken, top=1, keys_name="centers")
    with _screened(), pytest.raises(ValueError, match="keys: row 5 holds"):
        top_segments(good, broken, top=1)


def test_what_has_no_answer_is_refused() -> None:
    """No keys, no best ones asked for, other dimensions, segments without keys."""
    x = _grid(8, 3, 4)
    with pytest.raises(ValueError, match="the best 1 of 0"):
        top_segments(x, x[:0], top=1)
    with pytest.raises(ValueError, match="the best 0 of 3"):
        top_segments(x, x, top=0)
    with pytest.raises(ValueError, match="queries have 4 dimensions and keys have 3"):
        top_segments(x, x[:, :3], top=1)
    for starts in ([1, 2], [0, 2, 2], [0, 3]):
        with pytest.raises(ValueError, match="must begin with 0 and rise"):
            top_segments(x, x, np.array(starts), top=1)


def test_no_queries_give_no_rows() -> None:
    """Nothing asked, nothing answered, in the right shape."""
    x = _grid(9, 3, 4)
    for best in (top_segments(x[:0], x, top=2), top_segments(x[:0], x, np.array([0, 2]), top=5)):
        assert best.segments_NT.shape == best.scores_NT.shape == best.keys_NT.shape == (0, 2)
