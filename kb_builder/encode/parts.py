"""Resumable encoding: carry out a plan part by part, and reuse the vectors that are stored already.

What each part encodes depends on the rows alone (kb_builder/encode/plan.py), so a run that was killed and
resumed forms the same batches as an uninterrupted one and gives the same bytes.

A part's file records the identity of its encoder and a fingerprint of its rows' ids, groups and contents. A
planned part whose file exists is kept. Any other file is replaced: the vectors of contents that it shares
with the new plan are carried over, so only new contents are encoded, and removed or changed contents leave
no vector behind. The tables' manifests (kb_builder/store/table.py) are written last, when all parts exist.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from data.errors import KnowledgeBaseError, SampleError
from data.files import hash_json, hash_text
from data.modality import Modality
from data.readers import reading_ahead
from data.readers.axes import turned
from kb_builder.encode.plan import Plan
from kb_builder.encode.rows import Ints
from kb_builder.encoders.base import Encoder, Source
from kb_builder.encoders.workers import map_batches
from kb_builder.settings import Encode
from kb_builder.store.shards import Contents, Dtype, Floats, Shard, check_rows, inspect_shard, write_shard
from kb_builder.store.table import commit

_AT_A_TIME = 10_000  # rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What a run of `encode_parts` did."""

    distinct: int = 0  # distinct contents
    encoded: int = 0  # contents encoded now
    carried: int = 0  # contents whose vectors were carried over from replaced files
    reused: int = 0  # rows of parts that were kept
    quarantined: int = 0  # rows without a vector, since their file cannot be read


@dataclass(frozen=True)
class Encoded:
    """The counts, and the reason for each quarantined row, by its id."""

    counts: Counts
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Item:
    """One distinct content to encode."""

    code: int
    modality: Modality
    source: Source
    label: str


@dataclass(frozen=True)
class _StoredPart:
    """An intact shard in a table's folder, made by this encoder."""

    path: Path
    shard: Shard
    fingerprint: str
    rejects: dict[str, str]  # content key -> why it has no vector


@dataclass(frozen=True)
class _Carried:
    """Vectors in outdated files: of each code the index of the file in `paths`, or -1, and the row there."""

    paths: list[Path]
    files: Ints
    rows: Ints

    def held(self) -> npt.NDArray[np.bool_]:
        """Whether each code has a vector there."""
        return self.files >= 0


def encode_parts(plan: Plan, encoder: Encoder, settings: Encode, *, what: str) -> Encoded:
    """Write every missing part, then the tables' manifests, and delete the files that are not in the plan.

    Batches run in parallel on all cores; decoding of one overlaps the encoding of another. Files that cannot
    be read (SampleError) get no row; any other error ends the run, which can be resumed. `what` names the
    contents in the progress bar.
    """
    dtype, batch_size = settings.dtype, settings.batch_size
    finished, outdated = _scan_store(plan, encoder, dtype)
    rejects = {key: why for found in finished.values() for key, why in found.rejects.items()}
    shards = {number: found.shard for number, found in finished.items()}
    missing = [number for number in range(len(plan.parts)) if number not in finished]
    carried = _find_carried(plan, set(missing), outdated)
    counts = np.bincount(plan.owners[~carried.held()], minlength=len(plan.parts))
    to_encode = {number: int(counts[number]) for number in missing}
    total = sum(to_encode.values())
    if total:
        logger.info("encoding %d %s with %s", total, what, encoder.name)
    title, rejected = f"encode {what} ({encoder.name})", 0
    batches = (batch for number in missing for batch in _batches(plan, number, carried, batch_size))
    with (
        closing(map_batches(partial(_encode_batch, encoder), batches)) as results,
        tqdm(total=total, desc=title, unit=f" {what}", disable=None if total else True) as bar,
    ):
        for number in missing:
            vectors: dict[int, Floats] = {}
            for _ in range(0, to_encode[number], batch_size):
                encoded, unreadable = next(results)
                vectors |= encoded
                if unreadable:
                    keys = plan.keys_of(np.fromiter(unreadable, np.int64))
                    rejects |= dict(zip(keys, unreadable.values(), strict=True))
                    rejected += len(unreadable)
                bar.update(len(encoded) + len(unreadable))
            vectors |= _carried_vectors(plan, number, carried)
            vectors |= _copied_vectors(plan, number, shards)
            shards[number] = _write_part(plan, number, vectors, rejects, dim=encoder.dim, dtype=dtype)
    for name in plan.tables:
        numbers = [number for number, part in enumerate(plan.parts) if part.table == name]
        of_table = [shards[number] for number in numbers]
        commit(plan.folder / name, of_table, encoder=plan.identity, dim=encoder.dim, dtype=dtype)
    reasons = _reasons(plan, rejects)
    return Encoded(
        Counts(
            distinct=len(plan.owners),
            encoded=total - rejected,
            carried=int(carried.held().sum()),
            reused=sum(found.shard.rows for found in finished.values()),
            quarantined=len(reasons),
        ),
        reasons,
    )


def _scan_store(
    plan: Plan, encoder: Encoder, dtype: Dtype
) -> tuple[dict[int, _StoredPart], list[_StoredPart]]:
    """The finished parts, by their index in the plan, and the outdated files of the same encoder.

    A part with a reject that can be read now, after its file was restored for example, is outdated.
    """
    planned = {(part.table, part.fingerprint): number for number, part in enumerate(plan.parts)}
    finished: dict[int, _StoredPart] = {}
    outdated: list[_StoredPart] = []
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


def _read_part(path: Path, identity: str, form: tuple[int, Dtype]) -> _StoredPart | None:
    try:
        held = inspect_shard(path)
        check_rows(path, held.ids.to_pylist(), held.stored_ND)
    except KnowledgeBaseError as error:
        logger.warning("%s; its vectors are encoded again now", error)
        return None
    if held.metadata.get("unibind_encoder") != identity or _layout_of(held) != form:
        return None
    rejects: dict[str, str] = json.loads(held.metadata.get("unibind_rejects", "{}"))
    return _StoredPart(path, held.shard, held.metadata.get("unibind_fingerprint", ""), rejects)


def _layout_of(held: Contents) -> tuple[int, str]:
    return held.stored_ND.shape[1], held.stored_ND.dtype.name


def _any_readable_now(plan: Plan, number: int, rejects: Mapping[str, str], encoder: Encoder) -> bool:
    if not rejects:
        return False
    part = plan.parts[number]
    codes = plan.codes_of(part)
    keys = plan.tables[part.table].keys(range(part.start, part.stop))
    rows = np.array([row for row, key in enumerate(keys) if key in rejects], np.int64)
    return any(_is_readable(item, encoder) for item in _items(plan, number, codes[rows], rows))


def _is_readable(item: _Item, encoder: Encoder) -> bool:
    try:
        encoder.prepare(item.modality, item.source)
    except SampleError:
        return False
    return True


def _find_carried(plan: Plan, missing: set[int], outdated: Sequence[_StoredPart]) -> _Carried:
    """Stored vectors for the contents that `missing` parts own."""
    if not outdated:
        nowhere = np.broadcast_to(np.int32(-1), len(plan.owners))
        return _Carried([], nowhere, nowhere)
    carried = _Carried([each.path for each in outdated], *np.full((2, len(plan.owners)), -1, np.int32))
    missed = np.isin(plan.owners, list(missing))
    for number, found in enumerate(outdated):
        held = inspect_shard(found.path)
        files = plan.tables[found.path.parent.name].files
        codes = plan.find(held.groups, held.contents, files=files)
        rows = np.flatnonzero(codes >= 0)
        codes, first = np.unique(codes[rows], return_index=True)
        new = missed[codes] & (carried.files[codes] < 0)
        carried.files[codes[new]] = number
        carried.rows[codes[new]] = rows[first[new]]
    return carried


def _rows_to_encode(plan: Plan, number: int, carried: _Carried) -> tuple[Ints, Ints]:
    """(codes, rows of the part) of the contents that a part owns and that no file has a vector of."""
    owned, rows = np.unique(plan.codes_of(plan.parts[number]), return_index=True)
    own_N = (plan.owners[owned] == number) & (carried.files[owned] < 0)
    return owned[own_N], rows[own_N]


def _items(plan: Plan, number: int, codes: Ints, rows: Ints) -> Iterator[_Item]:
    """The contents of some rows of a part. Raises KnowledgeBaseError for a text that has changed since."""
    part = plan.parts[number]
    table = plan.tables[part.table]
    places = rows + part.start
    sources = table.sources.take(places).to_pylist()
    if not table.files:
        for code, source, planned in zip(codes.tolist(), sources, table.hexes(places), strict=True):
            if hash_text(source) != planned:
                raise KnowledgeBaseError(
                    f"{plan.folder / part.table}: the descriptions changed while they were encoded;"
                    " run `unibind encode` again"
                )
            yield _Item(code, "text", source, "")
        return
    for code, place, source in zip(codes.tolist(), places.tolist(), sources, strict=True):
        label = source if table.labels is None else table.labels[place].as_py()
        up = None if table.ups is None else table.ups[place].as_py()
        yield _Item(code, table.groups[place].as_py(), turned(Path(source), up), label)


def _batches(plan: Plan, number: int, carried: _Carried, size: int) -> Iterator[Sequence[_Item]]:
    """The contents that a part encodes, in batches; texts are sorted by length."""
    items = list(_items(plan, number, *_rows_to_encode(plan, number, carried)))
    # Codes are numbered by first appearance, so this is the order of the rows; files keep it.
    items.sort(key=lambda item: len(item.source) if isinstance(item.source, str) else 0)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _encode_batch(encoder: Encoder, batch: Sequence[_Item]) -> tuple[dict[int, Floats], dict[int, str]]:
    """Vectors by code, and the reasons for the contents without one, by code."""
    codes, prepared, reasons = [], [], {}
    with reading_ahead([(item.modality, item.source) for item in batch if not isinstance(item.source, str)]):
        for item in batch:
            try:
                prepared.append(encoder.prepare(item.modality, item.source))
                codes.append(item.code)
            except SampleError as error:
                reasons[item.code] = str(error).replace(str(item.source), item.label or str(item.source))
    return dict(zip(codes, encoder.encode(prepared), strict=True)), reasons


def _carried_vectors(plan: Plan, number: int, carried: _Carried) -> dict[int, Floats]:
    """The vectors that a part owns and outdated files hold, by code."""
    codes = np.unique(plan.codes_of(plan.parts[number]))
    codes = codes[(plan.owners[codes] == number) & (carried.files[codes] >= 0)]
    vectors: dict[int, Floats] = {}
    for file in np.unique(carried.files[codes]).tolist():
        stored_ND = inspect_shard(carried.paths[file]).stored_ND
        own = codes[carried.files[codes] == file]
        found_ND = stored_ND[carried.rows[own]].astype(np.float32)
        vectors |= dict(zip(own.tolist(), found_ND, strict=True))
    return vectors


def _copied_vectors(plan: Plan, number: int, shards: Mapping[int, Shard]) -> dict[int, Floats]:
    """The vectors of contents that earlier parts own, by code; rejected contents have none."""
    codes = np.unique(plan.codes_of(plan.parts[number]))
    owners = plan.owners[codes]
    vectors: dict[int, Floats] = {}
    for owner in np.unique(owners[owners != number]).tolist():
        part = plan.parts[owner]
        held = inspect_shard(plan.folder / part.table / shards[owner].name)
        stored = plan.find(held.groups, held.contents, files=plan.tables[part.table].files)
        places = {code: row for row, code in enumerate(stored.tolist())}
        for code in codes[owners == owner].tolist():
            if code in places:
                vectors[code] = held.stored_ND[places[code]].astype(np.float32)
    return vectors


def _write_part(
    plan: Plan,
    number: int,
    vectors: Mapping[int, Floats],
    rejects: Mapping[str, str],
    *,
    dim: int,
    dtype: Dtype,
) -> Shard:
    part = plan.parts[number]
    table, codes = plan.tables[part.table], plan.codes_of(part)
    rows = [row for row, code in enumerate(codes.tolist()) if code in vectors]
    keys = table.keys(range(part.start, part.stop)) if rejects else []
    own = {key: rejects[key] for key in keys if key in rejects}
    if len(rows) < len(codes) and not own:
        raise AssertionError(f"{part}: rows with neither a vector nor a reason")
    places = np.array(rows, np.int64) + part.start
    name = f"part-{part.number:05d}-{hash_json([part.fingerprint, sorted(own)])[:8]}.parquet"
    return write_shard(
        plan.folder / part.table / name,
        ids=table.ids.take(places).to_pylist(),
        groups=table.groups.take(places).to_pylist(),
        contents=table.hexes(places),
        vectors_ND=np.stack([vectors[int(codes[row])] for row in rows])
        if rows
        else np.zeros((0, dim), np.float32),
        dtype=dtype,
        metadata={
            "unibind_encoder": plan.identity,
            "unibind_fingerprint": part.fingerprint,
            "unibind_rejects": json.dumps(own, sort_keys=True),
        },
    )


def _reasons(plan: Plan, rejects: Mapping[str, str]) -> dict[str, str]:
    """The reason for each row without a vector, by its id."""
    reasons: dict[str, str] = {}
    for table in plan.tables.values() if rejects else ():
        for start in range(0, len(table), _AT_A_TIME):
            keys = table.keys(range(start, min(start + _AT_A_TIME, len(table))))
            rows = (row for row, key in enumerate(keys, start=start) if key in rejects)
            reasons |= {table.ids[row].as_py(): rejects[keys[row - start]] for row in rows}
    return reasons
