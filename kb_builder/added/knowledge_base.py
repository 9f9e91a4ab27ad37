"""Reads another project's knowledge base, or a pack of one, as texts that can be added to this project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DamagedError, InputError, UniBindError, first_line
from data.files import hash_json
from data.manifest.ids import normal_spelling
from data.reads import reading
from data.seals import SEAL
from data.tables.read import Mistakes, text_of
from kb_builder.added.formats import KNOWLEDGE_BASE, MOST_TEXTS, AddedFile, AddedText
from kb_builder.added.sources import SOURCE
from kb_builder.settings import TRAITS

# A pack's files, as kb_builder/added/pack.py writes them.
CATEGORY_TEXTS = "data/category_texts.parquet"
PROVENANCE = "provenance.json"
FORMAT = "unibind knowledge base"

_PACKED = ("class", "text", "model", "source", "provider", "origin", "written_at")
_ROWS = ("category_id", "text", "status", "model_resolved", "source", "provider", "created_at")
_PLACEHOLDERS = frozenset(name for name, traits in TRAITS.items() if traits.placeholder)


def read_knowledge_base(folder: Path) -> AddedFile:
    """The `ok` category texts of a knowledge base, of a run's folder, or of a pack.

    Each names its model and its project. Raises InputError where the folder holds neither or no text, and
    where a file of it is damaged.
    """
    try:
        if (folder / PROVENANCE).is_file() or (folder / CATEGORY_TEXTS).is_file():
            project, licence, rows = _packed(folder)
        else:
            kb = folder / "kb" if (folder / "kb" / "categories.parquet").is_file() else folder
            project, licence, rows = _described(kb)
    except DamagedError as error:
        raise InputError(f"{error.path}: {error.reason.partition(';')[0]}") from error
    mistakes = Mistakes(folder)
    texts, written = [], Counter[str]()
    for row in rows:
        name, text = (
            text_of(row[key], f"class {row['class']!r}", key, mistakes) for key in ("class", "text")
        )
        if name is None or text is None:
            continue
        added = f"{project}, {row['provider']}" if row["source"] == SOURCE else project
        origin = row["origin"] or added
        written[row["source"]] += 1
        texts.append(
            AddedText(normal_spelling(name), normal_spelling(text), row["model"], origin, row["written_at"])
        )
    mistakes.raise_if_any()
    if not texts:
        raise InputError(f"{folder}: holds no category text that passed the gates")
    for name, count in Counter(text.class_name for text in texts).items():
        if count > MOST_TEXTS:
            raise InputError(f"{folder}: class {name!r}: {count:,} texts, more than {MOST_TEXTS:,}")
    once = {(text.class_name, text.text): text for text in reversed(texts)}
    texts = [text for text in texts if once[text.class_name, text.text] is text]
    notes = []
    if fake := sum(written[source] for source in _PLACEHOLDERS):
        notes.append(f"{fake:,} texts are placeholders of the describer `fake`, and mean nothing")
    if not (folder / SEAL).is_file() and (folder / PROVENANCE).is_file():
        notes.append(f"no {SEAL}: whether the pack is whole cannot be checked")
    return AddedFile(
        file=project,
        form=KNOWLEDGE_BASE,
        sha256=hash_json([[text.class_name, text.text, text.model, text.origin] for text in texts]),
        texts=tuple(texts),
        licence=licence,
        notes=tuple(notes),
    )


def _packed(folder: Path) -> tuple[str, str | None, Iterable[dict[str, Any]]]:
    path = folder / PROVENANCE
    try:
        stated = json.loads(reading(path).read_text(encoding="utf-8"))
        if stated["format"] != FORMAT or stated["version"] != 1:
            raise ValueError("not a pack that this version knows")
        project, licence = str(stated["project"]), stated["licence"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no pack of a knowledge base ({first_line(error)})") from error
    return project, licence, _rows(folder / CATEGORY_TEXTS, _PACKED)


def _described(kb: Path) -> tuple[str, str | None, Iterable[dict[str, Any]]]:
    if not (kb / "categories.parquet").is_file():
        raise InputError(f"{kb}: neither a knowledge base nor a pack of one (`unibind kb pack`)")
    names = {
        row["category_id"]: row["name"] for row in _rows(kb / "categories.parquet", ("category_id", "name"))
    }
    return (kb.absolute().parent.name if kb.name == "kb" else kb.absolute().name), None, _ok_rows(kb, names)


def _ok_rows(kb: Path, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    for path in sorted((kb / "descriptions" / "category").glob("*.parquet")):
        for row in _rows(path, _ROWS):
            if row["status"] == "ok" and row["category_id"] in names:
                yield {
                    "class": names[row["category_id"]],
                    "text": row["text"],
                    "model": row["model_resolved"],
                    "source": row["source"],
                    "provider": row["provider"],
                    "origin": None,
                    "written_at": row["created_at"] if row["created_at"].timestamp() else None,
                }


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        table = pq.ParquetFile(reading(path)).read(columns=list(columns))
        if missing := set(columns) - set(table.column_names):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except UniBindError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
