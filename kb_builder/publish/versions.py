"""Versions of a knowledge base at a place, and the objects that hold their content.

    <place>/
      writer.json                  which version is the latest, and the writer of the next
      versions/NNNNNNNN.json       one for each version, from 1; never changed
      objects/AB/<SHA-256>         the content of files, named by its SHA-256 (AB: its first two digits)

A version lists every file of the knowledge base:

    format, version, published_at
    files: {name: {bytes, sha256}}
    ledger: {user_version, schema: [SQL], tables: {name: [{rows, bytes, sha256}]}}, or null
    sha256: of all the above

The ledger's tables are segments of rows in Parquet (kb_builder/publish/segments.py). A version is written
when all that it names is there, and appears when `writer.json` (kb_builder/publish/writer.py) says so. So a
version that can be read is whole. The latest one counts. Places without a `writer.json` were written by an
earlier program: there, every version has appeared.

What a run has sent that has not ended yet is listed in the same form, in objects that `writer.json` names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from data.errors import InputError, KnowledgeBaseError, first_line
from data.files import hash_json
from kb_builder.publish.place import Place
from kb_builder.publish.writer import Content, read_state, version_files

FORMAT = 1


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
    """The numbers of the versions that have appeared at a place, ascending."""
    # Listed first: a server gives the reason why it refuses a list, but not why it refuses an object.
    numbers, state = version_files(place), read_state(place)
    if state is None:
        return numbers
    return [number for number in numbers if number <= state.version and number not in state.void]


def place_text(place: Place) -> str:
    """What is at a place, and its writer, in one line. Raises InputError where it cannot be reached."""
    numbers, state = version_numbers(place), read_state(place)
    parts = [f"version {numbers[-1]}" if numbers else "no version yet"]
    if state is not None and state.unfinished:
        parts.append("what a run has sent that has not ended (`unibind kb fetch` takes it)")
    if state is not None and state.held:
        parts.append(f"{state} was writing at {state.renewed_at}")
    return "; ".join(parts)


def read_version(place: Place, number: int | None = None) -> Version:
    """A version, by default the latest.

    Raises InputError where there is none (of this number), and KnowledgeBaseError for a damaged one.
    """
    numbers = version_numbers(place)
    if not numbers:
        state = read_state(place)
        raise InputError(
            f"{place.name}: no knowledge base is published here; "
            + (
                "`unibind kb publish` does it"
                if state is None or not state.unfinished
                else "`unibind kb fetch` takes what a run has sent that did not end"
            )
        )
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


def read_newest(place: Place) -> tuple[Version, bool]:
    """What a run that has not ended has sent, and True; else the latest version, and False.

    Of the former, `number` is that of the version before, or 0. Raises as `read_version`.
    """
    version_files(place)  # as in `version_numbers`
    state = read_state(place)
    if state is None or not state.unfinished:
        return read_version(place), False
    files: dict[str, Content] = {}
    ledger: PublishedLedger | None = None
    for content in state.unfinished:
        found = _read_list(place, content)
        files |= found.files
        ledger = ledger or found.ledger
    return Version(state.version, state.renewed_at, files, ledger), True


def _read_list(place: Place, content: Content) -> Version:
    try:
        data = b"".join(place.pieces(content.object))
        if hashlib.sha256(data).hexdigest() != content.sha256:
            raise ValueError("its SHA-256 is another")
        return _parsed(json.loads(data))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KnowledgeBaseError(
            f"{place.name}/{content.object}, a list of what a run has sent: damaged ({first_line(error)});"
            " where the run was, `unibind kb publish` sends all of it; `unibind kb fetch --version` takes a"
            " version"
        ) from error


def encoded(version: Version) -> bytes:
    """A version, or what a run has sent, as the bytes of an object."""
    value = {
        "format": FORMAT,
        "version": version.number,
        "published_at": version.published_at,
        "files": {name: asdict(content) for name, content in sorted(version.files.items())},
        "ledger": None if version.ledger is None else asdict(version.ledger),
    }
    plain = json.loads(json.dumps(value))
    whole = plain | {"sha256": hash_json(plain)}
    return json.dumps(whole, indent=0, sort_keys=True, ensure_ascii=False).encode()


def write_version(place: Place, version: Version) -> bool:
    """Write a version, which does not appear yet; False where another one has its number already."""
    data, name = encoded(version), _name(version.number)
    if place.put_new(name, data):
        return True
    # A request that is repeated because its answer was lost is refused by what it has made itself.
    try:
        return b"".join(place.pieces(name)) == data
    except FileNotFoundError:
        return False


def _name(number: int) -> str:
    return f"versions/{number:08d}.json"


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
        {_safe(name): Content.parsed(each) for name, each in value["files"].items()},
        None
        if ledger is None
        else PublishedLedger(
            ledger["user_version"],
            tuple(ledger["schema"]),
            {
                name: tuple(Segment.parsed(each) for each in segments)
                for name, segments in ledger["tables"].items()
            },
        ),
    )


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
