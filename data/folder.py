"""A folder of files as a dataset: its sub-folders are the categories. What `unibind init photos/` reads."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.category_ids import best_spelling, category_ids, name_key, notes_on_names, spelt
from data.errors import ManifestError
from data.modality import EXTENSIONS, Modality, guess_modality
from data.sample import Category, Sample, Split

TRAIN_SHARE, VAL_SHARE = 0.6, 0.2  # the rest is test


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds, and the files that were left out: (path relative to the folder, why)."""

    samples: tuple[Sample, ...]
    categories: tuple[Category, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()  # which folders are one category, and which only look alike


def survey_folder(folder: Path, *, modality: Modality | None = None) -> FolderScan:
    """Read a folder's files as samples; each direct sub-folder is a category, at any depth below it.

    A category is named as its sub-folder, underscores read as spaces (`data.category_ids` says which names
    are one). A file's modality is `modality`, else guessed from its name. Hidden files, links that are
    folders, files of unknown endings, and files beside the sub-folders are skipped and listed. In a folder
    without sub-folders the files have no category.

    The split is 60/20/20 within each category and modality, by rank of the SHA-256 of the path: the same
    folder is always split alike, whatever order the disk lists it in. Of two files one is test; a single
    file is test.

    Raises ManifestError where there is no such folder or no sample in it.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder")
    skipped: list[tuple[str, str]] = []
    found: list[tuple[str, Modality]] = []
    for uri, why in _walk(folder):
        kind = None if why else (modality or guess_modality(Path(uri)))
        if kind is None:
            skipped.append((uri, why or f"unknown ending {Path(uri).suffix or '(none)'!r}"))
        else:
            found.append((uri, kind))
    if any("/" in uri for uri, _ in found):
        skipped += [(uri, "beside the category folders") for uri, _ in found if "/" not in uri]
        found = [(uri, kind) for uri, kind in found if "/" in uri]
    if not found:
        raise ManifestError(
            f"{folder}: no sample in it ({len(skipped)} files skipped); known endings: {' '.join(EXTENSIONS)}"
        )
    categories, notes = folder_categories({uri.split("/")[0] for uri, _ in found if "/" in uri})
    groups: dict[tuple[str | None, Modality], list[str]] = defaultdict(list)
    for uri, kind in found:
        category = categories[uri.split("/")[0]].category_id if "/" in uri else None
        groups[category, kind].append(uri)
    samples = [
        Sample(uri, kind, uri, split, category)
        for (category, kind), uris in groups.items()
        for uri, split in _split(uris)
    ]
    return FolderScan(
        tuple(sorted(samples, key=lambda sample: sample.sample_id)),
        tuple(sorted(set(categories.values()), key=lambda category: category.category_id)),
        tuple(sorted(skipped)),
        notes,
    )


def _walk(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Every file as its path relative to `folder`, with `/`, and why it cannot be a sample, or None."""
    real_root = os.path.realpath(folder) + os.sep
    for parent, folders, files in os.walk(folder):
        for name in sorted(folders):
            path = Path(parent) / name
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
                why = "a hidden folder" if name.startswith(".") else "a link to a folder"
                yield f"{path.relative_to(folder).as_posix()}/", why
        for name in sorted(files):
            path = Path(parent) / name
            uri = path.relative_to(folder).as_posix()
            if name.startswith("."):
                yield uri, "hidden"
            elif not _is_plain(uri):
                yield uri.encode("utf-8", "backslashreplace").decode(), "a name that a manifest cannot hold"
            elif not (os.path.realpath(path) + os.sep).startswith(real_root):
                yield uri, "a link that leads outside the folder"
            elif not path.is_file():
                yield uri, "not a file"
            else:
                yield uri, None


def _is_plain(uri: str) -> bool:
    """Whether a manifest would give the same path back: UTF-8, no control characters, no outer spaces."""
    try:
        uri.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return uri == uri.strip() and "\\" not in uri and all(ord(letter) >= 32 for letter in uri)


def folder_categories(folders: Collection[str]) -> tuple[dict[str, Category], tuple[str, ...]]:
    """The category of each folder, and notes on their names.

    An underscore is read as a space, unless another folder has that name already.
    """
    literal = {name_key(folder) for folder in folders}
    spelling = {}
    for folder in folders:
        read = spelt(folder.replace("_", " ")) or folder
        taken = name_key(read) != name_key(folder) and name_key(read) in literal
        spelling[folder] = spelt(folder) if taken else read
    spellings: dict[str, set[str]] = defaultdict(set)
    for folder, name in spelling.items():
        spellings[name_key(name)].add(folder)
    ids = category_ids(spellings)
    named = {
        key: Category(ids[key], best_spelling([spelling[folder] for folder in each]))
        for key, each in spellings.items()
    }
    shown_as = {key: category.name for key, category in named.items()}
    categories = {folder: named[name_key(name)] for folder, name in spelling.items()}
    return categories, tuple(notes_on_names(spellings, shown_as))


def _split(uris: list[str]) -> list[tuple[str, Split]]:
    ranked = sorted(uris, key=lambda uri: hashlib.sha256(uri.encode()).digest())
    n_test = max(1, round(len(uris) * (1 - TRAIN_SHARE - VAL_SHARE)))
    n_val = round((len(uris) - n_test) * VAL_SHARE / (TRAIN_SHARE + VAL_SHARE))
    return [
        (uri, "test" if rank < n_test else "val" if rank < n_test + n_val else "train")
        for rank, uri in enumerate(ranked)
    ]
