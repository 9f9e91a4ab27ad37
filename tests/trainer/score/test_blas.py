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
