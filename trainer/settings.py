"""The settings of stage 2. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Localize:
    """Which descriptions become embedding centers: `[localize]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    k: int = 50  # centers per category
    rule: Literal["visual", "text"] = "visual"  # `visual` falls back to `text` where no train sample guides


@dataclass(frozen=True)
class Train:
    """How the alignment heads are trained: `[train]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    enabled: bool = True
    epochs: int = 15
    batch_size: int = 1024
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 1234


@dataclass(frozen=True)
class Evaluate:
    """How the result is measured: `[evaluate]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    scorer: Literal["nearest"] = "nearest"
    bootstrap: int = 1000  # resamples behind every interval
    seed: int = 0
