"""`kb verify`: derive every row of the descriptions anew from what is stored, and compare.

What is checked: every part against the manifest (there, whole, of this schema); every row against its
ledger entry (key, row id, text, every column that follows from request and answer) or, where nobody was
asked, against its sample; duplicates against the row they repeat; that no row and no text comes twice; and
that every category and sample has its rows or a reason.

What cannot be known here are the settings of the run. So a near duplicate must be as alike as its reason
says, and other verdicts are taken as told. Rows are read in batches: a million rows need some hundred
megabytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line
from data.files import hash_file
from kb_builder.ledger import StoredEntries, read_ledger
from kb_builder.parts import KINDS, MANIFEST, Part, read_manifest
from kb_builder.schemas import DESCRIPTIONS, SCHEMA_VERSION, read_rows
from kb_builder.verify_report import Findings, Verification
from kb_builder.verify_rows import PartFile, RowCheck, Subjects, key_hash


def verify(kb: Path) -> Verification:
    """Check a knowledge base's descriptions; see the top of this file. Reads only.

    Raises KnowledgeBaseError where there is no knowledge base, or its ledger cannot be read at all.
    """
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    found = Findings()
    parts = _check_parts(kb, found)
    subjects = _subjects(kb, found)
    with read_ledger(kb) as ledger:  # a knowledge base of facts alone has none
        rows = RowCheck(ledger, found, subjects)
        for part in parts:
            rows.check_file(part)
        rows.finish()
        entries = 0 if ledger is None else _check_orphans(ledger, rows, found)
    return Verification(
        counts={
            "parts": len(parts),
            "rows": rows.count,
            "ledger entries": entries,
            "categories": len(subjects.categories),
            "samples": len(subjects.samples),
        },
        totals=dict(sorted(found.totals.items())),  # errors before notes
        findings=tuple(found.kept),
    )


def _check_parts(kb: Path, found: Findings) -> list[PartFile]:
    """Compare the manifest with the files; returns those that can be read, whatever the manifest is worth."""
    folder = kb / "descriptions"
    names = {f"{kind}/{path.name}" for kind in KINDS for path in (folder / kind).glob("*.parquet")}
    parts = _manifest_parts(kb, names, found)
    readable = []
    for name in sorted(names):
        path, part = folder / name, parts.get(name)
        if part is not None:
            if path.stat().st_size != part.bytes:
                told = f"{path.stat().st_size} bytes, the manifest says {part.bytes}"
                found.error("part changed", name, told)
            elif hash_file(path) != part.sha256:
                found.error("part changed", name, "its SHA-256 is not the manifest's")
        reason = _unreadable(path)
        if reason is None:
            readable.append(PartFile(name, name.split("/")[0], path, part))
        else:
            found.error("part unreadable", name, reason)
    return readable


def _manifest_parts(kb: Path, names: set[str], found: Findings) -> Mapping[str, Part]:
    """What the manifest says of every part; tells where it does not fit the parts that are there."""
    try:
        manifest = read_manifest(kb)
    except KnowledgeBaseError as error:
        found.error("manifest", MANIFEST, str(error))
        return {}
    if not all(isinstance(part.statuses, dict) for part in manifest.parts.values()):
        found.error("manifest", MANIFEST, "its `statuses` are no counts; `unibind kb reparse` writes it anew")
        return {}
    if manifest.schema_version != SCHEMA_VERSION:
        found.error("manifest", MANIFEST, f"schema {manifest.schema_version}, this is {SCHEMA_VERSION}")
    for name in sorted(names - manifest.parts.keys()):
        found.error("part not in the manifest", name, "nothing says that it is whole and belongs here")
    for name in sorted(manifest.parts.keys() - names):
        found.error("part missing", name, f"{manifest.parts[name].rows} rows are gone with it")
    return manifest.parts


def _unreadable(path: Path) -> str | None:
    """Why a part cannot be used, or None."""
    try:
        opened = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        return first_line(error)
    with opened:
        if not opened.schema_arrow.equals(DESCRIPTIONS, check_metadata=True):
            return "its columns are not those of this version"
    return None


def _subjects(kb: Path, found: Findings) -> Subjects:
    def table(name: str) -> list[dict[str, Any]]:
        path = kb / name
        if not path.exists():
            return []
        try:
            return read_rows(path)
        except (pa.ArrowException, OSError) as error:
            found.error("table unreadable", name, first_line(error))
            return []

    return Subjects(
        categories=frozenset(row["category_id"] for row in table("categories.parquet")),
        samples={row["sample_id"]: (row["modality"], row["sha256"]) for row in table("samples.parquet")},
        given={row["sample_id"]: row["text"] for row in table("given_descriptions.parquet")},
        rejected=frozenset(row["sample_id"] for row in table("rejects")),
    )


def _check_orphans(ledger: StoredEntries, rows: RowCheck, found: Findings) -> int:
    """Entries that no row cites: paid for, and not needed by the present settings. Returns all entries."""
    cited = np.unique(np.concatenate([np.array([], dtype=np.uint64), *rows.cited]))

    def check(entries: sqlite3.Connection) -> int:
        count = 0
        for (key,) in entries.execute("SELECT key FROM entries ORDER BY key"):
            count += 1
            place = np.searchsorted(cited, np.uint64(key_hash(key)))
            if place == len(cited) or cited[place] != key_hash(key):
                found.note("answer that no row cites", key[:12], "earlier settings leave such")
        return count

    return ledger.read(check)
