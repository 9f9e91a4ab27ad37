"""Where models run: `[encode] device`, and one encoder on several devices."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from data.errors import InputError
from kb_builder.encoders.base import Encoder, Floats


def device_names(device: str) -> tuple[str, ...]:
    """`auto`: every CUDA device, or the CPU; `cpu`; `cuda`; or some of them, as in `cuda:0,cuda:2`.

    Raises InputError for one that is not there.
    """
    there = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device == "auto":
        return tuple(there) or ("cpu",)
    names = tuple(there if device == "cuda" else (name.strip() for name in device.split(",")))
    if not names or len(set(names)) < len(names) or any(name not in {"cpu", *there} for name in names):
        known = ", ".join(["cpu", *there])
        raise InputError(f"[encode] device = {device!r}: this machine and this build of torch have {known}")
    return names


class Replicas:
    """The same encoder on several devices; batches go to them in turn."""

    def __init__(self, each: Sequence[Encoder]) -> None:
        first = each[0]
        self.name, self.identity, self.licence = first.name, first.identity, first.licence
        self.dim, self.modalities, self.parameters = first.dim, first.modalities, first.parameters
        self.prepare = first.prepare
        self._turns = itertools.cycle(each)
        self._taking = threading.Lock()

    def encode(self, batch: Sequence[Any]) -> Floats:
        """As each: the next one in turn does it."""
        with self._taking:
            encoder = next(self._turns)
        return encoder.encode(batch)


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
