"""What a finished stage leaves to be recognised by: `<run>/stages/<name>.json` and `<name>.reads.json`.

A mark holds the hashes of the stage's settings and code, its counts, and of every file it wrote the SHA-256;
the file beside it holds what was read (data/reads.py). A stage is current while all of that holds. A file is
hashed again only where its signature has changed; a mark whose signatures are out of date is refreshed.

Paths inside the project's folder are kept relative to it, those of installed packages relative to the
installation, and others as they are: the folder may be moved, with what the project file names relatively.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.files import Signature, canonical_json, hash_json, write_json, write_text
from data.reads import CHANGED_MEANWHILE, Note, content, remember
from pipeline.project import ProjectFile

FORMAT = 3  # 1 knew no reads, 2 no checksums of its own
_READ_ANEW = 64 * 2**20  # bytes: a file written by a stage is believed by its signature only where larger
_EARLIER = (1, 2)
_INSTALLED = "<installed>"


def read_mark(project: ProjectFile, key: str) -> dict[str, Any] | None:
    """The mark of a finished stage or shard, or None; one that is damaged, or of another stage, is none.

    Of an earlier version's mark, only `format` and `seconds` can be relied on.
    """
    mark = _read(_path(project, key))
    if mark is None:
        return None
    if mark.get("format") == FORMAT:
        claimed = mark.pop("sha256", None)
        return mark if claimed == hash_json(mark) and mark["key"] == key else None
    usable = isinstance(mark.get("seconds"), int | float) and isinstance(mark.get("summary"), dict)
    return mark if usable and mark.get("format", 1) in _EARLIER else None


def marks(project: ProjectFile) -> list[tuple[str, dict[str, Any]]]:
    """Every mark that can be read, by stage or shard."""
    paths = sorted((project.run / "stages").glob("*.json"))
    keys = (path.name.removesuffix(".json") for path in paths if not path.name.endswith(".reads.json"))
    return [(key, mark) for key in keys if (mark := read_mark(project, key)) is not None]


def damaged_marks(project: ProjectFile) -> list[tuple[Path, str]]:
    """The files of marks that are not as they were written, and how."""
    found = []
    for path in sorted((project.run / "stages").glob("*")):
        if path.name.startswith("."):
            continue
        key, reads = path.name.removesuffix(".json"), path.name.endswith(".reads.json")
        if not path.is_file() or path.suffix != ".json":
            found.append((path, "no file of ours"))
        elif reads:
            mark = read_mark(project, key.removesuffix(".reads"))
            if mark is not None and mark.get("format") == FORMAT and _reads(project, path, mark) is None:
                found.append((path, "damaged: its checksum does not fit; its stage will run again"))
        elif (mark := read_mark(project, key)) is None:
            found.append((path, "damaged: its checksum does not fit; its stage will run again"))
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
    """A JSON object of a plain file, or None."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reads(project: ProjectFile, path: Path, mark: Mapping[str, Any]) -> list[Any] | None:
    """What a stage read, as it is stored; None where the file is damaged or not this mark's."""
    value = _read(path)
    if value is None or not isinstance(value.get("notes"), list):
        return None
    notes: list[Any] = value["notes"]
    whole = value.get("sha256") == hash_json(notes) and _digest(notes) == mark["reads"]
    return notes if whole else None


def _write_reads(project: ProjectFile, key: str, notes: list[Any]) -> None:
    text = canonical_json({"notes": notes, "sha256": hash_json(notes)})
    write_text(_reads_path(project, key), text + "\n")


def _write(project: ProjectFile, key: str, mark: dict[str, Any]) -> None:
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
) -> dict[str, Any]:
    """Mark a stage as done: `hashes` of its settings and code, what it read, what it wrote."""
    written: dict[str, tuple[str, list[int] | None]] = {}  # SHA-256, signature
    for path in sorted(outputs):
        digest, seen = content(path)
        if digest is not None:
            written[path.relative_to(project.run).as_posix()] = digest, list(seen) if seen else None
    reads = [_stored(project, note) for note in notes]
    _write_reads(project, key, reads)
    mark: dict[str, Any] = {
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
    """Why a mark does not hold, in a few words; None where it holds.

    `facts` is asked last, with those of the mark: what must hold beside files. Those whose names begin with
    `_` only help it not to look at everything again.
    """
    mark = read_mark(project, key)
    if mark is None:
        return "it has not been run"
    if mark.get("format") != FORMAT:
        return "it was run by an earlier version"
    for name in hashes:
        if mark["hashes"].get(name) != hashes[name]:
            return f"its {name} changed"
    fresh = {}
    for name, (digest, seen) in mark["outputs"].items():
        path = project.run / name
        remember(path, digest, _signature(seen))
        now, current = content(path, rehash=seen is None or seen[0] <= _READ_ANEW)
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
            return _told(project, note, now_note)
        again.append(_stored(project, now_note))
    known = json.loads(canonical_json(facts(mark["facts"])))
    for name, value in known.items():
        if not name.startswith("_") and value != mark["facts"].get(name):
            return f"{name} changed"
    _refresh(project, key, {**mark, "outputs": fresh, "facts": known}, mark, reads, again)
    return None


def spoiled(project: ProjectFile, key: str) -> list[Path]:
    """The files that a stage wrote and that are there with another content."""
    mark = read_mark(project, key)
    if mark is None or mark.get("format") != FORMAT:
        return []
    found = []
    for name, (digest, seen) in mark["outputs"].items():
        path = project.run / name
        remember(path, digest, _signature(seen))
        now, _ = content(path, rehash=seen is None or seen[0] <= _READ_ANEW)
        if path.is_file() and now != digest:
            found.append(path)
    return found


def remember_note(note: Note) -> None:
    """Take over what a note says of a whole file: it is not hashed again while its signature holds."""
    if note.kind == "file":
        remember(Path(note.path), note.digest, note.signature)


def reads_of(project: ProjectFile, key: str) -> list[Note]:
    """What a finished stage read. Empty where it left no record."""
    mark = read_mark(project, key)
    if mark is None or mark.get("format") != FORMAT:
        return []
    return [_note(project, each) for each in _reads(project, _reads_path(project, key), mark) or ()]


def remove_mark(project: ProjectFile, key: str) -> None:
    """Let a stage count as not run."""
    _path(project, key).unlink(missing_ok=True)
    _reads_path(project, key).unlink(missing_ok=True)


def _refresh(
    project: ProjectFile,
    key: str,
    mark: dict[str, Any],
    before: dict[str, Any],
    reads_before: list[Any],
    reads: list[Any],
) -> None:
    """Keep signatures that have settled, or changed with the same content: next time nothing is hashed."""
    with suppress(OSError):  # a folder that cannot be written is read all the same
        if reads != reads_before:
            _write_reads(project, key, reads)
        if mark != before:
            _write(project, key, mark)


def _digest(reads: Collection[Any]) -> str:
    """The hash of what was read, without the signatures."""
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


def _told(project: ProjectFile, note: Note, now: Note) -> str:
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
