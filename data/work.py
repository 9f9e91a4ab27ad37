"""Work: what may be carried out in this process or in others, order by order.

A stage that can be spread is handed a `Carry`. It gives it work that is complete in itself (it is pickled,
and shares nothing with this process but files) and small orders; results are small too: paths, numbers and
rows of a table of results, never vectors. pipeline/engines/ has what carries orders elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from data.errors import KnowledgeBaseError


class Work(Protocol):
    """What an engine does with orders: results come in the order of the orders, and as they are ready."""

    def __call__(self, orders: Iterable[Any]) -> Iterator[Any]:
        """The result of each order. May be called again and again, with one order or many."""


# Carries out orders; the results come in any order. An order's `name` is used in messages, if it has one.
Carry = Callable[[Work, Iterable[Any]], Generator[Any]]


def here(work: Work, orders: Iterable[Any]) -> Generator[Any]:
    """Carry out orders in this process."""
    yield from work(orders)


def require_folder(folder: Path, what: str) -> None:
    """Raise KnowledgeBaseError where this process does not see `folder`, which holds `what` ("the samples").

    Without it, a machine that lacks the folder would reject what is in it as missing.
    """
    if not folder.is_dir():
        raise KnowledgeBaseError(f"{folder} is not there: every machine must see {what} under the same path")
