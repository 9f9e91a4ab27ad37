"""Parts of the `descriptions` table: writes them, and the manifest of the complete ones.

<kb>/descriptions/
  <kind>/<prefix>-NNNNN.parquet   one shard's rows; always replaced whole, never appended to
  manifest.json                   every part with its rows, bytes, SHA-256 and rows per status

A part is written, synced and renamed first, then the manifest, so every part in the manifest is complete. A
crash between the two leaves a part that the manifest describes wrongly. Its shard is then not marked as done,
so the next run writes both again, and until then `kb verify` names the part.

There is one writer and no lock here: a run holds its `run.lock` and the ledger its `ledger.lock` while parts
are written, and shards are written one after the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.errors import KnowledgeBaseError
from data.files import hash_file, write_json
from kb_builder.tables.schemas import DESCRIPTIONS, SCHEMA_VERSION, remove_parts_beyond, write_table

KINDS = ("category", "sample")
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class DescriptionPart:
    """One file's line in the manifest."""

    rows: int
    bytes: int
    sha256: str
    statuses: Mapping[str, int]


@dataclass(frozen=True)
class PartsManifest:
    """`parts`: file, relative to `<kb>/descriptions` and with `/`, to what it holds."""

    schema_version: str = SCHEMA_VERSION
    parts: Mapping[str, DescriptionPart] = field(default_factory=dict)


def write_part(kb: Path, kind: str, name: str, rows: list[dict[str, Any]]) -> None:
    """Replace `descriptions/<kind>/<name>.parquet` by these rows, then record it in the manifest.

    `name` is `<prefix>-NNNNN`. Raises ValueError for rows that do not fit schema `DESCRIPTIONS`, and
    KnowledgeBaseError where the manifest is damaged, before anything is written.
    """
    path = _folder(kb, kind) / f"{name}.parquet"
    if not name.rpartition("-")[2].isdecimal():
        raise ValueError(f"part {name!r} has no number")
    manifest = read_manifest(kb)
    write_table(path, rows, DESCRIPTIONS)
    part = DescriptionPart(
        rows=len(rows),
        bytes=path.stat().st_size,
        sha256=hash_file(path),
        statuses=dict(Counter(str(row["status"]) for row in rows)),
    )
    _write(kb, {**manifest.parts, f"{kind}/{path.name}": part})


def remove_beyond(kb: Path, kind: str, prefix: str, count: int) -> None:
    """Remove the parts `<prefix>-NNNNN` of a kind from number `count` on, and then their lines.

    Parts of an older, finer division would give their rows a second time.
    """
    manifest = read_manifest(kb)
    remove_parts_beyond(_folder(kb, kind).glob(f"{prefix}-*.parquet"), count)
    kept = {
        file: part
        for file, part in manifest.parts.items()
        if not file.startswith(f"{kind}/{prefix}-") or _number(file) < count
    }
    if kept.keys() != manifest.parts.keys():
        _write(kb, kept)


def read_manifest(kb: Path) -> PartsManifest:
    """The manifest of a knowledge base's descriptions; an empty one where none was written yet."""
    path = kb / "descriptions" / MANIFEST
    if not path.is_file():
        return PartsManifest()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return PartsManifest(
            schema_version=str(value["schema_version"]),
            parts={file: DescriptionPart(**part) for file, part in value["parts"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KnowledgeBaseError(
            f"{path} is damaged; remove it, then `unibind kb reparse` writes it again"
        ) from None


def lines_of(kb: Path, parts: Iterable[Path]) -> dict[str, Any]:
    """The manifest's lines of some parts, by file; {} if the manifest is damaged."""
    files = {f"{path.parent.name}/{path.name}" for path in parts}
    try:
        manifest = read_manifest(kb)
    except KnowledgeBaseError:
        return {}
    return {file: asdict(part) for file, part in manifest.parts.items() if file in files}


def _folder(kb: Path, kind: str) -> Path:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; known are {', '.join(KINDS)}")
    return kb / "descriptions" / kind


def _number(file: str) -> int:
    return int(file.removesuffix(".parquet").rsplit("-", 1)[1])


def _write(kb: Path, parts: Mapping[str, DescriptionPart]) -> None:
    value = {"schema_version": SCHEMA_VERSION, "parts": {file: asdict(part) for file, part in parts.items()}}
    write_json(kb / "descriptions" / MANIFEST, value)
