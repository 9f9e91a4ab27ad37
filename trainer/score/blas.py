"""Large float32 products on every core: threads of our own (data/threads.py), each with a one-thread BLAS.

They keep all cores busy between the products as well, where a threaded BLAS leaves all but one idle. NumPy
and torch bring a BLAS each, and which is faster depends on the processor. A processor with native bfloat16
multiplies it several times as fast as float32, and exactly enough to propose candidates that are then scored
again; one with instructions for bytes (VNNI) multiplies these twice as fast again, and exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from data.threads import loaded_torch, one_thread_each, parallel_map
from trainer.records import Floats

__all__ = [
    "Product",
    "bfloat16_product",
    "byte_product",
    "bytes_pay",
    "fastest_exponential",
    "fastest_products",
    "largest_error",
    "numpy_product",
    "one_thread_each",
    "parallel_map",
    "torch_product",
]

Bytes = npt.NDArray[np.int8]

_BFLOAT16_UNIT = 2.0**-8
_WORTH_TORCH = 2**39  # multiplications: several seconds in float32, of which bfloat16 saves more than half

_TRIAL_SECONDS = 0.025  # for each candidate
_TRIAL_SHAPE = (512, 384, 512)
_BYTES_SAVE = 0.8  # rounding to bytes takes time as well: their product pays up to this share of another's


@dataclass(frozen=True)
class Product:
    """An implementation: `multiply(a_ND, b_DM, out_NM)` writes a @ b; all are C-contiguous float32."""

    multiply: Callable[[Floats, Floats, Floats], object]
    unit: float  # the relative rounding of factors and results beyond that of float32; 0: none


def fastest_products(multiplications: int) -> tuple[Product, ...]:
    """The fastest products on this machine, coarsest first: bfloat16 where it is fastest, then float32.

    Measured once per process, in a tenth of a second. torch is measured where it is loaded already, or where
    the number of multiplications makes loading it pay.
    """
    if multiplications > _WORTH_TORCH:
        import_module("torch")
    return _fastest(with_torch=loaded_torch() is not None)


def bytes_pay(multiplications: int) -> bool:
    """Whether products of bytes are exact on this machine, and faster than `fastest_products` are.

    Measured once per process, where torch is loaded or the number of multiplications makes loading it pay.
    """
    if multiplications > _WORTH_TORCH:
        import_module("torch")
    return _bytes_pay(with_torch=loaded_torch() is not None)


@cache
def fastest_exponential() -> tuple[np.ufunc, float]:
    """NumPy's fastest exponential of float32 on this machine, and the natural logarithm of its base.

    On processors with AVX-512, 2ˣ takes half the time of eˣ; on others, several times as much.
    """
    x_NM = np.random.default_rng(0).random(_TRIAL_SHAPE[:2], dtype=np.float32)
    out_NM = np.empty_like(x_NM)
    of_two, of_e = (_best_seconds(partial(ufunc, x_NM, out=out_NM)) for ufunc in (np.exp2, np.exp))
    return (np.exp2, math.log(2)) if of_two < of_e else (np.exp, 1.0)


def numpy_product(a_ND: Floats, b_DM: Floats, out_NM: Floats) -> None:
    """a @ b by NumPy's BLAS."""
    np.matmul(a_ND, b_DM, out=out_NM)


def torch_product(a_ND: Floats, b_DM: Floats, out_NM: Floats) -> None:
    """a @ b by torch's BLAS."""
    import torch

    # torch has no read-only tensors and warns of read-only arrays (of a mapped file): it gets a copy.
    a_ND, b_DM = (x if x.flags.writeable else x.copy() for x in (a_ND, b_DM))
    torch.mm(torch.from_numpy(a_ND), torch.from_numpy(b_DM), out=torch.from_numpy(out_NM))


def bfloat16_product(a_ND: Floats, b_DM: Floats, out_NM: Floats) -> None:
    """a @ b by torch, of factors rounded to bfloat16, summed in float32, and rounded to bfloat16."""
    import torch

    a_ND, b_DM = (x if x.flags.writeable else x.copy() for x in (a_ND, b_DM))
    product_NM = torch.mm(torch.from_numpy(a_ND).bfloat16(), torch.from_numpy(b_DM).bfloat16())
    torch.from_numpy(out_NM).copy_(product_NM)


def byte_product(a_ND: Bytes, b_DM: Bytes, out_NM: npt.NDArray[np.int32]) -> None:
    """a @ b of writable int8 arrays by torch, exactly: sums of at most 130,000 products fit."""
    import torch

    torch._int_mm(torch.from_numpy(a_ND), torch.from_numpy(b_DM), out=torch.from_numpy(out_NM))


def largest_error(dim: int, unit: float) -> float:
    """A bound on the error of a float32 product of two vectors, relative to the product of their lengths.

    γ = D u / (1 - D u) with u = 2⁻²⁴, for every order of summation (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, section 3.1); where factors and result are also rounded to a relative `unit`,
    (1 + unit)³ (1 + γ) - 1.
    """
    u = 2.0**-24
    gamma = dim * u / (1 - dim * u)
    return (1 + unit) ** 3 * (1 + gamma) - 1


@cache
def _fastest(*, with_torch: bool) -> tuple[Product, ...]:
    candidates = [Product(numpy_product, 0.0)]
    # Where torch may multiply float32 as bfloat16, its rounding has no known bound.
    if with_torch and loaded_torch().get_float32_matmul_precision() == "highest":
        candidates += [Product(torch_product, 0.0), Product(bfloat16_product, _BFLOAT16_UNIT)]
    if len(candidates) == 1:
        return (candidates[0],)
    with one_thread_each():
        (seconds,) = parallel_map(lambda products: [_seconds(product) for product in products], [candidates])
    ranked = [candidates[i] for i in np.argsort(seconds)]
    exact = next(product for product in ranked if product.unit == 0)
    return (exact,) if ranked[0] is exact else (ranked[0], exact)


def _seconds(product: Product) -> float:
    """The time of the fastest product in a trial; infinite where its error exceeds the bound."""
    n, dim, m = _TRIAL_SHAPE
    rng = np.random.default_rng(0)
    a_ND, b_DM = rng.random((n, dim), dtype=np.float32), rng.random((dim, m), dtype=np.float32)
    out_NM = np.empty((n, m), dtype=np.float32)
    product.multiply(a_ND, b_DM, out_NM)  # the first call sets up its library
    bound_NM = np.outer(np.linalg.norm(a_ND, axis=1), np.linalg.norm(b_DM, axis=0))
    bound_NM *= largest_error(dim, product.unit)
    if (np.abs(out_NM - a_ND.astype(np.float64) @ b_DM.astype(np.float64)) > bound_NM).any():
        return math.inf
    return _best_seconds(lambda: product.multiply(a_ND, b_DM, out_NM))


@cache
def _bytes_pay(*, with_torch: bool) -> bool:
    # Elsewhere the product is slow or not exact. An older torch cannot say what the processor has.
    has: dict[str, Any] = getattr(loaded_torch().cpu, "get_capabilities", dict)() if with_torch else {}
    if not has.get("avx512_vnni"):
        return False
    with one_thread_each():
        other = _seconds(_fastest(with_torch=True)[0])
        return _byte_seconds() < _BYTES_SAVE * other


def _byte_seconds() -> float:
    """The time of a product of bytes; infinite where the largest sums are not exact."""
    n, dim, m = _TRIAL_SHAPE
    rng = np.random.default_rng(0)
    sign = rng.choice([-127, 127, 127, 127], size=n * dim + dim * m).astype(np.int8)
    a_ND, b_DM = sign[: n * dim].reshape(n, dim), sign[n * dim :].reshape(dim, m)
    out_NM = np.empty((n, m), dtype=np.int32)
    byte_product(a_ND, b_DM, out_NM)
    # Sums of whole numbers below 2²⁴ are exact in float32.
    if (out_NM != a_ND.astype(np.float32) @ b_DM.astype(np.float32)).any():
        return math.inf
    return _best_seconds(lambda: byte_product(a_ND, b_DM, out_NM))


def _best_seconds(work: Callable[[], object]) -> float:
    best, end = math.inf, time.perf_counter() + _TRIAL_SECONDS
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best
