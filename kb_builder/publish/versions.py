"""Versions of a knowledge base at a place, and the objects that hold their content.

    <place>/
      versions/NNNNNNNN.json       one for each version, from 1; never changed
      objects/AB/<SHA-256>         the content of files, named by its SHA-256 (AB: its first two digits)

A version lists every file of the knowledge base:

    format, version, published_at
    files: {name: {bytes, sha256}}
    ledger: {user_version, schema: [SQL], tables: {name: [{rows, bytes, sha256}]}}, or null
    sha256: of all the above

The ledger's tables are segments of rows in Parquet (kb_builder/publish/segments.py). A version is written
last, and only if there is none of its number: the first of two writers has it, the other one fails. So a
version that can be read is whole. The latest one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_json
from kb_builder.publish.place import Place

FORMAT = 1
_FOLDER = "versions"
_NAME = re.compile(rf"{_FOLDER}/(\d{{8}})\.json")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """The content of a file: an object."""

    bytes: int
    sha256: str

    @property
    def object(self) -> str:
        """The object's name at its place."""
        return f"objects/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Segment(Content):
    """Consecutive rows of a table of the ledger."""

    rows: int


@dataclass(frozen=True)
class PublishedLedger:
    """The ledger of a version: its tables, with their segments in order."""

    user_version: int
    schema: tuple[str, ...]  # SQL that creates its tables and indexes
    tables: dict[str, tuple[Segment, ...]]


@dataclass(frozen=True)
class Version:
    """A version of a knowledge base."""

    number: int
    published_at: str
    files: dict[str, Content]
    ledger: PublishedLedger | None

    def contents(self) -> Iterator[tuple[str, Content]]:
        """Every object that it needs, with the file or the table that it is of; some more than once."""
        yield from self.files.items()
        for table, segments in (self.ledger.tables if self.ledger else {}).items():
            for segment in segments:
                yield f"ledger, {table}", segment


def version_numbers(place: Place) -> list[int]:
    """The numbers of the versions at a place, ascending."""
    found = (_NAME.fullmatch(name) for name in place.listed(_FOLDER))
    return sorted(int(each[1]) for each in found if each)


def read_version(place: Place, number: int | None = None) -> Version:
    """A version, by default the latest.

    Raises InputError where there is none (of this number), and KnowledgeBaseError for a damaged one.
    """
    numbers = version_numbers(place)
    if not numbers:
        raise InputError(f"{place.name}: no knowledge base is published here; `unibind kb publish` does it")
    if number is not None and number not in numbers:
        raise InputError(f"{place.name}: no version {number}; there are {numbers[0]} to {numbers[-1]}")
    name = _name(numbers[-1] if number is None else number)
    data = b"".join(place.pieces(name))
    try:
        return _parsed(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KnowledgeBaseError(
            f"{place.name}/{name}: damaged ({error}); `unibind kb publish` makes another version"
        ) from error


def write_version(place: Place, version: Version) -> bool:
    """Make a version visible; False where another one has its number already."""
    value = {
        "format": FORMAT,
        "version": version.number,
        "published_at": version.published_at,
        "files": {name: asdict(content) for name, content in sorted(version.files.items())},
        "ledger": None if version.ledger is None else asdict(version.ledger),
    }
    plain = json.loads(json.dumps(value))
    whole = plain | {"sha256": hash_json(plain)}
    data = json.dumps(whole, indent=0, sort_keys=True, ensure_ascii=False).encode()
    name = _name(version.number)
    if place.put_new(name, data):
        return True
    # A request that is repeated because its answer was lost is refused by what it has made itself.
    try:
        return b"".join(place.pieces(name)) == data
    except FileNotFoundError:
        return False


def _name(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _parsed(value: dict[str, Any]) -> Version:
    claimed = value.pop("sha256")
    if hash_json(value) != claimed:
        raise ValueError("its checksum does not match its content")
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']}, this program reads {FORMAT}")
    ledger = value["ledger"]
    return Version(
        value["version"],
        value["published_at"],
        {_safe(name): _content(Content, each) for name, each in value["files"].items()},
        None
        if ledger is None
        else PublishedLedger(
            ledger["user_version"],
            tuple(ledger["schema"]),
            {
                name: tuple(_content(Segment, each) for each in segments)
                for name, segments in ledger["tables"].items()
            },
        ),
    )


def _content(kind: type[Any], value: Mapping[str, Any]) -> Any:
    if not _HASH.fullmatch(value["sha256"]):
        raise ValueError(f"{value['sha256']!r} is no SHA-256")
    return kind(**value)


def _safe(name: str) -> str:
    """The name of a file. Raises ValueError for one that is not below its folder, or hidden."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or "\\" in name
        or any(part.startswith(".") for part in path.parts)
        or not path.parts
    ):
        raise ValueError(f"{name!r} is no name of a file here")
    return name
