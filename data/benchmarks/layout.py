"""Finds the parts of a benchmark in its folder; errors say what was expected where, and what was found."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from data.errors import ManifestError
from data.tables.read import parse_json, read_text

T = TypeVar("T")

_SHOWN = 3  # names listed in a message
_PLACES_SHOWN = 4
_UNFIT = re.compile("[\n\r\t\ud800-\udfff]")  # lone surrogates represent bytes that are not UTF-8
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z")


def require_root(root: Path) -> None:
    """Raise ManifestError where the benchmark's folder is missing, or an archive."""
    if root.name.lower().endswith(_PACKED) and root.is_file():
        raise ManifestError(f"{root}: an archive; unpack it and pass the resulting folder as --data")
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; pass the folder of the unpacked benchmark as --data")


def require_folder(root: Path, *places: str, what: str) -> Path:
    """The first of some sub-folders that exists (`"."` is `root` itself); else raises ManifestError.

    The message says what was found instead: another spelling, the same folder one level deeper or higher, or
    an archive that is still packed.
    """
    require_root(root)
    for place in places:
        if (root / place).is_dir():
            return root / place
    raise ManifestError(f"{root}: expected {what} in {_either(places)}; {_instead(root, places)}")


def require_file(root: Path, *places: str, what: str) -> Path:
    """The first of some files that exists; else raises ManifestError, which says what was found instead."""
    found = find_file(root, *places)
    if found is None:
        raise ManifestError(
            f"{root}: expected {what} in the file {_either(places)}; {_instead(root, places)}"
        )
    return found


def find_file(root: Path, *places: str) -> Path | None:
    """The first of some files that exists, or None."""
    return next((root / place for place in places if (root / place).is_file()), None)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones. Raises ManifestError where it cannot be listed."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise ManifestError(f"{folder}: cannot be listed: {error.strerror}") from None


def folders_in(folder: Path) -> list[str]:
    """The names of a folder's sub-folders, sorted. Raises ManifestError for one that no manifest can hold."""
    return _fit(folder, [name for name in names_in(folder) if (folder / name).is_dir()])


def files_in(folder: Path, endings: Collection[str]) -> list[str]:
    """The names of a folder's files with one of some endings (in lower case), sorted.

    Raises ManifestError for a name that no manifest can hold.
    """
    return _fit(folder, [name for name in names_in(folder) if Path(name).suffix.lower() in endings])


def require_fit(path: Path) -> None:
    """Raise ManifestError for a path that is not UTF-8, or contains a line break or tab."""
    if _UNFIT.search(str(path)):
        raise ManifestError(f"{str(path)!r}: not UTF-8, or with a line break or tab in its name; rename it")


def _fit(folder: Path, names: list[str]) -> list[str]:
    unfit = next((name for name in names if _UNFIT.search(name)), None)
    if unfit is not None:
        require_fit(folder / unfit)
    return names


def require_classes(where: Path, found: Collection[str], known: Collection[str], *, partial: bool) -> None:
    """Raise ManifestError where a split's class folders differ from the list of classes.

    Unknown folders, or none at all, are always refused; missing ones unless `partial`.
    """
    unknown = sorted(set(found) - set(known))
    if unknown:
        folded = {name.casefold(): name for name in known}
        meant = [f"{name} ({folded[name.casefold()]})" for name in unknown if name.casefold() in folded]
        hint = f"; rename to the spelling in brackets: {_some(meant)}" if meant else ""
        raise ManifestError(
            f"{where}: expected the {len(known):,} class folders of the benchmark; found {len(unknown):,}"
            f" that {'is' if len(unknown) == 1 else 'are'} not among them: {_some(unknown)}{hint}"
        )
    missing = sorted(set(known) - set(found))
    if not found or (missing and not partial):
        raise ManifestError(
            f"{where}: expected {len(known):,} class folders; found {len(found):,}, without {_some(missing)};"
            f"{packed_hint(where)}{_PARTIAL}"
        )


def require_count(where: Path, found: int, expected: int, what: str, *, partial: bool) -> None:
    """Raise ManifestError for a split without files, or, unless `partial`, with fewer than `expected`."""
    if not found or (found < expected and not partial):
        raise ManifestError(
            f"{where}: expected {expected:,} {what}; found {found:,};{packed_hint(where)}{_PARTIAL}"
        )


def note_label(labels: dict[str, T], uri: str, label: T, listed: Path) -> None:
    """`labels[uri] = label`. A repeated row counts once. Raises ManifestError where two labels differ."""
    if labels.setdefault(uri, label) != label:
        raise ManifestError(
            f"{listed}: {uri} is listed twice, as {labels[uri]} and as {label}; fetch the list again"
        )


def keep_present(
    root: Path, uris: Sequence[str], *, listed_in: Path, partial: bool, what: str = "files"
) -> list[str]:
    """The listed uris whose files exist. Raises ManifestError where files are missing, unless `partial`.

    Each folder is read once. A file whose name differs only in upper and lower case is refused even with
    `partial`: it is not missing.
    """
    here = _Listings(root)
    missing = [uri for uri in uris if not here.has(uri)]
    misspelt = next(((uri, spelt) for uri in missing if (spelt := here.spelt_otherwise(uri))), None)
    if missing and (misspelt or not partial or len(missing) == len(uris)):
        first, spelt = misspelt or (missing[0], None)
        found = f"it exists as {spelt}: rename it" if spelt else f"no such file;{packed_hint(root)}{_PARTIAL}"
        raise ManifestError(
            f"{root}: expected the {len(uris):,} {what} that {listed_in.name} lists; {len(missing):,}"
            f" {'is' if len(missing) == 1 else 'are'} missing, such as {first}: {found}"
        )
    lost = set(missing)
    return [uri for uri in uris if uri not in lost]


def missing_note(listed: int, kept: int, what: str) -> tuple[str, ...]:
    """The note on what `partial` skipped; () where nothing was."""
    return (f"{listed - kept:,} of {listed:,} {what} are missing and were skipped",) if kept < listed else ()


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file, stripped. Raises ManifestError where it is not text, or empty."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ManifestError(f"{path}: expected a list, one entry a line; found an empty file")
    return lines


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file. Raises ManifestError where it is not CSV, lacks a column, or has no row."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except csv.Error as error:
        raise ManifestError(f"{path}: not valid CSV near line {reader.line_num}: {error}") from None
    header = reader.fieldnames or ()
    lacking = [name for name in columns if name not in header]
    if lacking or not rows:
        raise ManifestError(
            f"{path}: expected rows with the columns {', '.join(columns)}; found {len(rows):,} rows with"
            f" {', '.join(header) or 'no header'}"
        )
    return rows


def read_json(path: Path) -> object:
    """The content of a JSON file. Raises ManifestError where it is not valid JSON."""
    try:
        value: object = parse_json(read_text(path))
    except ValueError as error:
        raise ManifestError(f"{path}: not valid JSON: {error}") from None
    return value


def number(text: str, path: Path, what: str) -> int:
    """Text of a list as an integer. Raises ManifestError where it is not one."""
    try:
        return int(text)
    except ValueError:
        raise ManifestError(f"{path}: expected a whole number as {what}; found {text!r}") from None


def known_or_refuse(name: str, known: Collection[str], path: Path, what: str) -> str:
    """`name`, if it is one of the known ones; else raises ManifestError."""
    if name not in known:
        raise ManifestError(f"{path}: expected one of the {len(known):,} {what}; found {name!r}")
    return name


_PARTIAL = " copy the rest, or use the incomplete copy with --partial, which marks the result"


class _Listings:
    """File names under a root; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}
        self._folded: dict[str, dict[str, str]] = {}  # lower-case spelling -> the first real one

    def _of(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            path = self._root / folder
            self._names[folder] = frozenset(os.listdir(path) if path.is_dir() else ())  # noqa: PTH208  (names only)
        return self._names[folder]

    def has(self, uri: str) -> bool:
        folder, _, name = uri.rpartition("/")
        return name in self._of(folder)

    def spelt_otherwise(self, uri: str) -> str | None:
        """An existing path that differs only in upper and lower case, or None."""
        found = ""
        for part in uri.split("/"):
            if found not in self._folded:
                names = sorted(self._of(found), reverse=True)
                self._folded[found] = {name.casefold(): name for name in names}
            match = self._folded[found].get(part.casefold())
            if match is None:
                return None
            found = f"{found}/{match}".lstrip("/")
        return found


def _instead(root: Path, places: Iterable[str]) -> str:
    """What was found instead of the expected places: another spelling, another level, or other entries."""
    require_root(root)
    here = _Listings(root)
    for place in places:
        spelt = here.spelt_otherwise(place)
        if spelt and spelt != place:
            return f"found {spelt}: rename it"
    names = names_in(root)
    for name in names:
        if (root / name).is_dir() and any((root / name / place).exists() for place in places if place != "."):
            return f"found it one level deeper: pass --data {root / name}"
    above = root.absolute().parent
    if any((above / place).exists() for place in places if place != "."):
        return f"found it one level higher: pass --data {above}"
    found = f"found {len(names):,} entries{': ' + _some(names) if names else ''}"
    return f"{found};{packed_hint(root)}".rstrip(";")


def packed_hint(folder: Path) -> str:
    """A hint to unpack the archives in a folder, as a clause of a message; "" without archives."""
    names = names_in(folder) if folder.is_dir() else []
    archives = [name for name in names if name.lower().endswith(_PACKED)]
    if not archives:
        return ""
    be, it = ("is", "it") if len(archives) == 1 else ("are", "them")
    return f" {_some(archives)} {be} still packed: unpack {it};"


def _either(places: Sequence[str]) -> str:
    shown = ["the folder itself" if place == "." else place for place in places[:_PLACES_SHOWN]]
    rest = len(places) - len(shown)
    return " or ".join([*shown, f"{rest} more places"] if rest else shown)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def walk_classes(
    split: Path, classes: Iterable[str], endings: Collection[str], inside: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """(class, uri) of every file in the class folders of a split; `inside` gives the sub-path of a class."""
    for name in classes:
        folder = inside(name)
        if (split / folder).is_dir():
            for file in files_in(split / folder, endings):
                yield name, f"{folder}/{file}"
