"""Devices: the setting `[encode] device`, one encoder on several GPUs, and reproducible products on a CPU.

On a CPU, PyTorch's own matrix product (MKL) gives a row other last bits if the other rows of the batch
differ. oneDNN's product does not, so frozen models use that one (`use_onednn`).
"""

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
    """The devices of a setting: `auto` (every CUDA device, else the CPU), `cpu`, `cuda`, or a list as in
    `cuda:0,cuda:2`. Raises InputError for a device that this machine does not have.
    """
    available = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device == "auto":
        return tuple(available) or ("cpu",)
    names = tuple(available if device == "cuda" else (name.strip() for name in device.split(",")))
    if not names or len(set(names)) < len(names) or any(name not in {"cpu", *available} for name in names):
        known = ", ".join(["cpu", *available])
        raise InputError(
            f"[encode] device = {device!r}: this machine and this build of torch have only {known}"
        )
    return names


class Replicas:
    """The same encoder on several devices, which take batches in turn."""

    def __init__(self, each: Sequence[Encoder]) -> None:
        first = each[0]
        self.name, self.identity, self.licence = first.name, first.identity, first.licence
        self.dim, self.modalities, self.parameters = first.dim, first.modalities, first.parameters
        self.prepare = first.prepare
        self._turns = itertools.cycle(each)
        self._taking = threading.Lock()

    def encode(self, batch: Sequence[Any]) -> Floats:
        """Encode on the next device in turn."""
        with self._taking:
            encoder = next(self._turns)
        return encoder.encode(batch)


class OneDnnLinear(nn.Linear):
    """`nn.Linear` for float32 on a CPU, without gradients; equal up to rounding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input @ weight.T + bias; the bits of a row do not depend on the other rows."""
        # For a single row oneDNN uses another product, with other bits: so it goes in twice.
        if input.numel() == input.shape[-1]:
            return _product(input.expand(2, *input.shape), self.weight, self.bias)[0]
        return _product(input, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Make every float32 linear layer of a frozen model on the CPU use oneDNN's product, if available."""
    if not _available():
        return
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = OneDnnLinear


def as_published(model: nn.Module) -> None:
    """Undo `use_onednn`."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # The operator that torch.compile puts in the place of a linear layer on a CPU; it has no public name.
    operator: Any = torch.ops.mkldnn._linear_pointwise
    result: torch.Tensor = operator(x, weight, bias, "none", [], "")
    return result


@cache
def _available() -> bool:
    """Whether this torch has oneDNN's product. Not chosen by a timing: the choice decides the last bits."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        with torch.inference_mode():
            _product(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4))
    except (AttributeError, RuntimeError):  # another torch, or a build without it
        return False
    return True
