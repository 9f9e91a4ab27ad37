"""Vector table: a folder of Parquet shards with a manifest that lists the shards in use.

The shards are described in kb_builder/store/shards.py; `manifest.json` holds

    format, encoder (its identity), dim, dtype
    shards: [{name, bytes, rows, row_groups: [{group, rows, offset, crc32}]}]
    sha256: of all the above

A shard is never changed: new content gets a new name. A writer adds its shards beside the old ones, replaces
the manifest atomically and then deletes the shards that the manifest no longer lists, so a concurrent reader
sees the old table or the new one. Files that the manifest does not list are unfinished and are not read.
"""

from __future__ import annotations

import hashlib
import json
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

from data.environment import cores
from data.errors import KnowledgeBaseError
from data.files import hash_json, stamp, write_json
from data.reads import reading
from kb_builder.store.cards import read_card
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
_TRIES, _PAUSE_S = 100, 0.02  # of a reader whose table is being replaced
_ROWS_PER_SHARD = 100_000  # of a table written at once by `write_vectors`


@dataclass(frozen=True)
class Vectors:
    """Rows of a table: `vectors_ND[i]` belongs to `ids[i]` and `groups[i]`."""

    ids: list[str]
    groups: list[str]
    vectors_ND: Floats


@dataclass(frozen=True)
class VectorTable:
    """A table as it was when it was opened. Only its manifest is in memory."""

    folder: Path
    encoder: str  # the identity of the encoder that made the vectors; "" if it is not known
    dim: int
    dtype: Dtype
    shards: tuple[Shard, ...]
    groups: dict[str, int]  # rows of each group, by name in order
    _places: dict[str, list[tuple[int, int]]] = field(repr=False)  # group -> (shard, row group)s

    def __len__(self) -> int:
        return sum(self.groups.values())

    def read(self, group: str) -> Vectors:
        """The rows of one group, ids ascending; no others are read. Raises KeyError for an unknown group."""
        return self.read_many([group])[0]

    def read_many(self, groups: Sequence[str]) -> list[Vectors]:
        """The rows of some groups, each as `read` gives them; neighbours in a shard are read together."""
        counts = [self.groups[group] for group in groups]
        vectors_ND = np.empty((sum(counts), self.dim), np.float32)
        ids: list[str] = []
        for shard, first, stop in _runs([place for group in groups for place in self._places[group]]):
            path = self.folder / self.shards[shard].name
            names = read_names(path, range(first, stop)).column("id")
            rows = sum(row_group.rows for row_group in self.shards[shard].row_groups[first:stop])
            if len(names) != rows:
                raise damaged(path, "its row counts differ from those in the manifest")
            self._fill(shard, first, stop, vectors_ND[len(ids) : len(ids) + rows])
            ids += names.to_pylist()
        stops = np.cumsum(counts).tolist()
        return [
            Vectors(ids[stop - count : stop], [group] * count, vectors_ND[stop - count : stop])
            for group, count, stop in zip(groups, counts, stops, strict=True)
        ]

    def read_vectors(self) -> Floats:
        """All vectors without ids, in the order of the shards: float32[N, D]; shards are read in parallel."""
        out_ND = np.empty((len(self), self.dim), np.float32)
        ends = np.cumsum([shard.rows for shard in self.shards])

        def fill(number: int) -> None:
            shard = self.shards[number]
            rows = slice(ends[number] - shard.rows, ends[number])
            self._fill(number, 0, len(shard.row_groups), out_ND[rows])

        if self.shards:
            with ThreadPoolExecutor(min(len(self.shards), cores())) as pool:
                list(pool.map(fill, range(len(self.shards))))
        return out_ND

    def read_names(self) -> tuple[pa.Array, pa.Array]:
        """The ids and groups of all rows, in the order of `read_vectors`, as arrays of large_string."""
        tables = [
            read_names(self.folder / shard.name, range(len(shard.row_groups)), ["id", "group"])
            for shard in self.shards
            if shard.rows
        ]
        # Not joined as `string`, which overflows at 2 GiB: 33.5 million ids of 64 letters.
        empty = pa.table({name: pa.array([], pa.large_string()) for name in ("id", "group")})
        joined = pa.concat_tables([empty, *(each.cast(empty.schema) for each in tables)]).combine_chunks()
        return joined.column("id").combine_chunks(), joined.column("group").combine_chunks()

    def _fill(self, number: int, first: int, stop: int, out_ND: Floats) -> None:
        shard = self.shards[number]
        path = self.folder / shard.name
        try:
            read_floats(path, shard, first, stop, out_ND, self.dtype)
        except KnowledgeBaseError as error:
            raise self._explain_mismatch(path) or error from None

    def _explain_mismatch(self, path: Path) -> KnowledgeBaseError | None:
        """Why an intact shard does not belong to this table; None if that is not what is wrong with it."""
        try:
            held = inspect_shard(path)
        except KnowledgeBaseError:
            return None
        dim, encoder = held.stored_ND.shape[1], held.metadata.get("unibind_encoder", "")
        if dim != self.dim:
            return damaged(path, f"{dim} dimensions, but its table has {self.dim}")
        if encoder != self.encoder:
            return damaged(path, "made by another encoder than its table")
        return None


def open_table(folder: Path) -> VectorTable:
    """Open a table by its manifest; no vector is read.

    Raises KnowledgeBaseError if there is no manifest, if it is damaged, and if the table was made by another
    encoder or with another dimension than the card of its folder states.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise KnowledgeBaseError(f"{folder}: no vectors here, or an unfinished table; run `unibind encode`")
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
    """Every row of a table, of one version of it even if the table is replaced at the same time.

    Raises KnowledgeBaseError, naming the file, if there is no table, or if a shard is missing, damaged or of
    another encoder.
    """
    for left in reversed(range(_TRIES)):
        before = stamp(folder / MANIFEST)
        table = open_table(folder)
        try:
            ids, groups = table.read_names()
            return Vectors(ids.to_pylist(), groups.to_pylist(), table.read_vectors())
        except KnowledgeBaseError:
            # A writer replaces the manifest before it deletes shards. The stamp is compared, not the content:
            # a table may have been replaced and put back.
            if left == 0 or stamp(folder / MANIFEST) == before:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def part_paths(folder: Path) -> list[Path]:
    """The shards that a table's manifest lists, in its order; empty if there is no manifest."""
    manifest = read_manifest(folder)
    return [] if manifest is None else [folder / each["name"] for each in manifest["shards"]]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A table's manifest, or None if it does not exist. Raises KnowledgeBaseError if it is damaged."""
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
        raise damaged(path, "its checksum does not match its content")
    if manifest["format"] != FORMAT:
        raise KnowledgeBaseError(
            f"{path}: format {manifest['format']}, this version reads {FORMAT}; run `unibind encode` again"
        )
    found: dict[str, Any] = manifest
    return found


def commit(folder: Path, shards: Iterable[Shard], *, encoder: str, dim: int, dtype: Dtype) -> None:
    """Replace the table by these shards, already in `folder`; then delete the shards of the old one."""
    manifest = _manifest(shards, encoder=encoder, dim=dim, dtype=dtype)
    if read_manifest_or_none(folder) != manifest:
        write_json(folder / MANIFEST, {**manifest, "sha256": hash_json(manifest)})
    named = {each["name"] for each in manifest["shards"]}
    for path in sorted(folder.glob("*.parquet")):
        if path.name not in named:
            path.unlink()


def read_manifest_or_none(folder: Path) -> dict[str, Any] | None:
    """A table's manifest, or None if it is missing or damaged: for a writer that replaces it anyway."""
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
    """Write a whole table at once and replace the existing one.

    `contents`: SHA-256 (hex) of what each row was made from; "" (unknown) by default. Raises as `write_shard`
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
    """Refuse a table that was copied here from another encoder's folder."""
    path = folder.parent / "encoder.json"
    if not reading(path).is_file() or not manifest["encoder"]:
        return
    card = read_card(folder.parent)
    own = (card.get("identity", manifest["encoder"]), card.get("dim", manifest["dim"]))
    if own != (manifest["encoder"], manifest["dim"]):
        raise KnowledgeBaseError(
            f"{folder}: made by another encoder (identity {manifest['encoder'][:12]}, {manifest['dim']}"
            f" dimensions) than {path} names ({own[0][:12]}, {own[1]}); delete the folder and run"
            " `unibind encode` again"
        )


def _runs(places: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(shard, first row group, the one after the last) of each run of neighbouring row groups, in order."""
    runs: list[tuple[int, int, int]] = []
    for shard, number in places:
        if runs and runs[-1][0] == shard and runs[-1][2] == number:
            runs[-1] = (shard, runs[-1][1], number + 1)
        else:
            runs.append((shard, number, number + 1))
    return runs
