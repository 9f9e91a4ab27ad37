"""Where models run: `[encode] device`, and one encoder on several devices."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import torch

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
