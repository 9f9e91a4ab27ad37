"""The record of one trial of an attack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """What was done, and the problem it caused; None if there was none."""

    what: str
    problem: str | None = None
