"""Making parts: encode what their sheets ask for, and write their files.

Batches run in parallel on all cores, across parts, so that decoding of one overlaps the encoding of another.
What a batch holds depends on the sheet alone, so a part has the same bits wherever it is made on the same
class of hardware (kb_builder/encode/hardware.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path

import numpy as np

from data.errors import KnowledgeBaseError, SampleError
from data.files import hash_json
from data.readers import reading_ahead
from data.readers.companions import content_hash
from data.reads import hash_of
from kb_builder.encode.hardware import note_class
from kb_builder.encode.sheet import Sheet, SheetItem, keys_of
from kb_builder.encoders.base import Encoder
from kb_builder.encoders.workers import map_batches
from kb_builder.store.shards import Floats, Shard, inspect_shard, write_shard

_OWN = "own:"  # before the fingerprint of a file that holds only what its part encodes itself


@dataclass(frozen=True)
class Own:
    """What one part encoded: vectors, and the reasons for the contents without one, both by content key."""

    vectors: dict[str, Floats]
    rejects: dict[str, str]


@dataclass(frozen=True)
class MadePart:
    """A file that was made for a part, and why contents that the part encoded have no vector."""

    index: int  # of the part in its plan
    path: Path
    shard: Shard
    rejects: dict[str, str]
    whole: bool = True  # False: only what the part encodes itself, to be put together later
    seconds: float = 0.0  # that it took elsewhere


def encode_sheets(
    sheets: Iterable[Sheet], encoder: Encoder, batch_size: int, *, on_batch: Callable[[int], None]
) -> Iterator[tuple[Sheet, Own]]:
    """Encode what each sheet asks for, in order. `on_batch` hears how many contents a batch had.

    Files that cannot be read (SampleError) get no vector; any other error is raised. Raises
    KnowledgeBaseError for a file that is no longer what its content says.
    """
    ahead, sheets = tee(sheets)
    batches = (batch for sheet in ahead for batch in batches_of(sheet.items(), batch_size))
    with closing(map_batches(partial(encode_batch, encoder), batches)) as results:
        for sheet in sheets:
            own = Own({}, {})
            for _ in range(0, len(sheet.encode), batch_size):
                encoded, unreadable = next(results)
                own.vectors.update(encoded)
                own.rejects.update(unreadable)
                on_batch(len(encoded) + len(unreadable))
            yield sheet, own


def batches_of(items: Iterable[SheetItem], size: int) -> Iterator[Sequence[SheetItem]]:
    """Contents to encode, in batches; texts are sorted by length, files keep their order."""
    items = list(items)
    items.sort(key=lambda item: len(item.source) if isinstance(item.source, str) else 0)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def encode_batch(encoder: Encoder, batch: Sequence[SheetItem]) -> tuple[dict[str, Floats], dict[str, str]]:
    """Vectors by content key, and the reasons for the contents without one, by content key."""
    keys, prepared, reasons = [], [], {}
    with reading_ahead([(item.modality, item.source) for item in batch if not isinstance(item.source, str)]):
        for item in batch:
            try:
                prepared.append(encoder.prepare(item.modality, item.source))
                _require_same(item)
                keys.append(item.key)
            except SampleError as error:
                reasons[item.key] = str(error).replace(str(item.source), item.label or str(item.source))
    return dict(zip(keys, encoder.encode(prepared), strict=True)), reasons


def _require_same(item: SheetItem) -> None:
    """Raise KnowledgeBaseError where a file is no longer what `ingest` hashed: its vector would be stored as
    that of the old content, and taken for it whenever that comes back.

    A file whose signature is known and unchanged is not hashed again; one that is gone by now cannot be.
    """
    if isinstance(item.source, str):
        return
    try:
        digest = content_hash(item.modality, item.source, hash_one=hash_of)
    except OSError:
        return
    if digest != item.key.partition(":")[2]:
        raise KnowledgeBaseError(
            f"{item.label or item.source}: changed after its content was noted; let the program that writes"
            " it finish, and run `unibind run` again"
        )


def write_part(
    sheet: Sheet, own: Own, rejects: Mapping[str, str], lenders: Mapping[int, Path], hardware: str
) -> MadePart:
    """Write the file of a part.

    `lenders` are the files of the parts that lend it vectors (`Sheet.lent`), `rejects` the contents of other
    parts that have none, with the reasons. `hardware` is the class of this machine.
    """
    keys = sheet.keys
    vectors = own.vectors | _held_vectors(sheet, keys, lenders)
    why = {key: known[key] for known in (rejects, own.rejects) if known for key in keys if key in known}
    rows = [row for row, key in enumerate(keys) if key in vectors]
    if any(key not in vectors and key not in why for key in keys):
        raise AssertionError(f"{sheet.name}: rows with neither a vector nor a reason")
    shard, path = _write(sheet, "part", sheet.fingerprint, rows, vectors, why, hardware)
    return MadePart(sheet.index, path, shard, own.rejects)


def write_own(sheet: Sheet, own: Own, hardware: str) -> MadePart:
    """Write what a part encoded itself, for it and others to take vectors from; not a file of the table.

    It has the form of a part that is in no plan, so whoever surveys the store carries its vectors over.
    """
    keys = sheet.keys
    rows = [row for row in sheet.encode if keys[row] in own.vectors]
    shard, path = _write(sheet, "own", _OWN + sheet.fingerprint, rows, own.vectors, own.rejects, hardware)
    return MadePart(sheet.index, path, shard, own.rejects, whole=False)


def _held_vectors(sheet: Sheet, keys: Sequence[str], lenders: Mapping[int, Path]) -> dict[str, Floats]:
    """The vectors that files hold, by content key; rejected contents have none."""
    places = [*sheet.held.items(), *((lenders[index], rows) for index, rows in sheet.lent.items())]
    vectors: dict[str, Floats] = {}
    for path, rows in places:
        held = inspect_shard(path)
        stored = keys_of(held.groups.to_pylist(), held.contents.to_pylist(), files=sheet.files)
        at = {key: place for place, key in reversed(list(enumerate(stored)))}
        for row in rows:
            if keys[row] in at:
                vectors[keys[row]] = held.stored_ND[at[keys[row]]].astype(np.float32)
    return vectors


def _write(
    sheet: Sheet,
    kind: str,
    fingerprint: str,
    rows: Sequence[int],
    vectors: Mapping[str, Floats],
    rejects: Mapping[str, str],
    hardware: str,
) -> tuple[Shard, Path]:
    keys = sheet.keys
    name = f"{kind}-{sheet.number:05d}-{hash_json([fingerprint, sorted(rejects)])[:8]}.parquet"
    path = sheet.folder / name
    note_class(path, hardware)  # first: a part without one would be of an unknown class
    shard = write_shard(
        path,
        ids=[sheet.ids[row] for row in rows],
        groups=[sheet.groups[row] for row in rows],
        contents=[sheet.contents[row] for row in rows],
        vectors_ND=np.stack([vectors[keys[row]] for row in rows])
        if rows
        else np.zeros((0, sheet.dim), np.float32),
        dtype=sheet.dtype,
        metadata={
            "unibind_encoder": sheet.identity,
            "unibind_fingerprint": fingerprint,
            "unibind_rejects": json.dumps(rejects, sort_keys=True),
        },
    )
    return shard, path
