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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from data.files import hash_file
from kb_builder.ledger import Entry
from kb_builder.parts import KINDS, MANIFEST, read_manifest
from kb_builder.schemas import DESCRIPTIONS, SCHEMA_VERSION, read_rows
from kb_builder.verify_report import Findings, Verification
from kb_builder.verify_rows import PartFile, RowCheck, Subjects, key_hash

_LOOKUP = 500  # keys per SQL query


def verify(kb: Path) -> Verification:
    """Check a knowledge base's descriptions; see the top of this file. Reads only.

    Raises KnowledgeBaseError where there is no knowledge base, or its ledger cannot be read at all.
    """
    if not (kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    found = Findings()
    parts = _check_parts(kb, found)
    subjects = _subjects(kb, found)
    with closing(StoredEntries(kb)) as stored:
        rows = RowCheck(stored.find, found, subjects)
        for part in parts:
            rows.check_file(part)
        rows.finish()
        entries = _check_orphans(stored, rows, found)
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


class StoredEntries:
    """The ledger, for looking up; needs no lock. A knowledge base of facts alone has none."""

    def __init__(self, kb: Path) -> None:
        self._path = kb / "ledger.sqlite"
        self._connection = (
            sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
            if self._path.is_file()
            else None
        )

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()

    def find(self, keys: Iterable[str]) -> dict[str, Entry]:
        """The entries of some keys."""
        columns = ", ".join(each.name for each in fields(Entry))
        wanted = list(keys)
        found: dict[str, Entry] = {}
        for start in range(0, len(wanted), _LOOKUP):
            some = wanted[start : start + _LOOKUP]
            marks = ", ".join("?" * len(some))
            for row in self._rows(f"SELECT {columns} FROM entries WHERE key IN ({marks})", some):
                found[row[0]] = Entry(*row)
        return found

    def keys(self) -> Iterator[str]:
        """Every key, in order."""
        for (key,) in self._rows("SELECT key FROM entries ORDER BY key"):
            yield key

    def _rows(self, query: str, values: Sequence[str] = ()) -> Iterator[Any]:
        if self._connection is None:
            return
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise KnowledgeBaseError(
                f"{self._path}: {error}; restore it from a backup: it holds what was paid for"
            ) from None


def _check_parts(kb: Path, found: Findings) -> list[PartFile]:
    """Compare the manifest with the files; returns those that can be read."""
    folder = kb / "descriptions"
    try:
        manifest = read_manifest(kb)
    except KnowledgeBaseError as error:
        found.error("manifest", MANIFEST, str(error))
        return []
    if manifest.schema_version != SCHEMA_VERSION:
        found.error("manifest", MANIFEST, f"schema {manifest.schema_version}, this is {SCHEMA_VERSION}")
    names = {f"{kind}/{path.name}" for kind in KINDS for path in (folder / kind).glob("*.parquet")}
    for name in sorted(names - manifest.parts.keys()):
        found.error("part not in the manifest", name, "nothing says that it is whole and belongs here")
    for name in sorted(manifest.parts.keys() - names):
        found.error("part missing", name, f"{manifest.parts[name].rows} rows are gone with it")
    readable = []
    for name in sorted(names):
        path, part = folder / name, manifest.parts.get(name)
        if part is not None:
            if path.stat().st_size != part.bytes:
                told = f"{path.stat().st_size} bytes, the manifest says {part.bytes}"
                found.error("part changed", name, told)
            elif hash_file(path) != part.sha256:
                found.error("part changed", name, "its SHA-256 is not the manifest's")
        reason = _unreadable(path)
        if reason is None:
            statuses = None if part is None else part.statuses
            readable.append(PartFile(name, name.split("/")[0], path, statuses))
        else:
            found.error("part unreadable", name, reason)
    return readable


def _unreadable(path: Path) -> str | None:
    """Why a part cannot be used, or None."""
    try:
        opened = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        return str(error).splitlines()[0]
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
            found.error("table unreadable", name, str(error).splitlines()[0])
            return []

    return Subjects(
        categories=frozenset(row["category_id"] for row in table("categories.parquet")),
        samples={row["sample_id"]: (row["modality"], row["sha256"]) for row in table("samples.parquet")},
        given={row["sample_id"]: row["text"] for row in table("given_descriptions.parquet")},
        rejected=frozenset(row["sample_id"] for row in table("rejects")),
    )


def _check_orphans(stored: StoredEntries, rows: RowCheck, found: Findings) -> int:
    """Entries that no row cites: paid for, and not needed by the present settings. Returns all entries."""
    cited = np.unique(np.concatenate([np.array([], dtype=np.uint64), *rows.cited]))
    count = 0
    for key in stored.keys():  # noqa: SIM118  (not a dict)
        count += 1
        place = np.searchsorted(cited, np.uint64(key_hash(key)))
        if place == len(cited) or cited[place] != key_hash(key):
            found.note("answer that no row cites", key[:12], "earlier settings leave such")
    return count
