"""Bounds of settings that the sections of several packages share, for pydantic."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt

Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]


def distinct(values: tuple[object, ...]) -> tuple[object, ...]:
    """The values of a list. Raises ValueError for one that comes twice."""
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise ValueError(f"names {twice!r} twice")
    return values
