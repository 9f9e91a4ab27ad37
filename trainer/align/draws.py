"""What a training step draws on the host: the rows of its losses, as one vector of whole numbers.

All randomness of a step and all its bookkeeping happen here, in NumPy; what remains are operations on tensors
of fixed shapes. Shapes: B rows of a batch, b of them this process's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainer.align.pairs import Pairs
from trainer.align.processes import Processes
from trainer.records import Bools, Ints


@dataclass(frozen=True)
class Contrast:
    """A contrastive loss of some modalities' rows, each with one text. Slices are places in the numbers."""

    kind: Literal["own", "centers"]
    modalities: tuple[str, ...]
    has_b: slice | None  # which of this process's mapped rows have a text; None: all
    texts_B: slice  # rows of the text matrix
    groups_B: slice
    mine: slice  # the rows of the loss that are this process's


@dataclass(frozen=True)
class Pull:
    """The loss of all rows with the centers of their categories. Slices are places in the numbers."""

    has_b: slice  # which of this process's mapped rows have a category with centers
    category_b: slice
    rows: int  # of all processes


@dataclass(frozen=True)
class StepLayout:
    """The losses of a step and where their numbers are; a step of the same layout can be replayed."""

    rows: tuple[tuple[str, slice], ...]  # this process's rows of each modality
    own: tuple[Contrast, ...]
    centers: Contrast | Pull | None


class Draws:
    """Draws the steps of a training."""

    def __init__(
        self,
        pairs: dict[str, Pairs],
        rng: np.random.Generator,
        processes: Processes,
        centers: Literal["mean", "one", "all"] | None,
        *,
        own: Literal["all", "unlabelled"] | None = "all",
    ) -> None:
        """`centers`: which a sample is compared with, None: with none.

        `own`: which samples are contrasted with their own texts; unlabelled: those of no category with
        centers.
        """
        self._pairs, self._rng, self._processes, self._centers = pairs, rng, processes, centers
        self._own = own
        self._shares = [Processes(rank, processes.size).share for rank in range(processes.size)]

    def step(self, rows: dict[str, Ints]) -> tuple[StepLayout, Ints]:
        """The losses of a batch with the given rows of each modality, and their numbers."""
        numbers = _Numbers()
        mine = {m: r[self._processes.share(len(r))] for m, r in rows.items()}
        places = tuple((m, numbers.add(r)) for m, r in mine.items())
        own = [self._contrast("own", {m: r}, numbers) for m, r in rows.items()] if self._own else []
        centers: Contrast | Pull | None = None
        if self._centers == "one":
            centers = self._contrast("centers", rows, numbers)
        elif self._centers is not None:
            centers = self._pull(rows, mine, numbers)
        return StepLayout(places, tuple(each for each in own if each is not None), centers), numbers.whole()

    def _contrast(
        self, kind: Literal["own", "centers"], rows: dict[str, Ints], numbers: _Numbers
    ) -> Contrast | None:
        """The loss of some modalities' rows, each with one random text; None where no row has a text.

        The batch's rows are put in the order of the processes, so that each process has one contiguous run.
        """
        drawn = {m: getattr(self._pairs[m], kind).draw(r, self._rng) for m, r in rows.items()}
        has: dict[str, Bools] = {m: each for m, (_, each) in drawn.items()}
        if kind == "own" and self._own == "unlabelled":
            has = {m: each & (self._pairs[m].centers.counts_N[rows[m]] == 0) for m, each in has.items()}
        if not any(each.any() for each in has.values()):
            return None
        has_B = self._in_order(has)
        texts_B = self._in_order({m: texts for m, (texts, _) in drawn.items()})
        groups_B = self._in_order({m: self._pairs[m].groups_N[r] for m, r in rows.items()})
        sizes = [sum(len(r[share(len(r))]) for r in rows.values()) for share in self._shares]
        bounds = np.cumsum([0, *sizes])
        mine = slice(int(bounds[self._processes.rank]), int(bounds[self._processes.rank + 1]))
        return Contrast(
            kind,
            tuple(rows),
            None if has_B[mine].all() else numbers.add(np.flatnonzero(has_B[mine])),
            numbers.add(texts_B[has_B]),
            numbers.add(groups_B[has_B]),
            slice(int(has_B[: mine.start].sum()), int(has_B[: mine.stop].sum())),
        )

    def _pull(self, rows: dict[str, Ints], mine: dict[str, Ints], numbers: _Numbers) -> Pull | None:
        """The loss of all rows with their categories' centers; None where no row's category has a center."""
        n = sum(int((self._pairs[m].centers.counts_N[r] > 0).sum()) for m, r in rows.items())
        if n == 0:
            return None
        has_b = np.concatenate([self._pairs[m].centers.counts_N[r] > 0 for m, r in mine.items()])
        category_b = np.concatenate([self._pairs[m].samples.category_N[r] for m, r in mine.items()])
        return Pull(numbers.add(np.flatnonzero(has_b)), numbers.add(category_b[has_b]), n)

    def _in_order(self, columns: dict[str, Any]) -> Any:
        """The rows of all modalities, first those of the first process."""
        return np.concatenate([c[share(len(c))] for share in self._shares for c in columns.values()])


class _Numbers:
    """Whole numbers that are collected one array after the other."""

    def __init__(self) -> None:
        self._parts: list[Ints] = []
        self._length = 0

    def add(self, part_N: Ints) -> slice:
        """Append an array; its place in the whole."""
        start, self._length = self._length, self._length + len(part_N)
        self._parts.append(part_N)
        return slice(start, self._length)

    def whole(self) -> Ints:
        return np.concatenate(self._parts, dtype=np.int64)
