"""The operations on a block of a batch's B × B matrix, between the two products of a contrastive loss.

Shapes: b rows of samples and B columns of texts. `first` is the column of the positive of the samples' row 0,
so a block's positives lie on one diagonal.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Up to this many pairs, a batch keeps its matrix of logits (64 MiB, on a GPU 1 GiB); a larger batch computes
# it twice, in blocks of an eighth of that.
_WHOLE = {"cpu": 2**24, "cuda": 2**28}
_FUSED = 2**24  # from this many pairs on, compiling the operations for a GPU pays
# Up to this scale 1/τ, the exponential of a cosine's logit and sums of a million of them are normal float32
# numbers: no maximum has to be taken off, and one exponential of each logit gives both sums and the gradient.
_LARGEST_SCALE = 64.0


def row_blocks(rows: int, columns: int, device: str) -> list[slice]:
    """The rows of each block: as many as have their logits in memory together."""
    whole = _WHOLE.get(device, _WHOLE["cpu"])
    step = max(1, rows if rows * columns <= whole else whole // 8 // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


@dataclass(frozen=True)
class Operations:
    """What happens to a block's products, in this order; each is given `groups_B`, `first` and the block.

    `prepare` makes the form of the logits that the other two take. `sums` gives log Σ exp over rows and over
    columns, and the logits of the positives. `gradient` is the sum of both softmaxes: dL/ds, except for the
    positives; it may use the room `out`.
    """

    prepare: Callable[..., Tensor]
    sums: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gradient: Callable[..., Tensor]
    groups_B: Tensor | None  # None where no two rows share one


def block_operations(
    device: str, rows: int, columns: int, scale: Tensor, groups_B: Tensor | None
) -> Operations:
    """The operations for `rows` of a batch of `columns` pairs, by the device, the scale and the groups.

    For large matrices on a GPU, where each operation is limited by memory bandwidth, they are fused by
    torch.compile (`bench/train_gpu.py` measures from which size on that pays). On a CPU, exponentials are
    taken once, and not of differences, while the scale allows that and there is something to contrast.
    """
    if device == "cuda" and rows * columns >= _FUSED and importlib.util.find_spec("triton") is not None:
        return Operations(lambda products, *_: products, _fused_sums, _fused_gradient, groups_B)
    distinct = columns
    if device == "cpu" and groups_B is not None:
        found, numbers_B = torch.unique(groups_B, return_inverse=True)
        distinct = len(found)
        groups_B = numbers_B if distinct < columns else None
    if device == "cpu" and distinct > 1 and float(scale) <= _LARGEST_SCALE:
        return Operations(_powers, _sums_of_powers, _gradient_of_powers, groups_B)
    return Operations(mask_logits, _sums, lambda logits, *given: _gradient(logits, *given[-3:]), groups_B)


def mask_logits(
    products_bB: Tensor, scale: Tensor, groups_B: Tensor | None, first: int, block: slice
) -> Tensor:
    """Turn products into logits, in place; -∞ for two of one group that are not a pair."""
    products_bB *= scale
    if groups_B is not None:
        same_bB = groups_B[first + block.start : first + block.stop, None] == groups_B
        same_bB.diagonal(first + block.start).fill_(False)
        products_bB.masked_fill_(same_bB, -torch.inf)
    return products_bB


def _sums(
    logits_bB: Tensor, scale: Tensor, groups_B: Tensor | None, first: int, block: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """log Σ exp over rows and over columns, and the logits of the positives."""
    return *_log_sums(logits_bB), logits_bB.diagonal(first + block.start)


def _log_sums(logits_bB: Tensor) -> tuple[Tensor, Tensor]:
    return torch.logsumexp(logits_bB, dim=1), torch.logsumexp(logits_bB, dim=0)


def _gradient(logits_bB: Tensor, row_b: Tensor, column_B: Tensor | None, out: Tensor | None = None) -> Tensor:
    """The sum of both softmaxes: dL/ds, except for the positives."""
    grad_bB = torch.sub(logits_bB, row_b[:, None], out=out).exp_()
    if column_B is not None:
        grad_bB += torch.sub(logits_bB, column_B).exp_()
    return grad_bB


def _powers(products_bB: Tensor, scale: Tensor, groups_B: Tensor | None, first: int, block: slice) -> Tensor:
    """Turn products into exponentials of logits, in place; 0 for two of one group that are not a pair."""
    products_bB.mul_(scale).exp_()  # `exp2_` is faster, but its bits depend on the number of threads
    if groups_B is not None:
        # Compared and multiplied as floats: a mask of bools takes ten times as long.
        own_b = groups_B[first + block.start : first + block.stop, None].to(products_bB.dtype)
        other_bB = torch.ne(own_b, groups_B.to(products_bB.dtype), out=torch.empty_like(products_bB))
        other_bB.diagonal(first + block.start).fill_(1)
        products_bB *= other_bB
    return products_bB


def _sums_of_powers(
    powers_bB: Tensor, scale: Tensor, groups_B: Tensor | None, first: int, block: slice
) -> tuple[Tensor, Tensor, Tensor]:
    positive_b = powers_bB.diagonal(first + block.start).log()
    return powers_bB.sum(dim=1).log_(), powers_bB.sum(dim=0).log_(), positive_b


def _gradient_of_powers(
    powers_bB: Tensor,
    scale: Tensor,
    groups_B: Tensor | None,
    first: int,
    block: slice,
    row_b: Tensor,
    column_B: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    inverse_b1 = row_b.neg().exp_()[:, None]
    if column_B is None:
        return torch.mul(powers_bB, inverse_b1, out=out)
    return torch.add(inverse_b1, column_B.neg().exp_(), out=out).mul_(powers_bB)


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function)


def _fused_sums(
    products_bB: Tensor, scale: Tensor, groups_B: Tensor | None, first: int, block: slice
) -> tuple[Tensor, Tensor, Tensor]:
    where = _rows_and_columns(products_bB, groups_B, first, block)
    row_b, column_B = _compiled(_sums_of_products)(products_bB, scale, *where)
    return row_b, column_B, products_bB.diagonal(first + block.start) * scale


def _fused_gradient(
    products_bB: Tensor,
    scale: Tensor,
    groups_B: Tensor | None,
    first: int,
    block: slice,
    row_b: Tensor,
    column_B: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    grad: Tensor = _compiled(_gradient_of_products)(
        products_bB, scale, *_rows_and_columns(products_bB, groups_B, first, block), row_b, column_B
    )
    return grad


def _rows_and_columns(
    products_bB: Tensor, groups_B: Tensor | None, first: int, block: slice
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The column of each row's positive, the rows' groups and the columns' groups.

    Without groups, each row is a group by itself.
    """
    own_b = torch.arange(first + block.start, first + block.stop, device=products_bB.device)
    return own_b, own_b if groups_B is None else groups_B[own_b], groups_B


def _logits(
    products_bB: Tensor, scale: Tensor, own_b: Tensor, groups_b: Tensor, groups_B: Tensor | None
) -> Tensor:
    """As `mask_logits`, but in a new tensor: compiled code overwrites nothing."""
    logits_bB = products_bB * scale
    if groups_B is None:
        return logits_bB
    other_bB = torch.arange(len(groups_B), device=own_b.device) != own_b[:, None]
    return logits_bB.masked_fill((groups_b[:, None] == groups_B) & other_bB, -torch.inf)


def _sums_of_products(products_bB: Tensor, *where: Any) -> tuple[Tensor, Tensor]:
    return _log_sums(_logits(products_bB, *where))


def _gradient_of_products(products_bB: Tensor, *given: Any) -> Tensor:
    *where, row_b, column_B = given
    return _gradient(_logits(products_bB, *where), row_b, column_B)
