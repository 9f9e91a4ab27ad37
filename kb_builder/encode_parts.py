"""Encode rows part by part, resumably.

The plan of parts follows from the rows alone: sorted by (group, id) and cut every so many rows. Each distinct
content is encoded in the first part that holds it and lent to the later ones, so a run that was killed and
resumed puts the same contents into the same batches as an undisturbed one, and the bits repeat.

A part carries a fingerprint in its file: of the encoder's identity, its rows' ids, groups and contents, and
the fingerprints of the parts it borrows from. A part whose fingerprint is the planned one is not made again;
any other is replaced whole, so vectors of another encoder or of a changed text never mix with new ones.
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
from data.files import hash_json
from data.modality import Modality
from kb_builder.encoders.base import Encoder
from kb_builder.encoders.workers import map_batches
from kb_builder.store import read_metadata, read_part, write_vectors

_Vector = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One row to be: what `source` gives when it is encoded goes under `id` into `group`."""

    id: str
    group: str
    modality: Modality
    source: str | Path  # a text, or a file
    content: str  # equal for rows that give the same vector: the text, or the modality and the file's hash
    label: str = ""  # what messages call the file instead of its full path


@dataclass(frozen=True)
class Part:
    """One file of the store, as planned."""

    path: Path
    rows: tuple[Row, ...]
    fresh: tuple[Row, ...]  # the first row of each content that no earlier part holds
    lent: frozenset[str]  # contents of `fresh` that later parts need
    fingerprint: str


@dataclass(frozen=True)
class Counts:
    """What a run of `encode_parts` did."""

    distinct: int = 0  # contents
    encoded: int = 0  # contents encoded now
    reused: int = 0  # rows of parts that were finished before
    quarantined: int = 0  # rows whose file cannot be read


@dataclass(frozen=True)
class Encoded:
    """The counts, and for each quarantined row's id the reason."""

    counts: Counts
    reasons: dict[str, str]


def plan_parts(
    folder: Path, tables: Mapping[str, Sequence[Row]], *, identity: str, rows_per_part: int
) -> list[Part]:
    """The parts of `<folder>/<table>/part-NNNNN.parquet`, in the order in which they are to be made.

    A table without rows gets one empty part, which still tells readers the dimension.
    """
    cuts = [
        (folder / name / f"part-{number:05d}.parquet", rows)
        for name, table in tables.items()
        for number, rows in enumerate(_cut(table, rows_per_part))
    ]
    owner: dict[str, int] = {}  # content -> the part that encodes it
    fresh: list[list[Row]] = [[] for _ in cuts]
    lent: list[set[str]] = [set() for _ in cuts]
    for number, (_, rows) in enumerate(cuts):
        for row in rows:
            if row.content not in owner:
                owner[row.content] = number
                fresh[number].append(row)
            elif owner[row.content] != number:
                lent[owner[row.content]].add(row.content)
    parts: list[Part] = []
    for number, (path, rows) in enumerate(cuts):
        lenders = sorted({owner[row.content] for row in rows} - {number})
        fingerprint = hash_json(
            {
                "encoder": identity,
                "rows": [[row.id, row.group, row.content] for row in rows],
                "fresh": [row.content for row in fresh[number]],
                "borrows_from": [parts[lender].fingerprint for lender in lenders],
            }
        )
        # Texts of like length share a batch: little padding is computed. Files keep their order.
        by_length = sorted(
            fresh[number], key=lambda row: len(row.source) if isinstance(row.source, str) else 0
        )
        parts.append(Part(path, tuple(rows), tuple(by_length), frozenset(lent[number]), fingerprint))
    return parts


def encode_parts(parts: Sequence[Part], encoder: Encoder, *, batch_size: int, what: str) -> Encoded:
    """Make every part that is not finished, and remove parts that the plan no longer has.

    Batches run side by side on all cores, decoding of one overlapping the encoding of another. Files that
    cannot be read (SampleError) get no row; any other error ends the run, which can be resumed.
    """
    rejects: dict[str, str] = {}  # content -> why it has no vector
    finished: set[Path] = set()
    for part in parts:
        if (known := _finished_rejects(part, encoder)) is not None:
            finished.add(part.path)
            rejects |= known
    todo = [part for part in parts if part.path not in finished]
    batches = (batch for part in todo for batch in _batches(part, batch_size))
    total = sum(len(part.fresh) for part in todo)
    if total:
        logger.info("encoding %d %s with %s", total, what, encoder.name)
    lent: dict[str, _Vector] = {}
    title = f"encode {what} ({encoder.name})"
    with (
        closing(map_batches(partial(_encode_batch, encoder), batches)) as results,
        tqdm(total=total, desc=title, unit=f" {what}", disable=None if total else True) as bar,
    ):
        for part in parts:
            if part.path in finished:
                vectors = _read_lent(part)
            else:
                vectors = {}
                for batch in _batches(part, batch_size):
                    encoded, unreadable = next(results)
                    vectors |= encoded
                    rejects |= unreadable
                    bar.update(len(batch))
                _write(part, lent | vectors, rejects, dim=encoder.dim)
            lent |= {content: vectors[content] for content in part.lent if content in vectors}
    _remove_stale(parts)
    reasons = {row.id: rejects[row.content] for part in parts for row in part.rows if row.content in rejects}
    done = [row for part in parts if part.path in finished for row in part.rows]
    made = [row for part in todo for row in part.fresh]
    return Encoded(
        Counts(
            distinct=sum(len(part.fresh) for part in parts),
            encoded=sum(row.content not in rejects for row in made),
            reused=sum(row.content not in rejects for row in done),
            quarantined=len(reasons),
        ),
        reasons,
    )


def _cut(table: Sequence[Row], size: int) -> Iterator[list[Row]]:
    rows = sorted(table, key=lambda row: (row.group, row.id))
    for start in range(0, max(len(rows), 1), size):
        yield rows[start : start + size]


def _batches(part: Part, size: int) -> Iterator[tuple[Row, ...]]:
    for start in range(0, len(part.fresh), size):
        yield part.fresh[start : start + size]


def _encode_batch(encoder: Encoder, batch: Sequence[Row]) -> tuple[dict[str, _Vector], dict[str, str]]:
    """Vectors by content, and by content the reasons why some have none."""
    contents, prepared, reasons = [], [], {}
    for row in batch:
        try:
            prepared.append(encoder.prepare(row.modality, row.source))
            contents.append(row.content)
        except SampleError as error:
            # The full path would differ between machines, and with it the bytes of the part.
            reasons[row.content] = str(error).replace(str(row.source), row.label or str(row.source))
    return dict(zip(contents, encoder.encode(prepared), strict=True)), reasons


def _write(part: Part, vectors: Mapping[str, _Vector], rejects: Mapping[str, str], *, dim: int) -> None:
    rows = [row for row in part.rows if row.content not in rejects]
    vectors_ND = np.stack([vectors[row.content] for row in rows]) if rows else np.zeros((0, dim), np.float32)
    known = {row.content: rejects[row.content] for row in part.rows if row.content in rejects}
    write_vectors(
        part.path,
        ids=[row.id for row in rows],
        groups=[row.group for row in rows],
        vectors_ND=vectors_ND,
        metadata={
            "unibind_fingerprint": part.fingerprint,
            "unibind_rejects": json.dumps(known, sort_keys=True),
        },
    )


def _finished_rejects(part: Part, encoder: Encoder) -> dict[str, str] | None:
    """The rejects of a part that is already there, whole and as planned; else None.

    Also None where a rejected file can be read by now: it was put back, say, after it had been missing.
    """
    if not part.path.exists():
        return None
    try:
        metadata = read_metadata(part.path)
        if metadata.get("unibind_fingerprint") != part.fingerprint:
            return None
        read_part(part.path)  # checks every page's checksum
    except KnowledgeBaseError as error:
        logger.warning("%s; it is made again", error)
        return None
    rejects: dict[str, str] = json.loads(metadata["unibind_rejects"])
    if any(_is_readable(row, encoder) for row in part.rows if row.content in rejects):
        return None
    return rejects


def _is_readable(row: Row, encoder: Encoder) -> bool:
    try:
        encoder.prepare(row.modality, row.source)
    except SampleError:
        return False
    return True


def _read_lent(part: Part) -> dict[str, _Vector]:
    if not part.lent:
        return {}
    stored = read_part(part.path)
    by_id = dict(zip(stored.ids, stored.vectors_ND, strict=True))
    return {row.content: by_id[row.id] for row in part.fresh if row.id in by_id}


def _remove_stale(parts: Sequence[Part]) -> None:
    planned = {part.path for part in parts}
    for folder in sorted({path.parent for path in planned}):
        for path in sorted(folder.glob("part-*.parquet")):
            if path not in planned:
                path.unlink()
