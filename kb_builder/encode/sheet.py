"""Sheet: all that is needed to make one part of a table of vectors, without the plan that it comes from.

A sheet names the part's rows, and for each distinct content where its vector comes from: it is encoded now,
or a file holds it. In the process that planned, sheets stay in memory; for other machines each is one small
Parquet file in the store, so that no row travels through an engine:

    id, group, content   strings, one row per row of the part
    source               a sample's file, or the table that a text stands in; null where nothing is encoded
    place                the row of a text in that table
    label, up            of a sample: as `WantedVectors`
    held_by              the number of a file in `paths` that holds the vector; null: none
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError, first_line
from data.files import hash_text
from data.modality import Modality
from data.readers.axes import Up, turned
from kb_builder.encode.rows import StoredTexts
from kb_builder.encoders.base import Source
from kb_builder.store.shards import Dtype

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("content", pa.string()),
        ("source", pa.string()),
        ("place", pa.int64()),
        ("label", pa.string()),
        ("up", pa.string()),
        ("held_by", pa.int32()),
    ]
)
_ABOUT = "unibind_sheet"


@dataclass(frozen=True, slots=True)
class SheetItem:
    """One distinct content to encode."""

    key: str  # its content key
    modality: Modality
    source: Source
    label: str  # names a file in messages


@dataclass(frozen=True)
class Sheet:
    """One part to be made; rows are counted within it."""

    index: int  # of the part in its plan
    folder: Path  # of its table
    number: int  # of the part in its table
    fingerprint: str
    identity: str  # of the encoder
    dim: int
    dtype: Dtype
    files: bool  # contents are files, not texts
    ids: list[str]
    groups: list[str]
    contents: list[str]  # SHA-256 (hex)
    encode: list[int]  # rows to encode, one for each distinct content
    sources: StoredTexts | list[str]  # of these rows
    labels: list[str]  # of these rows, with `files`
    ups: list[Up | None]  # of these rows, with `files`
    held: dict[Path, list[int]] = field(default_factory=dict)  # rows whose vectors a file holds
    # Rows whose vectors other parts of this run make, by their index in the plan.
    lent: dict[int, list[int]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The content key of each row (`WantedVectors.keys`)."""
        return keys_of(self.groups, self.contents, files=self.files)

    @property
    def name(self) -> str:
        """The part, for messages."""
        return f"part {self.number} of {self.folder.name}"

    def own(self) -> Sheet:
        """The same sheet for what the part encodes itself alone."""
        return replace(self, held={}, lent={})

    def items(self) -> Iterator[SheetItem]:
        """The contents to encode. Raises KnowledgeBaseError for a text that has changed since."""
        sources = self.sources.to_pylist() if isinstance(self.sources, StoredTexts) else self.sources
        if not self.files:
            for row, text in zip(self.encode, sources, strict=True):
                if hash_text(text) != self.contents[row]:
                    raise KnowledgeBaseError(
                        f"{self.folder}: the descriptions changed while they were encoded;"
                        " run `unibind encode` again"
                    )
                yield SheetItem(f"text:{self.contents[row]}", "text", text, "")
            return
        for row, source, label, up in zip(self.encode, sources, self.labels, self.ups, strict=True):
            modality: Any = self.groups[row]
            key = f"{modality}:{self.contents[row]}"
            yield SheetItem(key, modality, turned(Path(source), up), label)


def keys_of(groups: list[str], contents: list[str], *, files: bool) -> list[str]:
    """Content keys of rows: the SHA-256, prefixed by "text", or for files by their modality."""
    if not files:
        return [f"text:{content}" for content in contents]
    return [f"{group}:{content}" for group, content in zip(groups, contents, strict=True)]


def write_sheet(sheet: Sheet, path: Path) -> None:
    """Write a sheet in which no vector is `lent`; whoever is given its path next can read it."""
    assert not sheet.lent
    count = len(sheet.ids)
    columns: dict[str, list[Any]] = {name: [None] * count for name in _SCHEMA.names}
    columns |= {"id": sheet.ids, "group": sheet.groups, "content": sheet.contents}
    for number, rows in enumerate(sheet.held.values()):
        for row in rows:
            columns["held_by"][row] = number
    about: dict[str, Any] = {
        **{name: getattr(sheet, name) for name in ("index", "number", "fingerprint", "identity", "dim")},
        "dtype": sheet.dtype,
        "files": sheet.files,
        "folder": str(sheet.folder),
        "paths": [str(held) for held in sheet.held],
        "encode": sheet.encode,
    }
    if isinstance(sheet.sources, StoredTexts):
        located = sheet.sources.located()
        values: Any = [(str(file), place, None, None) for file, place in located]
    else:
        labels, ups = (each or [None] * len(sheet.encode) for each in (sheet.labels, sheet.ups))
        values = zip(sheet.sources, [None] * len(sheet.encode), labels, ups, strict=True)
        about["inline"] = not sheet.files  # the texts themselves, of a table that has no files
    for row, value in zip(sheet.encode, values, strict=True):
        for name, each in zip(("source", "place", "label", "up"), value, strict=True):
            columns[name][row] = each
    table = pa.table(columns, schema=_SCHEMA.with_metadata({_ABOUT: json.dumps(about)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not synced, and not compressed: it is read at once and then removed.
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)


def read_sheet(path: Path) -> Sheet:
    """A sheet as it was written. Raises KnowledgeBaseError if it is missing or damaged."""
    try:
        table = pq.read_table(path, schema=_SCHEMA, partitioning=None)
        about = json.loads(pq.read_schema(path).metadata[_ABOUT.encode()])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise KnowledgeBaseError(
            f"{path}: an order that cannot be read ({first_line(error)}); run `unibind encode` again"
        ) from error
    columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in _SCHEMA.names}
    held: dict[Path, list[int]] = {Path(each): [] for each in about["paths"]}
    by_number = list(held)
    for row, number in enumerate(columns["held_by"]):
        if number is not None:
            held[by_number[number]].append(row)
    encode: list[int] = about["encode"]
    texts = not about["files"] and not about.get("inline")
    some = {name: [columns[name][row] for row in encode] for name in ("source", "place", "label", "up")}
    return Sheet(
        **{name: about[name] for name in ("index", "number", "fingerprint", "identity", "dim", "dtype")},
        files=about["files"],
        folder=Path(about["folder"]),
        ids=columns["id"],
        groups=columns["group"],
        contents=columns["content"],
        encode=encode,
        sources=_stored(some["source"], some["place"]) if texts else some["source"],
        labels=some["label"] if about["files"] else [],
        ups=some["up"] if about["files"] else [],
        held=held,
    )


def _stored(files: list[str], places: list[int]) -> StoredTexts:
    """Texts by file and row, as a column."""
    names = sorted(set(files))
    numbers = {name: number for number, name in enumerate(names)}
    # Rows are counted over all files; each is given more room than any has rows.
    room = max(places, default=0) + 1
    starts = [number * room for number in range(len(names))]
    rows = [starts[numbers[file]] + place for file, place in zip(files, places, strict=True)]
    return StoredTexts([Path(name) for name in names], starts, np.array(rows, np.int64))
