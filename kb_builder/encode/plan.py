"""Plan of an embedding run: which rows go into which shard, and which shard encodes each distinct content.

The plan depends on the rows alone: they are sorted by (group, id) and cut into parts of bounded size, between
two groups where possible. Each distinct content is encoded by the first part that holds it; later
parts copy its vector.
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
class WantedVectors:
    """The rows that a table should have, as string columns of equal length.

    `sources` are texts, or with `files` paths of files whose modality is their group; `contents` are the
    SHA-256 (hex) of each text or file. `labels` name the files in messages, instead of their full paths;
    `ups` is the axis of a file that points up, null for the default of its format.
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

    def sorted(self) -> WantedVectors:
        """The same rows, sorted by (group, id)."""
        columns = {"group": self.groups, "id": self.ids}
        order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
        labels, ups = (None if each is None else each.take(order) for each in (self.labels, self.ups))
        ids, groups, contents, sources = (
            column.take(order) for column in (self.ids, self.groups, self.contents, self.sources)
        )
        return WantedVectors(ids, groups, contents, sources, self.files, labels, ups)

    def keys(self) -> pa.StringArray:
        """The content key of each row: rows with equal keys have equal vectors."""
        return content_keys(self.groups, self.contents, files=self.files)


def content_keys(groups: pa.StringArray, contents: pa.StringArray, *, files: bool) -> pa.StringArray:
    """Contents prefixed by their modality: "text" for texts, the group for files."""
    modalities = groups if files else pa.array(["text"] * len(groups), pa.string())
    return pc.binary_join_element_wise(modalities, contents, ":")


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
    """All parts, in the order in which they are made. A code is the index of a key in `keys`."""

    folder: Path
    identity: str
    tables: dict[str, WantedVectors]  # sorted
    parts: tuple[VectorPart, ...]
    keys: pa.StringArray  # distinct content keys
    codes: dict[str, Ints]  # of each table: the codes of its rows
    owners: Ints  # of each code: the index in `parts` of the part that encodes it

    def codes_of(self, part: VectorPart) -> Ints:
        """The codes of a part's rows."""
        return self.codes[part.table][part.start : part.stop]


def plan_parts(
    folder: Path, tables: Mapping[str, WantedVectors], *, identity: str, rows_per_part: int
) -> Plan:
    """The parts of `<folder>/<table>/`. Raises KnowledgeBaseError for a duplicate id in a table."""
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
    """Cut sorted rows into (start, stop) runs of at most `size` rows, between two groups where possible."""
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


def _fingerprint(identity: str, table: WantedVectors, start: int, stop: int) -> str:
    columns = (table.ids, table.groups, table.contents)
    return hash_json([identity, table.files, *(column[start:stop].to_pylist() for column in columns)])


def _require_unique(where: Path, ids: pa.StringArray) -> None:
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        duplicate = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise KnowledgeBaseError(
            f"{where}: duplicate id {duplicate!r} in the rows to encode; the tables that they come from are"
            " damaged, run `unibind kb verify`"
        )
