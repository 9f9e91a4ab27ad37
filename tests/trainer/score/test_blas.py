"""The products that are compared for speed: as exact as they say, and the fastest is taken."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from data.environment import cores
from trainer.score import blas
from trainer.score.blas import (
    Product,
    bfloat16_product,
    byte_product,
    bytes_pay,
    fastest_exponential,
    fastest_products,
    largest_error,
    numpy_product,
    torch_product,
)

PRODUCTS = [Product(numpy_product, 0.0), Product(torch_product, 0.0), Product(bfloat16_product, 2.0**-8)]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.multiply.__name__)
@pytest.mark.parametrize(
    ("n", "dim", "m"), [(1, 1, 1), (5, 7, 3), (1, 384, 512), (500, 384, 1), (3, 2, 400), (64, 1000, 65)]
)
def test_products_are_as_exact_as_they_say(product: Product, n: int, dim: int, m: int) -> None:
    """Each element is a @ b but for the share of its factors' lengths that `largest_error` allows.

    Positive numbers, whose sums round most; read-only ones, as a mapped file's are.
    """
    rng = np.random.default_rng(n + dim + m)
    a_ND, b_DM = rng.random((n, dim), dtype=np.float32), rng.random((dim, m), dtype=np.float32)
    a_ND.flags.writeable = b_DM.flags.writeable = False
    out_NM = np.zeros((n, m), np.float32)
    product.multiply(a_ND, b_DM, out_NM)
    bound_NM = np.outer(np.linalg.norm(a_ND, axis=1), np.linalg.norm(b_DM, axis=0))
    error_NM = np.abs(out_NM - a_ND.astype(np.float64) @ b_DM.astype(np.float64))
    assert (error_NM <= bound_NM * largest_error(dim, product.unit) + 1e-30).all()


def test_the_largest_error_is_the_known_bound() -> None:
    """γ of 384 float32 numbers; with bfloat16 three more roundings of 1/256 each."""
    assert largest_error(384, 0.0) == pytest.approx(384 * 2**-24, rel=1e-4)
    assert largest_error(384, 2.0**-8) == pytest.approx((1 + 2**-8) ** 3 - 1 + 384 * 2**-24, rel=1e-3)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1, 2, 3), [numpy_product]),
        ((2, 1, 3), [torch_product]),
        ((2, 3, 1), [bfloat16_product, numpy_product]),
        ((3, 2, 1), [bfloat16_product, torch_product]),
        ((3, 1, 2), [torch_product]),
    ],
)
def test_the_fastest_products_are_taken(
    seconds: tuple[int, int, int], expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster of the two float32 ones, and before it bfloat16 where that is faster still."""
    ranking = dict(zip((numpy_product, torch_product, bfloat16_product), seconds, strict=True))
    monkeypatch.setattr(blas, "_seconds", lambda product: float(ranking[product.multiply]))
    blas._fastest.cache_clear()
    assert [product.multiply for product in fastest_products(1)] == expected
    blas._fastest.cache_clear()


def test_torch_takes_no_part_where_it_may_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where someone has allowed its float32 products to be rounded to bfloat16, NumPy multiplies."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    blas._fastest.cache_clear()
    assert [product.multiply for product in fastest_products(1)] == [numpy_product]
    blas._fastest.cache_clear()


def test_torch_is_loaded_only_for_much_work() -> None:
    """A process without it stays without it, until there is enough to multiply."""
    code = (
        "import sys; from trainer.score.blas import fastest_products;"
        "print([p.multiply.__name__ for p in fastest_products(2**30)], 'torch' in sys.modules);"
        "fastest_products(2**40); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.splitlines() == ["['numpy_product'] False", "True"]


def test_the_probe_measures_a_product_and_refuses_one_that_is_not_exact() -> None:
    """It takes the fastest of several; one that rounds more than it says never takes part."""
    calls = []

    def slow(a_ND: np.ndarray, b_DM: np.ndarray, out_NM: np.ndarray) -> None:
        calls.append((*a_ND.shape, b_DM.shape[1]))
        time.sleep(0.002)
        bfloat16_product(a_ND, b_DM, out_NM)

    assert 0.002 <= blas._seconds(Product(slow, 2.0**-8)) < np.inf
    assert len(calls) >= 2
    assert set(calls) == {blas._TRIAL_SHAPE}
    assert blas._seconds(Product(slow, 0.0)) == np.inf
    assert cores() >= 1


_WITH_VNNI = torch.cpu.get_capabilities().get("avx512_vnni", False)


@pytest.mark.skipif(not _WITH_VNNI, reason="products of bytes are neither fast nor exact without VNNI")
@pytest.mark.parametrize(
    ("n", "dim", "m"), [(1, 1, 1), (5, 7, 3), (1, 384, 512), (500, 384, 1), (64, 1000, 65)]
)
def test_products_of_bytes_are_exact(n: int, dim: int, m: int) -> None:
    """The largest sums, too."""
    rng = np.random.default_rng(n + dim + m)
    a_ND, b_DM = (rng.integers(-127, 128, shape).astype(np.int8) for shape in ((n, dim), (dim, m)))
    a_ND[0], b_DM[:, 0] = 127, -127
    out_NM = np.zeros((n, m), np.int32)
    byte_product(a_ND, b_DM, out_NM)
    assert (out_NM == a_ND.astype(np.int64) @ b_DM.astype(np.int64)).all()


def _saturating(a_ND: np.ndarray, b_DM: np.ndarray, out_NM: np.ndarray) -> None:
    """As processors without VNNI do it: of bytes without a sign, two products are added in 16 bits."""
    a_ND, b_DM = a_ND.astype(np.int32) + 128, b_DM.astype(np.int32)
    products = a_ND[:, :, None] * b_DM[None]
    pairs = np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1)
    out_NM[...] = pairs.sum(axis=1) - 128 * b_DM.sum(axis=0)


def test_bytes_whose_sums_saturate_take_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial provokes the largest sums, and refuses a product that has them wrong."""
    monkeypatch.setattr(blas, "_TRIAL_SHAPE", (8, 64, 8))
    monkeypatch.setattr(blas, "byte_product", _saturating)
    assert blas._byte_seconds() == np.inf
    monkeypatch.setattr(
        blas, "byte_product", lambda a, b, out: np.copyto(out, a.astype(int) @ b.astype(int), "same_kind")
    )
    assert blas._byte_seconds() < np.inf


@pytest.mark.parametrize(
    ("vnni", "seconds", "expected"),
    [(True, 0.5, True), (True, 0.9, False), (True, np.inf, False), (False, 0.1, False)],
)
def test_bytes_pay_where_they_are_fast(
    vnni: bool, seconds: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take a fifth less time at least than the fastest of the others, on a processor that has them."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": vnni})
    monkeypatch.setattr(blas, "_seconds", lambda product: 1.0)
    monkeypatch.setattr(blas, "_byte_seconds", lambda: seconds)
    blas._fastest.cache_clear()
    blas._bytes_pay.cache_clear()
    assert bytes_pay(1) == expected
    blas._fastest.cache_clear()
    blas._bytes_pay.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "expected"), [((1.0, 2.0), (np.exp2, 0.6931)), ((2.0, 1.0), (np.exp, 1.0))]
)
def test_the_faster_exponential_is_taken(
    seconds: tuple[float, float], expected: tuple[np.ufunc, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the logarithm of its base, by which arguments are scaled."""
    times = iter(seconds)
    monkeypatch.setattr(blas, "_best_seconds", lambda work: next(times))
    fastest_exponential.cache_clear()
    exponential, log_base = fastest_exponential()
    fastest_exponential.cache_clear()
    assert exponential is expected[0]
    assert log_base == pytest.approx(expected[1], abs=1e-4)
    assert exponential(np.float32(3 / log_base)) == pytest.approx(np.exp(3), rel=1e-5)
