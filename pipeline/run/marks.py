"""Marks of finished stages: `<run>/stages/<name>.json`, with what the stage read in `<name>.reads.json`.

A mark holds the hashes of the stage's settings and code, its counts, and the SHA-256 of every file it wrote;
the second file lists its reads (data/reads.py). A stage is current while all of these are unchanged. A file
is hashed again only if its signature (size, times, inode) has changed; the new signature is then stored.

Paths inside the project's folder are stored relative to it, those of installed packages relative to the
installation, others absolute: the project's folder may be moved.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from data.files import Signature, canonical_json, hash_json, write_json, write_text
from data.reads import CHANGED_MEANWHILE, Note, content, remember
from pipeline.project import ProjectFile

CODE_CHANGED = "its code changed"
FORMAT = 3  # 1 had no reads, 2 no checksum of the mark
_ALWAYS_HASHED = 64 * 2**20  # bytes: only of larger outputs an unchanged signature suffices
_EARLIER = (1, 2)
_INSTALLED = "<installed>"


class Mark(TypedDict):
    """The content of a mark. Those of an earlier version are only certain to have `seconds` and `summary`."""

    seconds: float
    summary: dict[str, Any]
    format: NotRequired[int]
    key: NotRequired[str]  # the stage, or the shard
    hashes: NotRequired[dict[str, str]]  # of "settings" and "code"
    outputs: NotRequired[dict[str, list[Any]]]  # path below the run folder: SHA-256, signature or None
    digest: NotRequired[str]  # of all outputs
    reads: NotRequired[str]  # the hash of the reads
    facts: NotRequired[dict[str, Any]]
    asked: NotRequired[bool]  # trained by `unibind train` although the project has training off


def read_mark(project: ProjectFile, key: str) -> Mark | None:
    """The mark of a finished stage or shard; None if there is none, or it is damaged or of another stage.

    In the mark of an earlier version, only `format`, `seconds` and `summary` are checked.
    """
    mark = _read(_path(project, key))
    if mark is None:
        return None
    if mark.get("format") == FORMAT:
        claimed = mark.pop("sha256", None)
        return cast(Mark, mark) if claimed == hash_json(mark) and mark["key"] == key else None
    usable = isinstance(mark.get("seconds"), int | float) and isinstance(mark.get("summary"), dict)
    return cast(Mark, mark) if usable and mark.get("format", 1) in _EARLIER else None


def marks(project: ProjectFile) -> list[tuple[str, Mark]]:
    """Every readable mark, with the name of its stage or shard."""
    paths = sorted((project.run / "stages").glob("*.json"))
    keys = (path.name.removesuffix(".json") for path in paths if not path.name.endswith(".reads.json"))
    return [(key, mark) for key in keys if (mark := read_mark(project, key)) is not None]


def damaged_marks(project: ProjectFile) -> list[tuple[Path, str]]:
    """The files of marks that differ from what was written, each with what is wrong."""
    found = []
    for path in sorted((project.run / "stages").glob("*")):
        if path.name.startswith("."):
            continue
        key, reads = path.name.removesuffix(".json"), path.name.endswith(".reads.json")
        if not path.is_file() or path.suffix != ".json":
            found.append((path, "not a file of unibind"))
        elif reads:
            mark = read_mark(project, key.removesuffix(".reads"))
            if mark is not None and mark.get("format") == FORMAT and _reads(project, path, mark) is None:
                found.append((path, "damaged: its checksum does not match; its stage will run again"))
        elif (mark := read_mark(project, key)) is None:
            found.append((path, "damaged: its checksum does not match; its stage will run again"))
        elif mark.get("format") == FORMAT and not _reads_path(project, key).is_file():
            found.append((_reads_path(project, key), "missing; its stage will run again"))
    return found


def missing_marks(project: ProjectFile) -> list[Path]:
    """The marks that are not there though a record of what their stage read is.

    The stage was stopped in between, or its mark was deleted: it will run again.
    """
    records = sorted((project.run / "stages").glob("*.reads.json"))
    found = (_path(project, path.name.removesuffix(".reads.json")) for path in records)
    return [path for path in found if not os.path.lexists(path)]


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON object in a regular file, or None."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reads(project: ProjectFile, path: Path, mark: Mark) -> list[Any] | None:
    """The reads of a stage as stored; None where the file is damaged or belongs to another mark."""
    value = _read(path)
    if value is None or not isinstance(value.get("notes"), list):
        return None
    notes: list[Any] = value["notes"]
    whole = value.get("sha256") == hash_json(notes) and _digest(notes) == mark["reads"]
    return notes if whole else None


def _write_reads(project: ProjectFile, key: str, notes: list[Any]) -> None:
    text = canonical_json({"notes": notes, "sha256": hash_json(notes)})
    write_text(_reads_path(project, key), text + "\n")


def _write(project: ProjectFile, key: str, mark: Mark) -> None:
    write_json(_path(project, key), {**mark, "sha256": hash_json(mark)})


def write_mark(
    project: ProjectFile,
    key: str,
    *,
    hashes: Mapping[str, str],
    seconds: float,
    summary: dict[str, Any],
    outputs: Iterable[Path],
    notes: Iterable[Note] = (),
    facts: Mapping[str, Any] | None = None,
    asked: bool = False,
) -> Mark:
    """Mark a stage as done, with the `hashes` of its settings and code, its reads and its outputs."""
    written: dict[str, tuple[str, list[int] | None]] = {}  # SHA-256, signature
    for path in sorted(outputs):
        digest, seen = content(path)
        if digest is not None:
            written[path.relative_to(project.run).as_posix()] = digest, list(seen) if seen else None
    reads = [_stored(project, note) for note in notes]
    _write_reads(project, key, reads)
    mark: Mark = {
        "format": FORMAT,
        "key": key,
        "hashes": dict(hashes),
        "seconds": seconds,
        "summary": json.loads(canonical_json(summary)),
        "outputs": {name: list(each) for name, each in written.items()},
        "digest": hash_json([(name, digest) for name, (digest, _) in written.items()]),
        "reads": _digest(reads),
        "facts": json.loads(canonical_json(facts or {})),
        "asked": asked,
    }
    _write(project, key, mark)
    return mark


def altered(
    project: ProjectFile,
    key: str,
    *,
    hashes: Mapping[str, str],
    facts: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda before: before,
) -> str | None:
    """What has changed since a mark was written, in a few words; None where nothing has.

    Changed code is said last, as `CODE_CHANGED`: commands that only note it must not miss the rest.
    `facts` is called last, with the facts of the mark, and returns those of today. Facts whose names begin
    with `_` are not compared; they save the function from checking everything again.
    """
    mark = read_mark(project, key)
    if mark is None:
        return "it has not been run"
    if mark.get("format") != FORMAT:
        return "it was run by an earlier version"
    changed = [name for name in hashes if mark["hashes"].get(name) != hashes[name]]
    if changed and changed != ["code"]:
        return f"its {next(name for name in changed if name != 'code')} changed"
    fresh = {}
    for name, (digest, seen) in mark["outputs"].items():
        path = project.run / name
        remember(path, digest, _signature(seen))
        now, current = content(path, rehash=seen is None or seen[0] <= _ALWAYS_HASHED)
        if now != digest:
            gone = "cannot be read" if os.path.lexists(path) else "is missing"
            return f"{name} {gone if now is None else 'was altered'}"
        fresh[name] = [digest, list(current) if current else None]
    reads = _reads(project, _reads_path(project, key), mark)
    if reads is None:
        return "the record of what it read is damaged"
    again = []
    for each in reads:
        note = _note(project, each)
        remember_note(note)
        now_note = note.again()
        if note.digest == CHANGED_MEANWHILE or now_note.digest != note.digest:
            return _difference(project, note, now_note)
        again.append(_stored(project, now_note))
    known = json.loads(canonical_json(facts(mark["facts"])))
    for name, value in known.items():
        if not name.startswith("_") and value != mark["facts"].get(name):
            return f"{name} changed"
    if changed:
        return CODE_CHANGED
    _refresh(project, key, {**mark, "outputs": fresh, "facts": known}, mark, reads, again)
    return None


def altered_outputs(project: ProjectFile, key: str) -> list[Path]:
    """The files that a stage wrote and that now have another content."""
    mark = read_mark(project, key)
    if mark is None or mark.get("format") != FORMAT:
        return []
    found = []
    for name, (digest, seen) in mark["outputs"].items():
        path = project.run / name
        remember(path, digest, _signature(seen))
        now, _ = content(path, rehash=seen is None or seen[0] <= _ALWAYS_HASHED)
        if path.is_file() and now != digest:
            found.append(path)
    return found


def remember_note(note: Note) -> None:
    """Remember the hash of a whole file from a note: it is not hashed again while its signature holds."""
    if note.kind == "file":
        remember(Path(note.path), note.digest, note.signature)


def remove_mark(project: ProjectFile, key: str) -> None:
    """Remove a mark, so that its stage counts as not run."""
    _path(project, key).unlink(missing_ok=True)
    _reads_path(project, key).unlink(missing_ok=True)


def _refresh(
    project: ProjectFile,
    key: str,
    mark: Mark,
    before: Mark,
    reads_before: list[Any],
    reads: list[Any],
) -> None:
    """Store new signatures of unchanged contents, so that nothing is hashed next time."""
    with suppress(OSError):  # a read-only folder can still be read
        if reads != reads_before:
            _write_reads(project, key, reads)
        if mark != before:
            _write(project, key, mark)


def _digest(reads: Collection[Any]) -> str:
    """The hash of the reads, without signatures."""
    return hash_json([each[:4] for each in reads])


def _stored(project: ProjectFile, note: Note) -> list[Any]:
    seen = list(note.signature) if note.signature else None
    return [note.kind, _place(project, note.path), note.detail, note.digest, seen]


def _note(project: ProjectFile, stored: list[Any]) -> Note:
    kind, place, detail, digest, seen = stored
    return Note(kind, _absolute(project, place), detail, digest, _signature(seen))


def _signature(seen: list[int] | None) -> Signature | None:
    return None if seen is None else (seen[0], seen[1], seen[2], seen[3])


def _place(project: ProjectFile, path: str) -> str:
    folder, installed = f"{project.path.parent}/", f"{sys.prefix}/"
    if path.startswith(folder):
        return path.removeprefix(folder)
    if path.startswith(installed):
        return f"{_INSTALLED}/{path.removeprefix(installed)}"
    return path


def _absolute(project: ProjectFile, place: str) -> str:
    if place.startswith(f"{_INSTALLED}/"):
        return f"{sys.prefix}/{place.removeprefix(f'{_INSTALLED}/')}"
    return str(project.path.parent / place)


def _difference(project: ProjectFile, note: Note, now: Note) -> str:
    place = _place(project, note.path)
    if note.kind == "names":
        return f"the files {place}/{note.detail} are others"
    if now.digest is None:
        return f"{place} is missing"
    return f"{place} {'is new' if note.digest is None else 'changed'}"


def _path(project: ProjectFile, key: str) -> Path:
    return project.run / "stages" / f"{key}.json"


def _reads_path(project: ProjectFile, key: str) -> Path:
    return project.run / "stages" / f"{key}.reads.json"
