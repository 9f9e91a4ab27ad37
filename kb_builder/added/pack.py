"""`unibind kb pack`: a knowledge base's texts as a folder that others can use, and that is safe to give away.

    README.md                       a data set card, for `datasets.load_dataset(FOLDER)` and the hub
    data/category_texts.parquet     the texts about categories that passed the gates, each with its origin
    data/categories.parquet         names, aliases and parents
    data/sample_texts.parquet       the texts about samples, only if asked for: they may tell private things
    provenance.json                 who wrote the texts, the gates' settings, what was rejected or added
    unibind-checksums.json          size, CRC-32 and SHA-256 of every file above

Rejected texts, requests, samples' paths, notes and the ledger stay behind. Of a model that is a
file, the file's name is kept. At last all that is to be written is searched for keys and for paths of this
machine. The same knowledge base gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError, KnowledgeBaseError
from data.files import new_folder
from data.reads import names as names_in
from data.seals import seal
from data.show import visible
from kb_builder.added.card import UNKNOWN_LICENCE, write_card
from kb_builder.added.knowledge_base import CATEGORY_TEXTS, FORMAT, PROVENANCE
from kb_builder.added.sources import SOURCE, read_sources
from kb_builder.added.struck import read_struck
from kb_builder.settings import DescribeCategories
from kb_builder.tables.schemas import read_columns

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
# Names of models that are a place on this machine, whose last part is the model.
_PLACE = re.compile(r"/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:")
_FEWEST = 4  # letters of a secret or path that is looked for

_TEXTS = pa.schema(
    [
        ("class", pa.string()),
        ("category_id", pa.string()),
        ("text", pa.string()),
        ("aspect", pa.string()),
        ("model", pa.string()),
        ("source", pa.string()),
        ("provider", pa.string()),
        ("origin", pa.string()),  # the project or set that an added text comes from
        ("template", pa.string()),
        ("written_at", pa.timestamp("us", tz="UTC")),
        ("row_id", pa.string()),
    ]
)
_SAMPLE_TEXTS = pa.schema(
    [("sample_id", pa.string()), ("modality", pa.string()), *list(_TEXTS)[2:7], *list(_TEXTS)[8:]]
)
_CATEGORIES = pa.schema(
    [
        ("category_id", pa.string()),
        ("class", pa.string()),
        ("aliases", pa.list_(pa.string())),
        ("parent", pa.string()),
    ]
)
_READ = (
    "row_id",
    "category_id",
    "sample_id",
    "modality",
    "text",
    "status",
    "aspect",
    "model_resolved",
    "source",
    "provider",
    "template_id",
    "template_version",
    "created_at",
    "request_key",
    "parser_version",
)
_HINT = "unibind describe"

_Row = dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """What a pack holds."""

    folder: Path
    category_texts: int
    sample_texts: int | None  # None: not asked for
    categories: int
    licence: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        samples = "no texts about samples (--samples adds them)"
        if self.sample_texts is not None:
            samples = (
                f"{self.sample_texts:,} texts about samples, which may tell private things: read them first"
            )
        texts, stated = self.category_texts, self.licence != UNKNOWN_LICENCE
        lines = [
            f"{self.folder}: {texts:,} texts about {self.categories:,} categories, and {samples}",
            f"licence: {self.licence}{'' if stated else ' (--license states it)'}",
            *(f"note: {note}" for note in self.notes),
            f"datasets.load_dataset({str(self.folder)!r}) opens it, `unibind kb add-texts` takes it",
        ]
        return "\n".join(map(visible, lines))


def pack(
    kb: Path,
    target: Path,
    settings: DescribeCategories,
    *,
    project: str,
    encoder: str,
    licence: str | None = None,
    samples: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> Packed:
    """Write the new folder `target`; see the top of this file.

    `secrets`: what may stand nowhere in it -> what that is, for the message. `project` and `encoder` name the
    project and its text encoder. Raises InputError where `target` exists, the licence is no identifier, or a
    secret is found; KnowledgeBaseError where nothing is described yet or a file is damaged.
    """
    licence = UNKNOWN_LICENCE if licence is None else licence
    if not _LICENCE.fullmatch(licence):
        raise InputError(f"--license {licence!r}: give an identifier such as cc-by-4.0, cc0-1.0 or mit")
    names = {row["category_id"]: row for row in _categories(kb)}
    origins = {
        source.key(text): text.origin or source.content.file
        for source in read_sources(kb)
        for text in source.content.texts
    }
    struck = read_struck(kb)
    rows = [row for row in _read(kb, "category") if row["row_id"] not in struck]
    texts = [_text(row, names[row["category_id"]]["class"], origins) for row in rows if _is_ok(row, names)]
    if not texts:
        raise KnowledgeBaseError(f"{kb}: no category has a text yet; run `{_HINT}`")
    sample_rows = _read(kb, "sample") if samples else []
    sample_texts = [_sample_text(row) for row in sample_rows if row["status"] == "ok"]
    provenance = _provenance(kb, rows, texts, sample_texts, settings, project, encoder, licence)
    card = write_card(
        provenance,
        texts=len(texts),
        described=len({row["category_id"] for row in texts}),
        categories=len(names),
        sample_texts=len(sample_texts) if samples else None,
    )
    tables = {CATEGORY_TEXTS: (texts, _TEXTS), "data/categories.parquet": (list(names.values()), _CATEGORIES)}
    if samples:
        tables["data/sample_texts.parquet"] = (sample_texts, _SAMPLE_TEXTS)
    written: dict[str, Any] = {"README.md": card, PROVENANCE: provenance}
    _require_clean(written | {name: table for name, (table, _) in tables.items()}, secrets or {})
    with new_folder(target) as folder:
        (folder / "data").mkdir()
        for name, (table, schema) in tables.items():
            pq.write_table(pa.Table.from_pylist(table, schema=schema), folder / name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / PROVENANCE).write_text(
            json.dumps(provenance, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        seal(folder, sorted(path for path in folder.rglob("*") if path.is_file()), "kb pack")
    return Packed(
        target, len(texts), len(sample_texts) if samples else None, len(names), licence, _notes(provenance)
    )


def public_name(model: str) -> str:
    """A model's name without the place of its file: `/home/ann/qwen.gguf` is `qwen.gguf`, as in `clip:…`."""
    family, colon, place = model.rpartition(":")
    if colon and len(family) > 1:  # `clip:FOLDER`, no drive of Windows
        return f"{family}:{public_name(place)}"
    if _PLACE.match(model) or ("\\" in model) or model.endswith(".gguf"):
        return re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    return model


def _categories(kb: Path) -> list[_Row]:
    table = read_columns(
        kb / "categories.parquet", ["category_id", "name", "aliases", "parent"], hint="unibind run"
    )
    rows = table.rename_columns(["category_id", "class", "aliases", "parent"]).to_pylist()
    return sorted(rows, key=lambda row: str(row["category_id"]))


def _read(kb: Path, kind: str) -> list[_Row]:
    """The rows of a kind, by category or sample, in the order of the parts."""
    rows: list[_Row] = []
    for path in names_in(kb / "descriptions" / kind, "*.parquet"):
        rows += read_columns(path, _READ, hint=_HINT).to_pylist()
    return sorted(rows, key=lambda row: str(row[f"{kind}_id"]))


def _is_ok(row: _Row, names: Mapping[str, _Row]) -> bool:
    return row["status"] == "ok" and row["category_id"] in names


def _text(row: _Row, name: str, origins: Mapping[str, str]) -> _Row:
    return {
        "class": name,
        "category_id": row["category_id"],
        "origin": origins.get(row["request_key"]) if row["source"] == SOURCE else None,
        **_common(row),
    }


def _sample_text(row: _Row) -> _Row:
    return {"sample_id": row["sample_id"], "modality": row["modality"], **_common(row)}


def _common(row: _Row) -> _Row:
    return {
        "text": row["text"],
        "aspect": row["aspect"],
        "model": public_name(row["model_resolved"]),
        "source": row["source"],
        "provider": row["provider"],
        "template": f"{row['template_id']}@{row['template_version']}",
        "written_at": row["created_at"] if row["created_at"].timestamp() else None,
        "row_id": row["row_id"],
    }


def _provenance(
    kb: Path,
    rows: Sequence[_Row],
    texts: Sequence[_Row],
    sample_texts: Sequence[_Row],
    settings: DescribeCategories,
    project: str,
    encoder: str,
    licence: str,
) -> dict[str, Any]:
    """What is known of the texts' origin, with counts."""
    writers = Counter((row["model"], row["source"], row["provider"]) for row in [*texts, *sample_texts])
    used = {row["provider"] for row in texts if row["source"] == SOURCE}
    return {
        "format": FORMAT,
        "version": 1,
        "project": project,
        "licence": licence,
        "texts": [
            {"model": model, "source": source, "provider": provider, "texts": count}
            for (model, source, provider), count in sorted(writers.items())
        ],
        "templates": dict(sorted(Counter(row["template"] for row in texts).items())),
        "rejected": dict(sorted(Counter(row["status"] for row in rows if row["status"] != "ok").items())),
        "gates": {
            "language": settings.language,
            "near_jaccard": settings.near_jaccard,
            "near_cosine": settings.near_cosine,
            "text_encoder": public_name(encoder),
        },
        "parser_versions": sorted({row["parser_version"] for row in rows}),
        "added": [{"name": each.name} | each.describe() for each in read_sources(kb) if each.name in used],
    }


def _notes(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """What the giver of the pack should know."""
    licences = {each["name"]: each["licence"] for each in provenance["added"]}
    other = [f"{name} ({stated})" for name, stated in licences.items() if stated != provenance["licence"]]
    notes = []
    if other:
        notes.append(f"holds added texts under another licence than the pack's: {', '.join(other)}")
    if fake := sum(each["texts"] for each in provenance["texts"] if each["source"] == "fake"):
        notes.append(f"{fake:,} texts are placeholders of the describer `fake`, and mean nothing")
    return tuple(notes)


def _require_clean(written: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
    """Raise InputError where one of the secrets stands in anything that is to be written."""
    found = {secret: _pattern(secret) for secret in secrets if len(secret) >= _FEWEST}
    if not found:
        return
    any_of_them = re.compile("|".join(found.values()))
    for name, content in written.items():
        for row in content if isinstance(content, list) else [content]:
            if (hit := any_of_them.search("\n".join(_strings(row)))) is not None:
                what = next(secrets[secret] for secret in found if re.fullmatch(found[secret], hit[0]))
                raise InputError(f"nothing was packed: {name}{_where(row)} would hold {what}")


def _pattern(secret: str) -> str:
    """Finds a secret anywhere, a path as a whole: `/root` is not in "flowers/roots"."""
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if _PLACE.match(secret) else pattern


def _where(row: Any) -> str:
    known = isinstance(row, dict) and "row_id" in row
    return f" (`unibind kb explain {row['row_id'][:12]}` shows the row)" if known else ""


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _strings(key)
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
