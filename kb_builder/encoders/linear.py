"""Linear layers by oneDNN's product instead of MKL's.

torch multiplies float32 matrices on x86 by MKL, which on AMD's processors is half as fast as oneDNN, that
torch brings along for its convolutions. `make bench-store` has the numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn


class OneDnnLinear(nn.Linear):
    """`nn.Linear` for float32 on a CPU, without gradients; equal up to rounding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input @ weight.T + bias; a row has the same bits beside any other rows."""
        if (
            input.numel() == input.shape[-1]
        ):  # a single row: oneDNN has another product for it, with other bits
            return _product(input.expand(2, *input.shape), self.weight, self.bias)[0]
        return _product(input, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Let every linear layer of a frozen float32 model on the CPU take oneDNN's product, if there is one."""
    if not _available():
        return
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = OneDnnLinear


def as_published(model: nn.Module) -> None:
    """Take `use_onednn` back."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # What torch.compile itself makes of a linear layer on a CPU; there is no public name for it.
    operator: Any = torch.ops.mkldnn._linear_pointwise
    result: torch.Tensor = operator(x, weight, bias, "none", [], "")
    return result


@cache
def _available() -> bool:
    """Not by the clock: which product is taken decides the last bits, and they must repeat."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        with torch.inference_mode():
            _product(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4))
    except (AttributeError, RuntimeError):  # another torch, or a build without it
        return False
    return True
