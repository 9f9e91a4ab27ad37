"""Names from outside: paths that must stay inside their folder, and slugs of category names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from data.errors import SampleError

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")  # of POSIX and of Windows, wherever the manifest was made
_SEPARATOR = re.compile(r"[/\\]")


def slug(name: str) -> str:
    """The words of a name joined by hyphens: `"Ice cream"` gives `ice-cream`. Every script is kept.

    Empty for a name without a letter or digit. Different names can have the same slug; unique ids come from
    `data.manifest.ids`.
    """
    words: list[str] = []
    for letter in unicodedata.normalize("NFKC", name).casefold():
        if letter.isalnum() or (is_word_mark(letter) and words and words[-1] != "-"):
            words.append(letter)
        elif words and words[-1] != "-":
            words.append("-")
    return "".join(words).removesuffix("-")


def is_word_mark(letter: str) -> bool:
    """Whether a character is a combining mark within a word, such as the vowel signs of Hindi or accents."""
    return unicodedata.category(letter) in {"Mn", "Mc"} and not (
        "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"  # variation selectors
    )


def resolve(root: Path, uri: str) -> Path:
    """The path of `uri` under `root`. It need not exist.

    Raises SampleError where the path would lie outside `root`: absolute, with `..`, an address, or through a
    link that leads out.
    """
    return resolver(root)(uri)


def resolver(root: Path) -> Callable[[str], Path]:
    """`resolve` for many uris of one root: the real path of each folder is looked up once."""
    real_root = os.path.realpath(root)
    real_folders: dict[str, str] = {}

    def resolve_one(uri: str) -> Path:
        _check_form(uri)
        target = os.path.join(root, uri)  # noqa: PTH118  (a Path costs ten times as much, for every sample)
        folder = os.path.dirname(target)  # noqa: PTH120
        real_folder = real_folders.get(folder)
        if real_folder is None:
            real_folder = real_folders[folder] = os.path.realpath(folder)
        inside = _is_inside(real_folder, real_root)
        if inside and os.path.islink(target):  # noqa: PTH114
            inside = _is_inside(os.path.realpath(target), real_root)
        if not inside:
            raise SampleError(
                f"{uri!r} is or passes a link that leads outside the folder {root}; copy the file in"
            )
        return Path(target)

    return resolve_one


def is_absolute(uri: str) -> bool:
    """Whether a path is absolute on POSIX or on Windows, whichever system this is."""
    return bool(_ABSOLUTE.match(uri))


def _check_form(uri: str) -> None:
    if not uri or "\0" in uri:
        raise SampleError(f"{uri!r} is not a path")
    if "://" in uri:
        raise SampleError(f"{uri!r} is an address; download the file and give its path")
    if is_absolute(uri):
        raise SampleError(f"{uri!r} is absolute; give the path relative to the manifest's folder")
    if ".." in _SEPARATOR.split(uri):
        raise SampleError(f"{uri!r} contains '..'; samples must lie inside the manifest's folder")


def _is_inside(real_path: str, real_root: str) -> bool:
    return real_path == real_root or real_path.startswith(real_root.rstrip(os.sep) + os.sep)
