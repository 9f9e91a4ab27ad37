"""Which rows go into which file of the embedding store, and which of them is encoded where.

The plan follows from the rows alone: sorted by (group, id), cut where a group ends if a part would else grow
beyond so many rows. Each distinct content belongs to the first part that holds it and is lent to later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError
from data.files import hash_json

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WantedVector:
    """The rows that a table is to have, as string columns of one length.

    `contents` are SHA-256 (hex) of what `sources` hold: texts, or with `files` the paths of files, whose
    modality is their group. `labels` are what messages call the files instead of their full paths; `ups` say
    which axis of a file points up, where that is not as its format has it.
    """

    ids: pa.StringArray
    groups: pa.StringArray
    contents: pa.StringArray
    sources: pa.StringArray
    files: bool = False
    labels: pa.StringArray | None = None
    ups: pa.StringArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def sorted(self) -> WantedVector:
        """By (group, id)."""
        columns = {"group": self.groups, "id": self.ids}
        order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
        labels, ups = (None if each is None else each.take(order) for each in (self.labels, self.ups))
        ids, groups, contents, sources = (
            column.take(order) for column in (self.ids, self.groups, self.contents, self.sources)
        )
        return WantedVector(ids, groups, contents, sources, self.files, labels, ups)

    def keys(self) -> pa.StringArray:
        """What decides a vector: equal keys, equal vectors."""
        return content_keys(self.groups, self.contents, files=self.files)


def content_keys(groups: pa.StringArray, contents: pa.StringArray, *, files: bool) -> pa.StringArray:
    """Contents with their modality: of texts all the same, of files the group."""
    modalities = groups if files else pa.array(["text"] * len(groups), pa.string())
    return pc.binary_join_element_wise(modalities, contents, ":")


@dataclass(frozen=True)
class VectorPart:
    """One file of the store, as planned: rows `start` … `stop` - 1 of a table."""

    table: str
    number: int
    start: int
    stop: int
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """All parts in the order in which they are to be made. A code is the number of a key in `keys`."""

    folder: Path
    identity: str
    tables: dict[str, WantedVector]  # sorted
    parts: tuple[VectorPart, ...]
    keys: pa.StringArray  # the distinct ones
    codes: dict[str, Ints]  # of the rows of each table
    owners: Ints  # of each code the place in `parts` of the part that encodes it

    def codes_of(self, part: VectorPart) -> Ints:
        """The codes of a part's rows."""
        return self.codes[part.table][part.start : part.stop]


def plan_parts(
    folder: Path, tables: Mapping[str, WantedVector], *, identity: str, rows_per_part: int
) -> Plan:
    """The parts of `<folder>/<table>/`. Raises KnowledgeBaseError for an id that comes twice in a table."""
    ordered = {name: table.sorted() for name, table in tables.items()}
    parts: list[VectorPart] = []
    for name, table in ordered.items():
        _require_unique(folder / name, table.ids)
        for number, (start, stop) in enumerate(_cut(table.groups, rows_per_part)):
            parts.append(VectorPart(name, number, start, stop, _fingerprint(identity, table, start, stop)))
    coded = pa.chunked_array([table.keys() for table in ordered.values()], pa.string()).combine_chunks()
    coded = coded.dictionary_encode()
    code_N = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum([len(table) for table in ordered.values()]).tolist()
    codes = {
        name: code_N[end - len(table) : end] for (name, table), end in zip(ordered.items(), ends, strict=True)
    }
    _, firsts = np.unique(code_N, return_index=True)
    part_ends = np.cumsum([part.stop - part.start for part in parts], dtype=np.int64)
    owners = np.searchsorted(part_ends, firsts, side="right")
    return Plan(folder, identity, ordered, tuple(parts), coded.dictionary, codes, owners)


def _cut(groups: pa.StringArray, size: int) -> list[tuple[int, int]]:
    """Cut sorted rows into runs of at most `size`, between two groups wherever that is possible."""
    if not len(groups):
        return []
    codes = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
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


def _fingerprint(identity: str, table: WantedVector, start: int, stop: int) -> str:
    columns = (table.ids, table.groups, table.contents)
    return hash_json([identity, table.files, *(column[start:stop].to_pylist() for column in columns)])


def _require_unique(where: Path, ids: pa.StringArray) -> None:
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise KnowledgeBaseError(f"{where}: the id {twice!r} comes twice; its tables are damaged")
