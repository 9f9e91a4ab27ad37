"""Survey: which parts of a plan the store has already, and where the vectors of the others come from.

A part's file records the identity of its encoder and a fingerprint of its rows' ids, groups and contents. A
planned part whose file exists is `finished`. Vectors in any other file of the same encoder, such as a part of
an earlier plan, are carried over to the parts that own their contents.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError, SampleError
from data.modality import Modality
from data.readers.axes import turned
from kb_builder.encode.plan import Plan
from kb_builder.encode.rows import Digests, Ints, StoredTexts, digests_of
from kb_builder.encode.sheet import Sheet, SheetColumns, keys_of
from kb_builder.encoders.base import Encoder, Source
from kb_builder.store.shards import Contents, Dtype, Shard, check_rows, inspect_shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPart:
    """An intact shard in a table's folder, made by this encoder."""

    path: Path
    shard: Shard
    fingerprint: str
    rejects: dict[str, str]  # content key -> why it has no vector


@dataclass(frozen=True)
class Survey:
    """A plan, and what the store holds of it."""

    plan: Plan
    dim: int
    dtype: Dtype
    finished: dict[int, StoredPart]  # by index in the plan
    outdated: tuple[Path, ...]  # files whose vectors are carried over, as the plan numbers them
    carried: Ints  # of each part: how many of the contents that it owns are carried over

    @cached_property
    def missing(self) -> list[int]:
        """The indices of the parts that are to be made, in order."""
        return [number for number in range(len(self.plan.parts)) if number not in self.finished]

    @cached_property
    def to_encode(self) -> Ints:
        """How many contents each part encodes, if it is missing."""
        return self.plan.owned - self.carried

    @property
    def rejects(self) -> dict[str, str]:
        """Why contents have no vector, by content key, as finished parts say."""
        return {key: why for found in self.finished.values() for key, why in found.rejects.items()}

    @cached_property
    def _is_finished(self) -> npt.NDArray[np.bool_]:
        """Whether each part is finished."""
        found = np.zeros(len(self.plan.parts), np.bool_)
        found[list(self.finished)] = True
        return found

    def sheet(self, index: int) -> Sheet:
        """How to make a part in this process."""
        return self.columns(index).sheet()

    def columns(self, index: int, made: Mapping[int, Path] | None = None) -> SheetColumns:
        """How to make a part. With `made`, files that hold what parts encoded, nothing is encoded or lent."""
        part = self.plan.parts[index]
        size = part.stop - part.start
        # Ascending first rows are in the order of the part's own rows.
        firsts, rows = np.unique(self.plan.firsts(part), return_index=True)
        owners, files = self.plan.owners(firsts), self.plan.carried_by(part)[rows]
        finished, carried = self._is_finished[owners], files >= 0
        new = ~finished & ~carried & (made is None)
        held_by, held = _numbered(size, rows, ~new, np.where(finished | ~carried, owners, -1 - files))
        encode_N = np.zeros(size, np.bool_)
        encode_N[rows[new & (owners == index)]] = True
        lent = new & (owners != index)
        lent_N = np.zeros(size, np.int32)
        lent_N[rows[lent]] = owners[lent]
        is_lent_N = np.zeros(size, np.bool_)
        is_lent_N[rows[lent]] = True
        table, texts = self.plan.table(part)
        encoded = {  # null where nothing is encoded
            name: pc.if_else(pa.array(encode_N), table[name], None)
            for name in ("file", "place", "source", "label", "up")
        }
        return SheetColumns(
            table=pa.table(
                {
                    **{name: table[name] for name in ("id", "group", "content")},
                    "encode": encode_N,
                    **encoded,
                    "held_by": held_by,
                    "lent_by": pa.array(lent_N, mask=~is_lent_N),
                }
            ),
            about={
                "index": index,
                "folder": str(self.plan.folder / part.table),
                "number": part.number,
                "fingerprint": part.fingerprint,
                "identity": self.plan.identity,
                "dim": self.dim,
                "dtype": self.dtype,
                "files": self.plan.tables[part.table],
            },
            texts=texts,
            held=[
                self.outdated[-1 - key]
                if key < 0
                else self.finished[key].path
                if key in self.finished
                else (made or {})[key]
                for key in held
            ],
        )


def _numbered(size: int, rows: Ints, chosen: npt.NDArray[np.bool_], keys: Ints) -> tuple[pa.Array, list[int]]:
    """A column of `size` rows: of the chosen rows the number of their key, null elsewhere; and the keys."""
    distinct, number_N = np.unique(keys[chosen], return_inverse=True)
    found_N, is_null_N = np.zeros(size, np.int32), np.ones(size, np.bool_)
    found_N[rows[chosen]] = number_N
    is_null_N[rows[chosen]] = False
    return pa.array(found_N, mask=is_null_N), distinct.tolist()


def survey(plan: Plan, encoder: Encoder, dtype: Dtype) -> Survey:
    """Look at every file in the folders of a plan's tables.

    A part with a reject that can be read now, after its file was restored for example, is not finished.
    """
    finished, outdated = _scan_store(plan, encoder, dtype)
    if len(finished) == len(plan.parts):
        outdated = []  # nothing is to be made
    none = np.zeros(len(plan.parts), np.int64)
    carried = plan.carry(_contents(plan, outdated)) if outdated else none
    return Survey(plan, encoder.dim, dtype, finished, tuple(each.path for each in outdated), carried)


def _some(column: Any, rows: list[int]) -> Any:
    """Some rows of a column: of a list, or of stored texts."""
    return column.take(rows) if isinstance(column, StoredTexts) else [column[row] for row in rows]


def _scan_store(plan: Plan, encoder: Encoder, dtype: Dtype) -> tuple[dict[int, StoredPart], list[StoredPart]]:
    """The finished parts, by their index in the plan, and the outdated files of the same encoder."""
    planned = {(part.table, part.fingerprint): number for number, part in enumerate(plan.parts)}
    finished: dict[int, StoredPart] = {}
    outdated: list[StoredPart] = []
    for table in plan.tables:
        for path in sorted((plan.folder / table).glob("*.parquet")):
            found = _read_part(path, plan.identity, (encoder.dim, dtype))
            if found is None:
                continue
            number = planned.get((table, found.fingerprint))
            if (
                number is None
                or number in finished
                or _any_readable_now(plan, number, found.rejects, encoder)
            ):
                outdated.append(found)
            else:
                finished[number] = found
    return finished, outdated


def _read_part(path: Path, identity: str, form: tuple[int, Dtype]) -> StoredPart | None:
    try:
        held = inspect_shard(path)
        check_rows(path, held.ids.to_pylist(), held.stored_ND)
    except KnowledgeBaseError as error:
        logger.warning("%s; its vectors are encoded again now", error)
        return None
    if held.metadata.get("unibind_encoder") != identity or _layout_of(held) != form:
        return None
    rejects: dict[str, str] = json.loads(held.metadata.get("unibind_rejects", "{}"))
    return StoredPart(path, held.shard, held.metadata.get("unibind_fingerprint", ""), rejects)


def _layout_of(held: Contents) -> tuple[int, str]:
    return held.stored_ND.shape[1], held.stored_ND.dtype.name


def _any_readable_now(plan: Plan, index: int, rejects: Mapping[str, str], encoder: Encoder) -> bool:
    if not rejects:
        return False
    part = plan.parts[index]
    of_files, some = plan.tables[part.table], plan.rows(part)
    keys = keys_of(some.groups, some.contents, files=of_files)
    rows = [row for row, key in enumerate(keys) if key in rejects]
    sources = _some(some.sources, rows)
    if not of_files:
        texts = sources.to_pylist() if isinstance(sources, StoredTexts) else sources
        return any(_is_readable(encoder, "text", source) for source in texts)
    found = zip(rows, sources, strict=True)
    return any(
        _is_readable(encoder, cast("Modality", some.groups[row]), turned(Path(source), some.ups[row]))
        for row, source in found
    )


def _is_readable(encoder: Encoder, modality: Modality, source: Source) -> bool:
    try:
        encoder.prepare(modality, source)
    except SampleError:
        return False
    return True


def _contents(plan: Plan, outdated: Sequence[StoredPart]) -> Iterator[Digests]:
    """The contents of files, one file after the other."""
    for found in outdated:
        held = inspect_shard(found.path)
        files = plan.tables[found.path.parent.name]
        yield digests_of(held.groups, held.contents, files=files)
