"""`kb verify`: every file is as it was written, and all are of one state.

Every file is compared with its checksum. Regardless of checksums, it also checks that the files belong
together: every part against the manifest; every row against its ledger entry, its category or sample, and the
row that it repeats; that no row and no text comes twice; and that every category and sample has its rows or a
reason (verify_relations.py).

Rows of a part that is not as it was written, or has no checksum, are derived again from what is stored, and
compared: row id, text, and every column that follows from request and answer or, where no model was asked,
from the sample (verify_rows.py). So are all rows where the ledger is not as it was written, and with `deep`.
That takes two minutes of one core for a million rows; the rest takes as long as reading the files.

What cannot be known here are the settings of the run. So a near duplicate must be as alike as its reason
says, and other verdicts are taken as they are. A million rows need some hundred megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.errors import DamagedError, KnowledgeBaseError, first_line
from data.files import hash_file
from data.sample import Category
from data.seals import SEAL, Sum
from kb_builder.added.cited import by_category
from kb_builder.added.sources import FOLDER, read_sources
from kb_builder.ask.ledger import read_ledger
from kb_builder.tables.parts import KINDS, MANIFEST, DescriptionPart, read_manifest
from kb_builder.tables.schemas import DESCRIPTIONS, SCHEMA_VERSION
from kb_builder.verify.files import (
    Looked,
    check_ledger,
    check_media,
    check_sealed,
    check_tables,
    check_unlisted,
)
from kb_builder.verify.findings import Findings, Verification
from kb_builder.verify.relations import PartFile, Relations, Subjects
from kb_builder.verify.rows import derive_parts

_NEEDED = ("categories.parquet",)


def verify(kb: Path, *, media: Path | None = None, deep: bool = False) -> Verification:
    """Check a knowledge base; see the top of this file. Reads only; damage of any file is a finding.

    `media` is the folder that the samples' uris start from: their files are checked too. `deep` derives rows
    again whose files are as they were written. Raises KnowledgeBaseError where there is no knowledge base.
    """
    found, looked = Findings(), Looked()
    verify_into(kb, found, looked, media=media, deep=deep)
    return verification(found, looked)


def verification(found: Findings, looked: Looked) -> Verification:
    """Findings and counts as they are reported."""
    return Verification(
        counts=dict(looked.counts),
        remarks=tuple(looked.remarks),
        totals=dict(sorted(found.totals.items())),  # errors before notes
        findings=tuple(found.kept),
    )


def verify_into(
    kb: Path,
    found: Findings,
    looked: Looked,
    *,
    media: Path | None = None,
    below: str = "",
    deep: bool = False,
) -> None:
    """`verify`, to be reported together with other findings; `below` stands before the names of files."""
    known = ("categories.parquet", "samples.parquet", SEAL)
    if not any(os.path.lexists(kb / name) for name in known):
        raise KnowledgeBaseError(f"{kb} holds no knowledge base yet; `unibind run` makes one")
    lines: Mapping[str, Sum] = {}
    with found.guard(f"{below}{SEAL}"):
        lines = check_sealed(kb, found, looked, below=below)
    parts: list[PartFile] = []
    with found.guard(f"descriptions/{MANIFEST}"):
        parts = _check_parts(kb, found, looked)
    subjects = _subjects(kb, found, looked)
    looked.counts["parts"] = len(parts)
    usable = False
    with found.guard("ledger.sqlite"):
        usable = check_ledger(kb, lines, found, looked)
    if usable:
        _check_rows(kb, parts, subjects, found, looked, deep=deep)
    else:
        found.note("rows not checked", "descriptions", "without the ledger there is nothing to check them by")
    looked.counts["categories"] = len(subjects.categories)
    looked.counts["samples"] = len(subjects.samples)
    vectors: set[str] = set()
    with found.guard("embeddings"):
        vectors = check_tables(kb, found, looked)
    with found.guard("descriptions"):
        named = {f"descriptions/{kind}/{path.name}" for kind in KINDS for path in _parts(kb, kind)}
        check_unlisted(kb, lines, {*vectors, *named, "ledger.sqlite"}, found)
    if media is not None:
        with found.guard("samples.parquet"):
            check_media(kb, media, found, looked)


def _check_rows(
    kb: Path, parts: Sequence[PartFile], subjects: Subjects, found: Findings, looked: Looked, *, deep: bool
) -> None:
    readable = []
    with found.guard("ledger.sqlite"), read_ledger(kb) as ledger:  # one of facts alone has none
        rows = Relations(ledger, found, subjects)
        for part in parts:
            with found.guard(part.name):
                readable += [part] if rows.add(part) else []
        with found.guard("descriptions"):
            rows.finish()
        looked.counts["rows"] = rows.count
        looked.counts["ledger entries"] = rows.entries
        whole = ledger is None or kb / "ledger.sqlite" in looked.whole
        anew = [part for part in readable if deep or not whole or part.path not in looked.whole]
        with found.guard("descriptions"):
            looked.counts["rows derived again"] = derive_parts(kb, anew, subjects, found, every=readable)
    if left := looked.counts["rows"] - looked.counts["rows derived again"]:
        looked.remarks.append(
            f"not derived again from the answers: {left:,} rows, whose files are as they were written; "
            "`unibind kb verify --deep` does"
        )


def _parts(kb: Path, kind: str) -> list[Path]:
    return sorted((kb / "descriptions" / kind).glob("*.parquet"))


def _check_parts(kb: Path, found: Findings, looked: Looked) -> list[PartFile]:
    """Compare the manifest with the files; returns those that can be read, even if the manifest is wrong."""
    folder = kb / "descriptions"
    names = {f"{kind}/{path.name}" for kind in KINDS for path in _parts(kb, kind)}
    parts = _manifest_parts(kb, names, found)
    if (folder / MANIFEST).is_file() and folder / MANIFEST not in looked.whole | looked.stated:
        looked.at(folder / MANIFEST)
    readable = []
    for name in sorted(names):
        path, part = folder / name, parts.get(name)
        if not path.is_file():
            if path not in looked.stated:
                found.error("part unreadable", name, "no plain file")
            continue
        if path not in looked.whole | looked.stated:
            looked.at(path)
        if part is not None and path not in looked.whole:
            if path.stat().st_size != part.bytes:
                stated = f"{path.stat().st_size} bytes, the manifest says {part.bytes}"
                found.error("part changed", name, stated)
            elif hash_file(path) != part.sha256:
                found.error("part changed", name, "its SHA-256 is not the manifest's")
        elif part is not None and folder / MANIFEST not in looked.stated:
            stated_sum = looked.sums[path]
            if (stated_sum.bytes, stated_sum.sha256) != (part.bytes, part.sha256):
                found.error("part changed", name, "the manifest is of another state of it")
        reason = _unreadable(path)
        if reason is None:
            readable.append(PartFile(name, name.split("/")[0], path, part))
        else:
            found.error("part unreadable", name, reason)
    return readable


def _manifest_parts(kb: Path, names: set[str], found: Findings) -> Mapping[str, DescriptionPart]:
    """What the manifest says of every part; reports where it does not fit the parts on disk."""
    try:
        manifest = read_manifest(kb)
    except KnowledgeBaseError as error:
        found.error("manifest", MANIFEST, str(error))
        return {}
    if not all(isinstance(part.statuses, dict) for part in manifest.parts.values()):
        found.error(
            "manifest", MANIFEST, "its `statuses` are no counts; `unibind kb reparse` writes it again"
        )
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
    except Exception as error:  # of a damaged file anything may come
        return first_line(error)
    with opened:
        if not opened.schema_arrow.equals(DESCRIPTIONS, check_metadata=True):
            return "its columns are not those of this version"
    return None


def _subjects(kb: Path, found: Findings, looked: Looked) -> Subjects:
    def table(name: str, *columns: str) -> list[dict[str, Any]]:
        files = [kb / name] if name.endswith(".parquet") else sorted((kb / name).glob("*.parquet"))
        rows: list[dict[str, Any]] = []
        for path in files:
            where = path.relative_to(kb).as_posix()
            if not path.is_file():
                if path not in looked.stated and (os.path.lexists(path) or name in _NEEDED):
                    found.error(
                        "table unreadable", where, "missing, or no plain file; `unibind run` makes it"
                    )
                continue
            if path not in looked.whole | looked.stated:
                looked.at(path)
            try:
                rows += pq.read_table(path, columns=list(columns), partitioning=None).to_pylist()
            except Exception as error:  # of a damaged file anything may come
                found.error(
                    "table unreadable", where, f"{first_line(error)}; delete it and run `unibind run`"
                )
        return rows

    categories = table("categories.parquet", "category_id", "name", "aliases")
    samples = table("samples.parquet", "sample_id", "modality", "sha256")
    given = table("given_descriptions.parquet", "sample_id", "text")
    return Subjects(
        categories=frozenset(row["category_id"] for row in categories),
        samples={row["sample_id"]: (row["modality"], row["sha256"]) for row in samples},
        given={row["sample_id"]: row["text"] for row in given},
        rejected=frozenset(row["sample_id"] for row in table("rejects", "sample_id")),
        added=_added(kb, categories, found, looked),
    )


def _added(
    kb: Path, categories: Sequence[Mapping[str, Any]], found: Findings, looked: Looked
) -> dict[str, Mapping[str, Any]] | None:
    """What the rows of added texts must be, by request_key; None where a source cannot be read."""
    try:
        sources = read_sources(kb)
    except DamagedError as error:
        # A list of checksums outside of the knowledge base is looked at with the run's files.
        if error.path not in looked.stated and error.path.is_relative_to(kb):
            found.error("file damaged", error.path.relative_to(kb).as_posix(), error.reason)
        return None
    for source in sources:
        path = kb / FOLDER / f"{source.name}.parquet"
        if path not in looked.whole | looked.stated:
            looked.at(path)
    known = [Category(row["category_id"], row["name"], tuple(row["aliases"])) for row in categories]
    mine = by_category(sources, known)
    return {each.source.key(each.text): each.columns() for cited in mine.values() for each in cited}
