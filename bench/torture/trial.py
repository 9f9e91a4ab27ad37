"""One blow of an attack, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """What was done, and what was wrong with what came of it: None where it held."""

    what: str
    problem: str | None = None
