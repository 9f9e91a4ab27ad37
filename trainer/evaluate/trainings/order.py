"""Training: which of an evaluation's trainings; and the results of those that are made already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fold", "repeat", "few_shot", "baseline"]


@dataclass(frozen=True)
class Training:
    """One training (or fit) of an evaluation, named by its place among those of its kind.

    `fold`: held-out categories, by `number`. `repeat`: a redrawn split, by `number`, with `shots` (None: all
    train samples). `few_shot`: a `method` on `shots`. `baseline`: `method` names it.
    """

    kind: Kind
    number: int = 0
    shots: int | None = None
    method: str = ""

    @property
    def name(self) -> str:
        """The training, for messages."""
        of = {
            "fold": f"fold {self.number} of held-out categories",
            "repeat": f"split {self.number}, {self.shots or 'all'} samples per category",
            "few_shot": f"{self.method} on {self.shots} samples per category",
            "baseline": f"baseline {self.method}",
        }
        return of[self.kind]


# What trainings that were made elsewhere came to; those that are not in it are made where they are needed.
Ready = Mapping[Training, Any]
