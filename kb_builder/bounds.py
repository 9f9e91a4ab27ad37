"""Bounds of settings that the sections of several packages share, for pydantic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Lt

_Values = TypeVar("_Values", bound=Sequence[Any])

Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]


def distinct(values: _Values) -> _Values:
    """The values of a list. Raises ValueError for one that comes twice."""
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise ValueError(f"names {twice!r} twice")
    return values
