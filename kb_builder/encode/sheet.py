"""Sheet: all that is needed to make one part of a table of vectors, without the plan that it comes from.

A sheet names the part's rows, and for each distinct content where its vector comes from: it is encoded now,
or a file holds it. The process that planned makes it as `SheetColumns`, in a millisecond, since it makes
those of all parts. It turns them into a `Sheet` itself, or writes them for another process as a small Arrow
file in the store, so that no row travels through an engine:

    id, group, content   one row per row of the part; the content in 32 bytes of a text, in hex of a file
    encode               whether the row's content is encoded
    file, place          the number of the file that a text stands in, and its row there; null: in none
    source, label, up    of a sample: its file, and as `WantedVectors`; `source` may also be a text itself
    held_by              the number of a file that holds the vector; null: none
    lent_by              the index of the part of this run that makes the vector; null: none
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError, first_line
from data.files import hash_text
from data.modality import Modality
from data.readers.axes import Up, turned
from kb_builder.encode.rows import StoredTexts
from kb_builder.encoders.base import Source
from kb_builder.store.shards import Dtype

_ABOUT = b"unibind_sheet"


@dataclass(frozen=True)
class SheetColumns:
    """A sheet as columns (above), and what they do not hold."""

    table: pa.Table
    about: dict[str, Any]  # index, number, fingerprint, identity, dim, dtype, files, folder
    texts: list[Path]  # the files that `file` numbers
    held: list[Path]  # those that `held_by` numbers

    @property
    def name(self) -> str:
        """The part, for messages."""
        return f"part {self.about['number']} of {Path(self.about['folder']).name}"

    @property
    def is_encoding(self) -> bool:
        """Whether it encodes anything."""
        return bool(pc.any(self.table["encode"]).as_py())

    @property
    def is_borrowing(self) -> bool:
        """Whether other parts of this run make some of its vectors."""
        return bool(self.table["lent_by"].null_count < len(self.table))

    def own(self) -> SheetColumns:
        """The same for what the part encodes itself alone."""
        none = pa.nulls(len(self.table), pa.int32())
        table = self.table
        for name in ("held_by", "lent_by"):
            table = table.set_column(table.column_names.index(name), name, none)
        return SheetColumns(table, self.about, self.texts, [])

    def keys_not_encoded(self) -> list[str]:
        """The content keys of rows whose content it does not encode, and perhaps of some others."""
        rows = self.table.select(["group", "content"]).filter(pc.invert(self.table["encode"]))
        contents = _hexes(rows["content"])
        return keys_of(rows["group"].to_pylist(), contents, files=self.about["files"])

    def sheet(self) -> Sheet:
        """The sheet of these columns."""
        table, about = self.table, self.about
        rows_E = np.flatnonzero(table["encode"].to_numpy())
        some = table.select(["file", "place", "source", "label", "up"]).take(rows_E)
        sources: StoredTexts | list[str] = some["source"].to_pylist()
        if not about["files"] and some["file"].null_count == 0:
            sources = StoredTexts(self.texts, some["file"].to_numpy(), some["place"].to_numpy())
        return Sheet(
            **{name: about[name] for name in ("index", "number", "fingerprint", "identity", "dim", "dtype")},
            files=about["files"],
            folder=Path(about["folder"]),
            ids=table["id"].to_pylist(),
            groups=table["group"].to_pylist(),
            contents=_hexes(table["content"]),
            encode=rows_E.tolist(),
            sources=sources,
            labels=some["label"].to_pylist() if about["files"] else [],
            ups=some["up"].to_pylist() if about["files"] else [],
            held={self.held[number]: rows for number, rows in _rows_by(table["held_by"]).items()},
            lent=_rows_by(table["lent_by"]),
        )


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


def write_sheet(columns: SheetColumns, path: Path) -> None:
    """Write a sheet for another process; whoever is given its path next can read it."""
    about = columns.about | {"texts": [*map(str, columns.texts)], "held": [*map(str, columns.held)]}
    table = columns.table.replace_schema_metadata({_ABOUT: json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not synced, and not compressed: it is read at once and then removed.
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_sheet(path: Path) -> Sheet:
    """A sheet as it was written. Raises KnowledgeBaseError if it is missing or damaged."""
    try:
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        about = json.loads(table.schema.metadata[_ABOUT])
        texts, held = ([Path(each) for each in about.pop(name)] for name in ("texts", "held"))
        return SheetColumns(table, about, texts, held).sheet()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise KnowledgeBaseError(
            f"{path}: an order that cannot be read ({first_line(error)}); run `unibind encode` again"
        ) from error


def _hexes(contents: pa.ChunkedArray) -> list[str]:
    found: list[Any] = contents.to_pylist()
    return [each.hex() for each in found] if pa.types.is_fixed_size_binary(contents.type) else found


def _rows_by(numbers: pa.ChunkedArray) -> dict[int, list[int]]:
    """The rows that have each number."""
    rows_N = np.flatnonzero(numbers.is_valid().to_numpy())
    number_N = numbers.drop_null().to_numpy()
    return {number: rows_N[number_N == number].tolist() for number in np.unique(number_N).tolist()}
