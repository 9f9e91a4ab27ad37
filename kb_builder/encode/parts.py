"""Encode rows part by part, resumably.

Which part encodes what follows from the rows alone (kb_builder/encode/plan.py), so a run that was killed and
resumed puts the same contents into the same batches as an undisturbed one, and the bits repeat.

A part carries the identity of its encoder and a fingerprint of its rows' ids, groups and contents. A part
that is planned and there is not made again. Any other is replaced: vectors of contents that it shares with
the new plan are taken over, so only what is new is encoded, and what is gone or changed leaves no vector
behind. The tables' manifests (kb_builder/store/table.py) are replaced last, all parts being there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from data.errors import KnowledgeBaseError, SampleError
from data.files import hash_json
from data.modality import Modality
from data.readers import reading_ahead
from data.readers.axes import turned
from kb_builder.encode.plan import Plan, WantedVector, content_keys
from kb_builder.encoders.base import Encoder, Source
from kb_builder.encoders.workers import map_batches
from kb_builder.settings import Encode
from kb_builder.store.shards import Contents, Dtype, Floats, Shard, check_rows, inspect_shard, write_shard
from kb_builder.store.table import commit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What a run of `encode_parts` did."""

    distinct: int = 0  # contents
    encoded: int = 0  # contents encoded now
    carried: int = 0  # contents whose vectors were taken over from files that were replaced
    reused: int = 0  # rows of parts that were finished before
    quarantined: int = 0  # rows whose file cannot be read


@dataclass(frozen=True)
class Encoded:
    """The counts, and for each quarantined row's id the reason."""

    counts: Counts
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Item:
    """One content to be encoded."""

    code: int
    modality: Modality
    source: Source
    label: str


@dataclass(frozen=True)
class _Found:
    """A file that lies in a table's folder, whole and by this encoder."""

    path: Path
    shard: Shard
    fingerprint: str
    rejects: dict[str, str]  # key -> why it has no vector


def encode_parts(plan: Plan, encoder: Encoder, settings: Encode, *, what: str) -> Encoded:
    """Make every part that is not there, then the tables' manifests; remove files that the plan has not.

    Batches run side by side on all cores, decoding of one overlapping the encoding of another. Files that
    cannot be read (SampleError) get no row; any other error ends the run, which can be resumed.
    """
    dtype, batch_size = settings.dtype, settings.batch_size
    there, left = _survey(plan, encoder, dtype)
    rejects = {key: why for found in there.values() for key, why in found.rejects.items()}
    shards = {number: found.shard for number, found in there.items()}
    todo = [number for number in range(len(plan.parts)) if number not in there]
    carried = _carry(plan, set(todo), left)
    fresh = {number: _fresh(plan, number, carried) for number in todo}
    total = sum(map(len, fresh.values()))
    if total:
        logger.info("encoding %d %s with %s", total, what, encoder.name)
    title = f"encode {what} ({encoder.name})"
    batches = (batch for number in todo for batch in _batches(plan, number, fresh[number], batch_size))
    with (
        closing(map_batches(partial(_encode_batch, encoder), batches)) as results,
        tqdm(total=total, desc=title, unit=f" {what}", disable=None if total else True) as bar,
    ):
        for number in todo:
            vectors: dict[int, Floats] = {}
            for _ in range(0, len(fresh[number]), batch_size):
                encoded, unreadable = next(results)
                vectors |= encoded
                rejects |= {plan.keys[code].as_py(): why for code, why in unreadable.items()}
                bar.update(len(encoded) + len(unreadable))
            vectors |= _take_over(plan, number, carried)
            vectors |= _borrow(plan, number, shards)
            shards[number] = _write(plan, number, vectors, rejects, dim=encoder.dim, dtype=dtype)
    for name in plan.tables:
        numbers = [number for number, part in enumerate(plan.parts) if part.table == name]
        of_table = [shards[number] for number in numbers]
        commit(plan.folder / name, of_table, encoder=plan.identity, dim=encoder.dim, dtype=dtype)
    reasons = _reasons(plan, rejects)
    return Encoded(
        Counts(
            distinct=len(plan.keys),
            encoded=total - sum(key in rejects for key in _keys_of(plan, fresh.values())),
            carried=len(carried),
            reused=sum(found.shard.rows for found in there.values()),
            quarantined=len(reasons),
        ),
        reasons,
    )


def _survey(plan: Plan, encoder: Encoder, dtype: Dtype) -> tuple[dict[int, _Found], list[_Found]]:
    """The parts of the plan that are there, by their place in it; and other files by the same encoder.

    A part with rejects that can be read by now (a file was put back, say) is one of the others.
    """
    planned = {(part.table, part.fingerprint): number for number, part in enumerate(plan.parts)}
    there: dict[int, _Found] = {}
    left: list[_Found] = []
    for table in plan.tables:
        for path in sorted((plan.folder / table).glob("*.parquet")):
            found = _find(path, plan.identity, (encoder.dim, dtype))
            if found is None:
                continue
            number = planned.get((table, found.fingerprint))
            if number is None or number in there or _any_readable(plan, number, found.rejects, encoder):
                left.append(found)
            else:
                there[number] = found
    return there, left


def _find(path: Path, identity: str, form: tuple[int, Dtype]) -> _Found | None:
    try:
        held = inspect_shard(path)
        check_rows(path, held.ids.to_pylist(), held.stored_ND)
    except KnowledgeBaseError as error:
        logger.warning("%s; what was in it is made again", error)
        return None
    if held.metadata.get("unibind_encoder") != identity or _form(held) != form:
        return None
    rejects: dict[str, str] = json.loads(held.metadata.get("unibind_rejects", "{}"))
    return _Found(path, held.shard, held.metadata.get("unibind_fingerprint", ""), rejects)


def _form(held: Contents) -> tuple[int, str]:
    return held.stored_ND.shape[1], held.stored_ND.dtype.name


def _any_readable(plan: Plan, number: int, rejects: Mapping[str, str], encoder: Encoder) -> bool:
    if not rejects:
        return False
    part = plan.parts[number]
    codes = plan.codes_of(part)
    keys = plan.keys.take(pa.array(codes)).to_pylist()
    return any(
        _is_readable(_item(plan.tables[part.table], part.start + row, int(codes[row])), encoder)
        for row, key in enumerate(keys)
        if key in rejects
    )


def _is_readable(item: _Item, encoder: Encoder) -> bool:
    try:
        encoder.prepare(item.modality, item.source)
    except SampleError:
        return False
    return True


def _carry(plan: Plan, todo: set[int], left: Sequence[_Found]) -> dict[int, tuple[Path, int]]:
    """Where the vectors of contents lie that parts in `todo` own and that files to be replaced hold."""
    carried: dict[int, tuple[Path, int]] = {}
    for found in left:
        held = inspect_shard(found.path)
        files = plan.tables[found.path.parent.name].files
        places = pc.index_in(content_keys(held.groups, held.contents, files=files), value_set=plan.keys)
        for row, code in enumerate(places.to_pylist()):
            if code is not None and int(plan.owners[code]) in todo:
                carried.setdefault(code, (found.path, row))
    return carried


def _fresh(plan: Plan, number: int, carried: Mapping[int, object]) -> list[tuple[int, int]]:
    """(code, row of the part) of what a part is the first to hold and no file has a vector of."""
    owned, rows = np.unique(plan.codes_of(plan.parts[number]), return_index=True)
    own_N = plan.owners[owned] == number
    pairs = zip(owned[own_N].tolist(), rows[own_N].tolist(), strict=True)
    return [(code, row) for code, row in pairs if code not in carried]


def _item(table: WantedVector, row: int, code: int) -> _Item:
    source = table.sources[row].as_py()
    if not table.files:
        return _Item(code, "text", source, "")
    label = source if table.labels is None else table.labels[row].as_py()
    up = None if table.ups is None else table.ups[row].as_py()
    return _Item(code, table.groups[row].as_py(), turned(Path(source), up), label)


def _batches(
    plan: Plan, number: int, fresh: Sequence[tuple[int, int]], size: int
) -> Iterator[Sequence[_Item]]:
    """What a part encodes, in batches in which texts of like length stand together."""
    part = plan.parts[number]
    table = plan.tables[part.table]
    items = [_item(table, part.start + row, code) for code, row in fresh]
    # Codes count first appearances, so the order is the rows'; files keep it.
    items.sort(key=lambda item: len(item.source) if isinstance(item.source, str) else 0)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _encode_batch(encoder: Encoder, batch: Sequence[_Item]) -> tuple[dict[int, Floats], dict[int, str]]:
    """Vectors by code, and by code the reasons why some have none."""
    codes, prepared, reasons = [], [], {}
    with reading_ahead([(item.modality, item.source) for item in batch if not isinstance(item.source, str)]):
        for item in batch:
            try:
                prepared.append(encoder.prepare(item.modality, item.source))
                codes.append(item.code)
            except SampleError as error:
                reasons[item.code] = str(error).replace(str(item.source), item.label or str(item.source))
    return dict(zip(codes, encoder.encode(prepared), strict=True)), reasons


def _take_over(plan: Plan, number: int, carried: Mapping[int, tuple[Path, int]]) -> dict[int, Floats]:
    """The vectors that a part owns and that files to be replaced hold."""
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for code in np.unique(plan.codes_of(plan.parts[number])).tolist():
        if plan.owners[code] == number and code in carried:
            path, row = carried[code]
            wanted.setdefault(path, []).append((code, row))
    vectors: dict[int, Floats] = {}
    for path, places in wanted.items():
        stored_ND = inspect_shard(path).stored_ND
        vectors |= {code: stored_ND[row].astype(np.float32) for code, row in places}
    return vectors


def _borrow(plan: Plan, number: int, shards: Mapping[int, Shard]) -> dict[int, Floats]:
    """The vectors of a part's contents that earlier parts own; rejected ones are not among them."""
    codes = np.unique(plan.codes_of(plan.parts[number]))
    owners = plan.owners[codes]
    vectors: dict[int, Floats] = {}
    for owner in np.unique(owners[owners != number]).tolist():
        part = plan.parts[owner]
        held = inspect_shard(plan.folder / part.table / shards[owner].name)
        keys = content_keys(held.groups, held.contents, files=plan.tables[part.table].files)
        places = pc.index_in(plan.keys.take(pa.array(codes[owners == owner])), value_set=keys).to_pylist()
        for code, row in zip(codes[owners == owner].tolist(), places, strict=True):
            if row is not None:
                vectors[code] = held.stored_ND[row].astype(np.float32)
    return vectors


def _write(
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
    keys = plan.keys.take(pa.array(codes)).to_pylist()
    own = {key: rejects[key] for key in keys if key in rejects}
    if len(rows) < len(keys) and not own:
        raise AssertionError(f"{part}: rows without a vector and without a reason")
    places = pa.array([part.start + row for row in rows], pa.int64())
    name = f"part-{part.number:05d}-{hash_json([part.fingerprint, sorted(own)])[:8]}.parquet"
    return write_shard(
        plan.folder / part.table / name,
        ids=table.ids.take(places).to_pylist(),
        groups=table.groups.take(places).to_pylist(),
        contents=table.contents.take(places).to_pylist(),
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


def _keys_of(plan: Plan, fresh: Iterable[Sequence[tuple[int, int]]]) -> Iterator[str]:
    return (plan.keys[code].as_py() for pairs in fresh for code, _ in pairs)


def _reasons(plan: Plan, rejects: Mapping[str, str]) -> dict[str, str]:
    """Why rows have no vector, by their ids."""
    if not rejects:
        return {}
    reasons = {}
    for table in plan.tables.values():
        keys = table.keys()
        for row in np.flatnonzero(pc.is_in(keys, value_set=pa.array(list(rejects)))):
            reasons[table.ids[int(row)].as_py()] = rejects[keys[int(row)].as_py()]
    return reasons
