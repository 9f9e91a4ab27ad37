"""Engine: carries out orders in this process or on other machines, and says nothing about what they are."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Protocol

from data.work import Work


class Engine(Protocol):
    """Where work is done. Orders and results are small: they hold paths and numbers, never rows.

    The unit of work is the part that a stage plans, recognises and commits anyway, so an engine needs no
    memory of its own: what it loses is made again by the next run.
    """

    @property
    def elsewhere(self) -> bool:
        """Whether work is done in other processes: it is pickled, and shares only files with this one."""

    def map(self, work: Work, orders: Iterable[Any]) -> Generator[Any]:
        """The result of each order, in any order. `orders` are taken as there is room for them.

        The first error that another try does not fix ends it.
        """
