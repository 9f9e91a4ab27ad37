"""Plan of an embedding run: which rows go into which shard, and which shard encodes each distinct content.

The plan depends on the rows alone: they are sorted by (group, id) and cut into parts of bounded size, between
two groups where possible. Each distinct content is encoded by the first part that holds it; later
parts copy its vector.

A million rows are planned in about 0.1 GB: numbers are kept in NumPy arrays, SHA-256 in 32 bytes, and texts
stay in their files (kb_builder/encode/rows.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError
from data.files import hash_json
from kb_builder.encode.rows import Digests, Ints, WantedVectors, digests_of

_AT_A_TIME = 65_536  # rows


@dataclass(frozen=True)
class VectorPart:
    """One shard as planned: rows `start` … `stop` - 1 of a table."""

    table: str
    number: int
    start: int
    stop: int
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """All parts, in the order in which they are made. A code is the number of a distinct content; contents
    are numbered by their first appearance."""

    folder: Path
    identity: str
    tables: dict[str, WantedVectors]  # sorted
    digests: dict[str, Digests]  # of each table: its contents
    parts: tuple[VectorPart, ...]
    codes: dict[str, Ints]  # of each table: the codes of its rows
    firsts: Ints  # of each code: its first row, counted over all tables
    owners: Ints  # of each code: the index in `parts` of the part that encodes it

    def codes_of(self, part: VectorPart) -> Ints:
        """The codes of a part's rows."""
        return self.codes[part.table][part.start : part.stop]

    def keys_of(self, codes: Ints) -> list[str]:
        """The content keys of codes (`WantedVectors.keys`)."""
        found = [""] * len(codes)
        for name, own, rows in self._located(codes):
            for place, key in zip(own.tolist(), self.tables[name].keys(rows.tolist()), strict=True):
                found[place] = key
        return found

    def find(self, groups: pa.Array, contents: pa.Array, *, files: bool) -> Ints:
        """The codes of stored rows (their groups, and their contents in hex); -1 where the plan has none."""
        wanted_N4 = digests_of(groups, contents, files=files)
        heads, codes = self._by_head
        at_N = np.searchsorted(heads, wanted_N4[:, 0])
        found_N = np.full(len(wanted_N4), -1, np.int64)
        left_N = np.arange(len(wanted_N4))
        while len(left_N := left_N[at_N[left_N] < len(heads)]):
            left_N = left_N[heads[at_N[left_N]] == wanted_N4[left_N, 0]]
            code_N = codes[at_N[left_N]]
            same_N = (self._digests_of(code_N) == wanted_N4[left_N]).all(axis=1)
            found_N[left_N[same_N]] = code_N[same_N]
            left_N = left_N[~same_N]  # two contents may begin with the same 8 bytes
            at_N[left_N] += 1
        return found_N

    @cached_property
    def _by_head(self) -> tuple[npt.NDArray[np.uint64], Ints]:
        """The first 8 bytes of each content in ascending order, and the codes in this order."""
        heads = np.empty(len(self.firsts), np.uint64)
        for name, own, rows in self._located(np.arange(len(self.firsts))):
            heads[own] = self.digests[name][rows, 0]
        order = np.argsort(heads, kind="stable").astype(self.firsts.dtype)
        return heads[order], order

    def _digests_of(self, codes: Ints) -> Digests:
        found_N4 = np.empty((len(codes), 4), np.uint64)
        for name, own, rows in self._located(codes):
            found_N4[own] = self.digests[name][rows]
        return found_N4

    def _located(self, codes: Ints) -> Iterator[tuple[str, Ints, Ints]]:
        """For each table: which of the codes appear there first, and in which rows of it."""
        firsts, start = self.firsts[codes], 0
        for name, table in self.tables.items():
            own = np.flatnonzero((firsts >= start) & (firsts < start + len(table)))
            yield name, own, firsts[own] - start
            start += len(table)


def plan_parts(
    folder: Path, tables: Mapping[str, WantedVectors], *, identity: str, rows_per_part: int
) -> Plan:
    """The parts of `<folder>/<table>/`. The tables are sorted in place.

    Raises KnowledgeBaseError for a duplicate id in a table.
    """
    ordered = dict(tables)
    parts: list[VectorPart] = []
    for name, table in ordered.items():
        table.sort()
        _require_unique(folder / name, table.ids)
        for number, (start, stop) in enumerate(_cut(table.groups, rows_per_part)):
            parts.append(VectorPart(name, number, start, stop, _fingerprint(identity, table, start, stop)))
    digests = {name: table.digests() for name, table in ordered.items()}
    code_N, firsts = _number(list(digests.values()))
    ends = np.cumsum([len(table) for table in ordered.values()]).tolist()
    codes = {
        name: code_N[end - len(table) : end] for (name, table), end in zip(ordered.items(), ends, strict=True)
    }
    part_ends = np.cumsum([part.stop - part.start for part in parts], dtype=np.int64)
    owners = np.searchsorted(part_ends, firsts, side="right").astype(np.int32)
    return Plan(folder, identity, ordered, digests, tuple(parts), codes, firsts, owners)


def _number(tables: Sequence[Digests]) -> tuple[Ints, Ints]:
    """(the code of each row of all tables, the first row of each code): equal contents have one code."""
    count = sum(map(len, tables))
    kind: type[np.signedinteger[Any]] = np.int32 if count < 2**31 else np.int64
    heads = np.concatenate([np.zeros(0, np.uint64), *(table[:, 0] for table in tables)])
    order = np.argsort(heads, kind="stable").astype(kind)
    new = np.ones(count, np.bool_)  # in this order: whether it differs from the one before
    new[1:] = heads[order[1:]] != heads[order[:-1]]
    del heads
    repeats = np.flatnonzero(~new)
    for start in range(0, len(repeats), _AT_A_TIME):
        some = repeats[start : start + _AT_A_TIME]
        if (_rows(tables, order[some]) != _rows(tables, order[some - 1])).any():
            # Two contents begin with the same 8 bytes, which hardly ever happens: all 32 decide.
            whole_N4 = np.concatenate(tables)
            order = np.lexsort(whole_N4.T[::-1]).astype(kind)
            new[1:] = (whole_N4[order[1:]] != whole_N4[order[:-1]]).any(axis=1)
            break
    # The sort is stable, so the first of a run of equal contents is the first to appear.
    firsts = order[new]
    run_N = np.cumsum(new, dtype=kind) - 1
    by_appearance = np.argsort(firsts, kind="stable")
    codes_of_runs = np.empty(len(firsts), kind)
    codes_of_runs[by_appearance] = np.arange(len(firsts), dtype=kind)
    code_N = np.empty(count, kind)
    code_N[order] = codes_of_runs[run_N]
    return code_N, firsts[by_appearance]


def _rows(tables: Sequence[Digests], rows: Ints) -> Digests:
    """Some rows, counted over all tables."""
    found_N4, start = np.empty((len(rows), 4), np.uint64), 0
    for table in tables:
        own = np.flatnonzero((rows >= start) & (rows < start + len(table)))
        found_N4[own] = table[rows[own] - start]
        start += len(table)
    return found_N4


def _cut(groups: pa.DictionaryArray, size: int) -> list[tuple[int, int]]:
    """Cut sorted rows into (start, stop) runs of at most `size` rows, between two groups where possible."""
    if not len(groups):
        return []
    codes = groups.indices.to_numpy()
    ends = [*(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(groups)]
    cuts: list[tuple[int, int]] = []
    start = previous = 0
    for end in ends:
        if end - start > size and previous > start:
            cuts.append((start, previous))
            start = previous
        while end - start > size:
            cuts.append((start, start + size))
            start += size
        previous = end
    cuts.append((start, len(groups)))
    return cuts


def _fingerprint(identity: str, table: WantedVectors, start: int, stop: int) -> str:
    rows = range(start, stop)
    columns = (table.ids[start:stop].to_pylist(), table.groups[start:stop].to_pylist(), table.hexes(rows))
    return hash_json([identity, table.files, *columns])


def _require_unique(where: Path, ids: pa.LargeStringArray) -> None:
    order = pc.sort_indices(ids)
    for start in range(0, len(ids), _AT_A_TIME):
        some = ids.take(order[start : start + _AT_A_TIME + 1])
        same = pc.equal(some[1:], some[:-1])
        if pc.any(same).as_py():
            duplicate = some[pc.index(same, True).as_py()].as_py()
            raise KnowledgeBaseError(
                f"{where}: duplicate id {duplicate!r} in the rows to encode; the tables that they come from"
                " are damaged, run `unibind kb verify`"
            )
