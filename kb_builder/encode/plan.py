"""Plan of an embedding run: which rows go into which shard, and which shard encodes each distinct content.

The plan depends on the rows and the size of a part alone: rows are sorted by (group, id) and cut into parts
of bounded size, between two groups where possible. Each distinct content is encoded by the first part that
holds it; later parts copy its vector.

The rows are not in memory (kb_builder/encode/planned_rows.py), only a few numbers for each part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import lcm
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.errors import KnowledgeBaseError
from data.files import hash_json
from kb_builder.encode.planned_rows import PartRows, PlanLimits, PlannedRows, planned_rows
from kb_builder.encode.rows import Digests, Ints, WantedVectors


@dataclass(frozen=True)
class VectorPart:
    """One shard as planned: rows `start` … `stop` - 1 of the plan, which counts the rows of all tables."""

    table: str
    number: int
    start: int
    stop: int
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """All parts, in the order in which they are made. It is valid within the block of `plan_parts`."""

    folder: Path
    identity: str
    tables: dict[str, bool]  # name -> whether its contents are files, not texts
    parts: tuple[VectorPart, ...]
    _rows: PlannedRows

    @property
    def distinct(self) -> int:
        """The number of distinct contents."""
        return self._rows.count - self._rows.repeats

    @cached_property
    def owned(self) -> Ints:
        """How many contents each part has as the first."""
        sizes = np.array([part.stop - part.start for part in self.parts], np.int64)
        return sizes - self._rows.count_repeats(self._stops)

    def rows(self, part: VectorPart) -> PartRows:
        """The rows of a part."""
        return self._rows.rows(part.start, part.stop)

    def table(self, part: VectorPart) -> tuple[pa.Table, list[Path]]:
        """The rows of a part as columns, and the files of stored texts that its column `file` numbers."""
        return self._rows.table(part.start, part.stop)

    def firsts(self, part: VectorPart) -> Ints:
        """Of each row of a part: the first row of the plan with its content."""
        return self._rows.firsts(part.start, part.stop)

    def owners(self, firsts: Ints) -> Ints:
        """The index in `parts` of the part that encodes the content of such a first row."""
        return np.searchsorted(self._stops, firsts, side="right")

    def carry(self, files: Iterable[Digests]) -> Ints:
        """Tell once which contents files have vectors of: how many of the contents that each part owns."""
        self._rows.carry(files)
        return self._rows.count_carried(self._stops)

    def carried_by(self, part: VectorPart) -> Ints:
        """Of each row of a part: the number of the file that has its vector (`carry`), or -1."""
        return self._rows.carried_by(part.start, part.stop)

    @cached_property
    def _stops(self) -> Ints:
        return np.array([part.stop for part in self.parts], np.int64)


@contextmanager
def plan_parts(
    folder: Path,
    tables: Mapping[str, Iterable[WantedVectors]],
    *,
    identity: str,
    rows_per_part: int | Mapping[str, int],
    limits: PlanLimits | None = None,
) -> Iterator[Plan]:
    """The parts of `<folder>/<table>/`; the rows of each table come in pieces of any size and order.

    `rows_per_part` may differ by group: a part with rows of several groups is filled by shares of each.

    While the block lasts, a hidden folder in `folder` takes what exceeds the memory of `limits`. Raises
    KnowledgeBaseError for a duplicate id in a table, and where that disk is full.
    """
    with planned_rows(folder, limits or PlanLimits()) as rows:
        files: dict[str, bool] = {}
        for number, (name, pieces) in enumerate(tables.items()):
            files[name] = False
            for piece in pieces:
                files[name] = piece.files
                rows.add(number, piece)
        duplicate = rows.sort()
        if duplicate is not None:
            table, found = list(files)[duplicate[0]], duplicate[1]
            raise KnowledgeBaseError(
                f"{folder / table}: duplicate id {found!r} in the rows to encode; the tables that they come"
                " from are damaged, run `unibind kb verify`"
            )
        yield Plan(folder, identity, files, tuple(_parts(rows, files, identity, rows_per_part)), rows)


def _parts(
    rows: PlannedRows, files: Mapping[str, bool], identity: str, size: int | Mapping[str, int]
) -> Iterator[VectorPart]:
    before, sizes = 0, rows.group_sizes()
    for table, name in enumerate(files):
        groups = sizes.get(table, [])
        last: list[tuple[str, str]] = []
        for number, (start, stop) in enumerate(_cut(groups, size)):
            some = rows.rows(before + start, before + stop)
            keys = list(zip(some.groups, some.ids, strict=True))
            if not all(first < second for first, second in pairwise(last + keys)):
                raise AssertionError(f"rows of {name} are not sorted")
            last = keys[-1:]
            fingerprint = hash_json([identity, files[name], some.ids, some.groups, some.contents])
            yield VectorPart(name, number, before + start, before + stop, fingerprint)
        before += sum(count for _, count in groups)


def _cut(groups: Sequence[tuple[str, int]], size: int | Mapping[str, int]) -> list[tuple[int, int]]:
    """Cut sorted rows into (start, stop) runs of at most `size`, between two groups where possible.

    `groups` are their names and numbers of rows, in order.
    """
    limits = [size if isinstance(size, int) else size[name] for name, _ in groups]
    full = lcm(*set(limits))  # a part, counted so that a row of any group is a whole number
    cuts: list[tuple[int, int]] = []
    start = place = filled = 0
    for (_, count), most in zip(groups, limits, strict=True):
        each, left = full // most, count
        if filled and filled + left * each > full:
            cuts.append((start, place))
            start, filled = place, 0
        while filled + left * each > full:  # a group that is larger than a part begins one
            cuts.append((start, start + most))
            start, left = start + most, left - most
        filled += left * each
        place += count
    return [*cuts, (start, place)] if groups else []
