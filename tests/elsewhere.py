"""An engine without other processes: what it is given must be picklable, and be done in any order."""

from __future__ import annotations

import pickle
import random
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from data.files import hash_file
from data.work import Work


def all_files(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}


class Elsewhere:
    """An engine that pickles what it is given, and does it in another order, some orders after a failure."""

    def __init__(self, seed: int, stop_after: int | None = None) -> None:
        self.draw = random.Random(seed)
        self.stop_after = stop_after
        self.orders: list[Any] = []

    elsewhere = True

    def map(self, work: Work, orders: Iterable[Any]) -> Generator[Any]:
        """The results of the orders."""
        sent = pickle.dumps(work)
        waiting: list[bytes] = []
        left = iter(orders)
        while True:
            for order in left:
                self.orders.append(order)
                waiting.append(pickle.dumps(order))
                if len(waiting) == 4:
                    break
            if not waiting:
                return
            if self.stop_after is not None and len(self.orders) > self.stop_after:
                raise RuntimeError("killed")
            order = waiting.pop(self.draw.randrange(len(waiting)))
            (result,) = pickle.loads(sent)([pickle.loads(order)])
            yield pickle.loads(pickle.dumps(result))
