"""The engine of one process: everything is done here."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from data.work import Work, here


@dataclass(frozen=True)
class LocalEngine:
    """Does the work in this process; threads of its own keep the cores busy."""

    elsewhere: bool = False

    def map(self, work: Work, orders: Iterable[Any]) -> Generator[Any]:
        """The results, in the order of the orders."""
        return here(work, orders)
