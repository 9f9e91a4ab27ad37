"""Where models run: `[encode] device`, and one encoder on several devices."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.errors import InputError
from data.modality import Modality
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


@dataclass(frozen=True)
class Replicas:
    """The same encoder on several devices; batches go to them in turn."""

    each: Sequence[Encoder]
    _turns: Any = field(default=None, repr=False)
    _taking: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_turns", itertools.cycle(self.each))

    @property
    def name(self) -> str:
        """That of each."""
        return self.each[0].name

    @property
    def identity(self) -> str:
        """That of each."""
        return self.each[0].identity

    @property
    def dim(self) -> int:
        """D."""
        return self.each[0].dim

    @property
    def modalities(self) -> frozenset[str]:
        """Those of each."""
        return self.each[0].modalities

    @property
    def licence(self) -> str:
        """That of each."""
        return self.each[0].licence

    @property
    def parameters(self) -> int:
        """Of one of them."""
        return self.each[0].parameters

    def prepare(self, modality: Modality, source: Path | str) -> Any:
        """As each."""
        return self.each[0].prepare(modality, source)

    def encode(self, batch: Sequence[Any]) -> Floats:
        """As each: the next one in turn does it."""
        with self._taking:
            encoder: Encoder = next(self._turns)
        return encoder.encode(batch)
