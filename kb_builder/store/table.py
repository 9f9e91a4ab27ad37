"""The embedding store: tables of vectors in plain Parquet, each with a manifest that says which files count.

A table is a folder of shards (kb_builder/store/shards.py) and `manifest.json`:

    format, encoder (its identity), dim, dtype
    shards: [{name, bytes, rows, row_groups: [{group, rows, offset, crc32}]}]
    sha256: of all the above

A shard is never changed: new content has a new name. So a writer makes its shards beside the old ones,
replaces the manifest (atomically) and then removes what the manifest no longer names: who reads meanwhile has
the old table or the new one. Files that the manifest does not name are unfinished work and are not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import KnowledgeBaseError, first_line
from data.files import hash_json, stamp, write_json
from data.reads import reading
from kb_builder.store.shards import (
    Dtype,
    Floats,
    RowGroup,
    Shard,
    damaged,
    inspect_shard,
    read_floats,
    read_names,
    write_shard,
)

MANIFEST = "manifest.json"
FORMAT = 1
_TRIES, _PAUSE_S = 20, 0.02  # while a table is replaced, its reader begins anew
_ROWS_PER_SHARD = 100_000  # of tables that are written in one go


@dataclass(frozen=True)
class Vectors:
    """Rows of a table: `vectors_ND[i]` belongs to `ids[i]` and `groups[i]`."""

    ids: list[str]
    groups: list[str]
    vectors_ND: Floats


@dataclass(frozen=True)
class VectorTable:
    """A table as it was when it was opened. Nothing but its manifest is held in memory."""

    folder: Path
    encoder: str  # the identity of the encoder that made the vectors; "" where it is not known
    dim: int
    dtype: Dtype
    shards: tuple[Shard, ...]
    groups: dict[str, int]  # rows of each group, by name in order
    _places: dict[str, list[tuple[int, int]]] = field(repr=False)  # group -> (shard, row group)s

    def __len__(self) -> int:
        return sum(self.groups.values())

    def read(self, group: str) -> Vectors:
        """The rows of one group, ids ascending; no others are touched. KeyError for an unknown group."""
        blocks, ids = [], pa.array([], pa.string())
        for shard, numbers in _runs(self._places[group]):
            path = self.folder / self.shards[shard].name
            names = read_names(path, numbers).column("id")
            if len(names) != sum(self.shards[shard].row_groups[number].rows for number in numbers):
                raise damaged(path, "other numbers of rows than the manifest says")
            block_ND = np.empty((len(names), self.dim), np.float32)
            self._fill(shard, numbers[0], numbers[-1] + 1, block_ND)
            blocks.append(block_ND)
            ids = pa.concat_arrays([ids, *names.chunks])
        vectors_ND = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        names = ids.to_pylist()
        return Vectors(names, [group] * len(names), vectors_ND)

    def read_vectors(self) -> Floats:
        """All vectors without their names, shard by shard: float32[N, D]; shards are read side by side."""
        out_ND = np.empty((len(self), self.dim), np.float32)
        ends = np.cumsum([shard.rows for shard in self.shards])

        def fill(number: int) -> None:
            shard = self.shards[number]
            rows = slice(ends[number] - shard.rows, ends[number])
            self._fill(number, 0, len(shard.row_groups), out_ND[rows])

        if self.shards:
            with ThreadPoolExecutor(min(len(self.shards), len(os.sched_getaffinity(0)))) as pool:
                list(pool.map(fill, range(len(self.shards))))
        return out_ND

    def read_names(self) -> tuple[pa.Array, pa.Array]:
        """The ids and groups of all rows, in the order of `read_vectors`, as string arrays."""
        tables = [
            read_names(self.folder / shard.name, range(len(shard.row_groups)), ["id", "group"])
            for shard in self.shards
            if shard.rows
        ]
        if not tables:
            return pa.array([], pa.string()), pa.array([], pa.string())
        joined = pa.concat_tables(tables).combine_chunks()
        return joined.column("id").combine_chunks(), joined.column("group").combine_chunks()

    def _fill(self, number: int, first: int, stop: int, out_ND: Floats) -> None:
        shard = self.shards[number]
        path = self.folder / shard.name
        try:
            read_floats(path, shard, first, stop, out_ND, self.dtype)
        except KnowledgeBaseError as error:
            raise self._foreign(path) or error from None

    def _foreign(self, path: Path) -> KnowledgeBaseError | None:
        """What is known of a file that is not the one that the manifest means, if anything."""
        try:
            held = inspect_shard(path)
        except KnowledgeBaseError:
            return None
        dim, encoder = held.stored_ND.shape[1], held.metadata.get("unibind_encoder", "")
        if dim != self.dim:
            return damaged(path, f"{dim} dimensions, its table has {self.dim}")
        if encoder != self.encoder:
            return damaged(path, "made by another encoder than its table")
        return None


def open_table(folder: Path) -> VectorTable:
    """Open a table by its manifest; no vector is read.

    Raises KnowledgeBaseError where there is none, or where it was made by another encoder, or in another
    form, than the folder around it says.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise KnowledgeBaseError(f"{folder}: no vectors here, or not all; run `unibind encode`")
    shards = tuple(_shard(each) for each in manifest["shards"])
    places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    rows: defaultdict[str, int] = defaultdict(int)
    for number, shard in enumerate(shards):
        for at, row_group in enumerate(shard.row_groups):
            places[row_group.group].append((number, at))
            rows[row_group.group] += row_group.rows
    _require_own_encoder(folder, manifest)
    return VectorTable(
        folder=folder,
        encoder=manifest["encoder"],
        dim=manifest["dim"],
        dtype=manifest["dtype"],
        shards=shards,
        groups={group: rows[group] for group in sorted(rows)},
        _places=dict(places),
    )


def read_vectors(folder: Path) -> Vectors:
    """Every row of a table: as it is now, or as it was if it is replaced meanwhile; never a mixture.

    Raises KnowledgeBaseError, naming the file, where there is no table or a shard is damaged, missing or
    another's.
    """
    for left in reversed(range(_TRIES)):
        before = stamp(folder / MANIFEST)
        table = open_table(folder)
        try:
            ids, groups = table.read_names()
            return Vectors(ids.to_pylist(), groups.to_pylist(), table.read_vectors())
        except KnowledgeBaseError:
            # A writer replaces the manifest before he removes shards. To compare what it says would not do: a
            # table may be replaced and put back.
            if left == 0 or stamp(folder / MANIFEST) == before:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def part_paths(folder: Path) -> list[Path]:
    """The files of a table by its manifest, in order; none where there is no table (yet)."""
    manifest = read_manifest(folder)
    return [] if manifest is None else [folder / each["name"] for each in manifest["shards"]]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A table's manifest, or None where there is none. Raises KnowledgeBaseError for a damaged one."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(reading(path).read_text(encoding="utf-8"))
        claimed = manifest.pop("sha256")
        whole = hash_json(manifest) == claimed
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, AttributeError) as error:
        raise damaged(path, f"not a manifest: {error}") from error
    if not whole:
        raise damaged(path, "its checksum does not fit what it says")
    if manifest["format"] != FORMAT:
        raise KnowledgeBaseError(
            f"{path}: format {manifest['format']}, this version reads {FORMAT}; run `unibind encode` again"
        )
    found: dict[str, Any] = manifest
    return found


def commit(folder: Path, shards: Iterable[Shard], *, encoder: str, dim: int, dtype: Dtype) -> None:
    """Make these shards, which lie in `folder`, its table; then remove the shards of the table before."""
    manifest = _manifest(shards, encoder=encoder, dim=dim, dtype=dtype)
    if read_manifest_or_none(folder) != manifest:
        write_json(folder / MANIFEST, {**manifest, "sha256": hash_json(manifest)})
    named = {each["name"] for each in manifest["shards"]}
    for path in sorted(folder.glob("*.parquet")):
        if path.name not in named:
            path.unlink()


def read_manifest_or_none(folder: Path) -> dict[str, Any] | None:
    """A table's manifest, or None where there is none that can be used: it is about to be replaced."""
    try:
        return read_manifest(folder)
    except KnowledgeBaseError:
        return None


def write_vectors(
    folder: Path,
    *,
    ids: Sequence[str],
    groups: Sequence[str],
    vectors_ND: npt.NDArray[np.floating],
    contents: Sequence[str] | None = None,
    dtype: Dtype = "float16",
    encoder: str = "",
) -> None:
    """Write a whole table in one go, in place of the one that is there.

    `contents` are SHA-256 of what each row was made from (default: "", unknown). Raises as `write_shard`
    does.
    """
    order = sorted(range(len(ids)), key=lambda row: (groups[row], ids[row]))
    shards = []
    for number, start in enumerate(range(0, len(order), _ROWS_PER_SHARD)):
        rows = order[start : start + _ROWS_PER_SHARD]
        block = {
            "ids": [ids[row] for row in rows],
            "groups": [groups[row] for row in rows],
            "contents": ["" if contents is None else contents[row] for row in rows],
        }
        block_ND = np.ascontiguousarray(vectors_ND[rows])
        digest = hashlib.sha256(block_ND.tobytes()).hexdigest()
        name = f"part-{number:05d}-{hash_json([encoder, dtype, block, digest])[:8]}.parquet"
        shards.append(
            write_shard(
                folder / name,
                **block,
                vectors_ND=block_ND,
                dtype=dtype,
                metadata={"unibind_encoder": encoder},
            )
        )
    commit(folder, shards, encoder=encoder, dim=vectors_ND.shape[1], dtype=dtype)


def _manifest(shards: Iterable[Shard], *, encoder: str, dim: int, dtype: Dtype) -> dict[str, Any]:
    listed = [{**asdict(shard), "rows": shard.rows} for shard in shards]
    for shard in listed:
        shard["row_groups"] = list(shard["row_groups"])
    return {"format": FORMAT, "encoder": encoder, "dim": dim, "dtype": dtype, "shards": listed}


def _shard(listed: dict[str, Any]) -> Shard:
    row_groups = tuple(RowGroup(**each) for each in listed["row_groups"])
    return Shard(listed["name"], listed["bytes"], row_groups)


def _require_own_encoder(folder: Path, manifest: dict[str, Any]) -> None:
    """A table that was copied here from another encoder's folder must not be taken for this one's."""
    path = folder.parent / "encoder.json"
    if not reading(path).is_file() or not manifest["encoder"]:
        return
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, first_line(error)) from error
    if not isinstance(card, dict):
        raise damaged(path, "no JSON object")
    own = (card.get("identity", manifest["encoder"]), card.get("dim", manifest["dim"]))
    if own != (manifest["encoder"], manifest["dim"]):
        raise KnowledgeBaseError(
            f"{folder}: made by another encoder (identity {manifest['encoder'][:12]}, {manifest['dim']}"
            f" dimensions) than {path} names ({own[0][:12]}, {own[1]}); delete the folder and encode again"
        )


def _runs(places: list[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """(shard, row groups) of one group: in each shard its row groups follow one another."""
    runs: dict[int, list[int]] = {}
    for shard, number in places:
        runs.setdefault(shard, []).append(number)
    return list(runs.items())
