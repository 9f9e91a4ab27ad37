"""Sources of added texts: what `unibind kb add-texts` has taken, kept inside the knowledge base.

<kb>/added/NAME.parquet    class, text, model, origin, written_at; and in its metadata the file it came from

A source holds every class of its file, also those that are no category now: descriptions are derived from it
whenever the categories change (kb_builder/describe/added.py). Sources are inputs: no stage writes or removes
one, and the same file gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DamagedError, InputError, first_line
from data.files import atomic_path, canonical_json, hash_json
from data.paths import slug
from data.reads import names as names_in
from data.reads import reading
from data.seals import seal, sealed, unseal
from kb_builder.added.formats import KNOWLEDGE_BASE, AddedFile, AddedText

FOLDER = "added"
SOURCE = "added"  # in column `source` of the descriptions
_META = b"unibind_added"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ENDING = ".parquet"
ADDED = pa.schema(
    [
        pa.field("class", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("written_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Source:
    """A file's texts under the name by which the descriptions cite it (their `provider`)."""

    name: str
    content: AddedFile

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the file."""
        return tuple(dict.fromkeys(text.class_name for text in self.content.texts))

    def key(self, text: AddedText) -> str:
        """The `request_key` of a text's row: the hash of what was added."""
        return hash_json([SOURCE, self.content.sha256, text.class_name, text.text])

    def describe(self) -> dict[str, str]:
        """Where the texts come from, in words."""
        content = self.content
        stated = {
            "file": content.file,
            "format": content.form,
            "template": content.template,
            "licence": content.licence or "not stated",
            "sha256": content.sha256,
        }
        return {name: value for name, value in stated.items() if value is not None}


def read_sources(kb: Path) -> list[Source]:
    """All sources by their names. Raises DamagedError where one is damaged or lost."""
    try:
        paths = names_in(kb / FOLDER, f"*{_ENDING}")
    except DamagedError as error:
        if error.path.parent != kb / FOLDER:  # the list of checksums: `kb verify` says how to repair it
            raise
        raise _damaged(error) from error  # one that has a checksum is missing
    return [_read(path) for path in paths]


def _read(path: Path) -> Source:
    name = path.name.removesuffix(_ENDING)
    try:
        table = pq.ParquetFile(reading(path)).read()
        meta = json.loads((table.schema.metadata or {})[_META])
        if not table.schema.equals(ADDED):
            raise ValueError("its columns are not those of this version")
        columns = (table[column].to_pylist() for column in ADDED.names)
        texts = tuple(AddedText(*row) for row in zip(*columns, strict=True))
        return Source(name, AddedFile(texts=texts, **meta))
    except DamagedError as error:
        if error.path != path:  # the list of checksums: `kb verify` says how to repair it
            raise
        raise _damaged(error) from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(DamagedError(path, f"damaged ({first_line(error)})")) from error


def _damaged(error: DamagedError) -> DamagedError:
    return DamagedError(error.path, f"{error.reason.partition(';')[0]}; {repair(error.path.name)}")


def repair(file: str) -> str:
    """How a damaged or lost source is made whole: no run can do it."""
    return f"`unibind kb add-texts --remove {file.removesuffix(_ENDING)}`, then add its file again"


def choose_name(kb: Path, content: AddedFile, *, given: str | None, sources: Iterable[Source]) -> str:
    """The name for a new source: the given one, or its file's. Raises InputError where it cannot be used."""
    name = given if given is not None else slug(_stem(content))
    if not _NAME.fullmatch(name):
        what = "is no name for a source" if given is not None else "(its file's name) is no name for a source"
        raise InputError(f"{name!r} {what}; give --name with a-z, 0-9, dots, hyphens and underscores")
    if any(source.name == name for source in sources):
        raise InputError(
            f"{name!r} holds other texts already; give another --name, or first"
            f" `unibind kb add-texts --remove {name}`"
        )
    return name


def _stem(content: AddedFile) -> str:
    """The name of a file without its ending; that of a project, whose name may hold a dot, as it is."""
    if content.form == KNOWLEDGE_BASE:
        return content.file
    return content.file.rpartition(".")[0] or content.file


def write_source(kb: Path, source: Source) -> None:
    """Write a source, whole or not at all, and its checksum. The caller holds the project's lock."""
    path = kb / FOLDER / f"{source.name}{_ENDING}"
    content = source.content
    meta = {
        "file": content.file,
        "form": content.form,
        "sha256": content.sha256,
        "template": content.template,
        "licence": content.licence,
    }
    columns: Mapping[str, list[str | datetime | None]] = {
        "class": [text.class_name for text in content.texts],
        "text": [text.text for text in content.texts],
        "model": [text.model for text in content.texts],
        "origin": [text.origin for text in content.texts],
        "written_at": [text.written_at for text in content.texts],
    }
    schema = ADDED.with_metadata({_META: canonical_json(meta).encode()})
    unseal(kb, _maker(source.name))
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary)
    seal(kb, [path], _maker(source.name))


def remove_source(kb: Path, name: str) -> None:
    """Remove a source, damaged or not. Raises InputError where there is none of that name."""
    path = kb / FOLDER / f"{name}{_ENDING}"
    listed = [Path(each).name for each in sealed(kb) or () if each.startswith(f"{FOLDER}/")]
    files = {*listed, *(each.name for each in (kb / FOLDER).glob(f"*{_ENDING}"))}
    known = sorted(each.removesuffix(_ENDING) for each in files)
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "none was added"
        raise InputError(f"no texts were added under the name {name!r}; {there}")
    unseal(kb, _maker(name))
    path.unlink(missing_ok=True)
    with suppress(OSError):  # other sources are in it
        path.parent.rmdir()


def seal_sources(kb: Path) -> None:
    """Write the checksums of all sources as they are now."""
    for path in sorted((kb / FOLDER).glob(f"*{_ENDING}")):
        seal(kb, [path], _maker(path.name.removesuffix(_ENDING)))


def _maker(name: str) -> str:
    return f"add-texts {name}"
