"""The settings of stage 2. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Localize:
    """Which descriptions become embedding centers: `[localize]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    k: Count = 50  # centers per category
    rule: Literal["visual", "text"] = "visual"  # `visual` falls back to `text` where no train sample guides


@dataclass(frozen=True)
class Train:
    """How the alignment heads are trained: `[train]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    enabled: bool = True
    epochs: Count = 30
    batch_size: Annotated[int, Ge(2)] = 1024  # shared evenly by the modalities
    learning_rate: Annotated[float, Gt(0)] = 2e-3  # at its peak; linear warm-up, cosine decay to zero
    warmup: Share = 0.1  # share of all steps
    weight_decay: Annotated[float, Ge(0)] = 0.01
    clip_norm: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Ge(0.01), Le(1)] = 0.07  # at the start; learned, within [0.01, 1]
    center_weight: Share = (
        0.5  # share of the loss that pulls to category centers; the rest, to own descriptions
    )
    seed: Annotated[int, Ge(0)] = 1234


@dataclass(frozen=True)
class Evaluate:
    """How the result is measured: `[evaluate]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    scorer: Literal["nearest"] = "nearest"
    bootstrap: Count = 1000  # resamples behind every interval
    seed: Annotated[int, Ge(0)] = 0
