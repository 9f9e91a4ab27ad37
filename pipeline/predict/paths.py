"""The arguments of `unibind predict`: the files in a folder, and why a path cannot be read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.modality import guess_modality

MOST_FILES = 10_000  # of one folder; for more, use a manifest and `unibind run`
_MOST_SKIPPED = 100_000  # after that many other entries the search of a folder stops
_MOST_ENDINGS = 5  # named in a note


@dataclass
class Folder:
    """The files of a folder to recognise, sorted by path, and counts of what was left out."""

    path: Path
    files: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> count
    endings: Counter[str] = field(default_factory=Counter)  # of files with an unknown ending
    cut: bool = False  # there are more than the limit

    def to_text(self) -> str:
        """The number of files, and what was left out, in one line."""
        files = f"{len(self.files):,} file{'' if len(self.files) == 1 else 's'}"
        parts = [f"{self.path}: {files}"]
        if self.skipped:
            reasons = ", ".join(self._why(why, count) for why, count in sorted(self.skipped.items()))
            parts.append(f"skipped: {reasons}")
        if self.cut:
            parts.append("the rest is left out")
        return "; ".join(parts)

    def _why(self, why: str, count: int) -> str:
        if why != UNKNOWN:
            return f"{why} {count:,}"
        some = ", ".join(ending or "none" for ending, _ in self.endings.most_common(_MOST_ENDINGS))
        more = ", …" if len(self.endings) > _MOST_ENDINGS else ""
        return f"{why} ({some}{more}) {count:,}"


UNKNOWN = "unknown ending"


def files_in(folder: Path, *, modality: str | None = None) -> Folder:
    """The files of a folder and of its sub-folders that can be recognised, at most `MOST_FILES`.

    Files whose name shows their modality, or all files where `modality` is given. Left out and counted:
    unknown endings, hidden files and folders, links to folders, files that are not regular, and unreadable
    sub-folders.
    """
    found = Folder(folder)
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        folders.sort()
        for name in list(folders):
            if name.startswith(".") or (Path(parent) / name).is_symlink():
                folders.remove(name)
                found.skipped["hidden" if name.startswith(".") else "links to folders"] += 1
        for name in sorted(files):
            path = Path(parent) / name
            why = _left_out(path, modality)
            if why is None and len(found.files) == MOST_FILES:
                found.cut = True
            elif why is None:
                found.files.append(path)
            else:
                found.skipped[why] += 1
                if why == UNKNOWN:
                    found.endings[path.suffix.lower()] += 1
        if found.cut or found.skipped.total() > _MOST_SKIPPED:
            found.cut = True
            break
    for error in refused:
        found.skipped[f"folders that cannot be read ({error.strerror})"] += 1
    return found


def _left_out(path: Path, modality: str | None) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "links to nothing"
    except OSError as error:
        return f"files that cannot be read ({error.strerror})"
    if not stat.S_ISREG(mode):
        return "not regular files"
    return UNKNOWN if modality is None and guess_modality(path) is None else None


def unreadable(path: Path) -> str | None:
    """Why a path cannot be read as a file; None where it can."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return "is a folder; name the files in it"
        if not stat.S_ISREG(status.st_mode):
            return "is a pipe, a socket or a device; save its content as a file"
        if status.st_size == 0:
            return "is empty (0 bytes)"
        with path.open("rb"):
            return None
    except FileNotFoundError:
        if path.is_symlink():
            return f"is a link to {path.readlink()}, which does not exist"
        return _no_such_file(path)
    except ValueError:  # a null byte
        return "is not a path"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _no_such_file(path: Path) -> str:
    """The reason for a missing file, with the nearest existing folder if its own is missing."""
    if path.parent.is_dir():
        return "no such file"
    there = next((parent for parent in path.parents if parent.is_dir()), None)
    return "no such file" if there is None else f"no such file; the path exists up to {there.resolve()}"


def each_file(
    given: Iterable[tuple[Path, str | None]], say: Callable[[str], None]
) -> Iterator[tuple[Path, str | None, str | None]]:
    """Yield every file to recognise with its modality, if given, and why it cannot be read, if so.

    A folder means the files in it; `say` is called with what was left out. A folder without any file, or with
    more than `MOST_FILES`, is yielded itself with a reason, after its files.
    """
    for path, modality in given:
        if not os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
            yield path, modality, unreadable(path)
            continue
        folder = files_in(path, modality=modality)
        say(folder.to_text())
        for file in folder.files:
            yield file, modality, unreadable(file)
        if folder.cut:
            yield path, modality, f"holds more than {MOST_FILES:,} files; name its sub-folders one by one"
        elif not folder.files:
            yield path, modality, "no file in this folder can be recognised"
