"""Reads a folder of files as a dataset, for `unibind init photos/`. folder/layout.py explains layouts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import ManifestError
from data.folder.layout import Layout, Role, may_have_modality, read_layout, unread_splits
from data.folder.objects import MediaFile, ObjectGroups, group_files
from data.folder.walk import LINK_BROKEN, LINK_FOLDER, LINK_OUT, PART, parts_of_meshes, root_of, walk
from data.manifest.ids import best_spelling, category_ids, is_blank, name_key, normal_spelling, notes_on_names
from data.modality import EXTENSIONS, Modality, guess_modality
from data.sample import Category, Sample, Split
from data.splits import SplitUnit, draw_splits, split_of_folder

# Names of documents beside the samples that describe none of them.
_PAPERS = re.compile(
    r"(?:[a-z]+[ _-])?(licen[cs]es?|readme|read[ _-]me|copying|copyright|credits?|authors?|notice|citation"
    r"|attributions?|changelog|requirements|class(es|[ _-]?names)|labels?|categories|file[ _-]?list)$",
    re.IGNORECASE,
)
_MASK = re.compile(
    r"(.+)[_-](?:masks?|seg|segmentation|labels?|gt|annotations?|trimap|depth|alpha|matte)", re.IGNORECASE
)
_SHOWN = 5  # example words of file names


@dataclass(frozen=True)
class FolderScan:
    """The dataset in a folder. `skipped`: files that were left out, as (path relative to the folder, reason);
    `notes`: what was read, drawn, grouped or found missing. The samples' uris are relative to `root`."""

    samples: tuple[Sample, ...]
    categories: tuple[Category, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    root: Path


def survey_folder(
    folder: Path, *, modality: Modality | None = None, by_name: bool = False, follow_links: bool = False
) -> FolderScan:
    """Read a folder's files as samples. Sub-folders are categories, splits or modalities (folder/layout.py).

    A category has the name of its sub-folder, underscores read as spaces (`data.manifest.ids` says which
    names are the same); with `by_name` the first word of the file names. A file's modality is `modality`,
    else that of its folder or of its name. Hidden files, links to folders or outside the folder, files of
    unknown endings, textures of meshes, and files beside sub-folders are skipped and listed. With
    `follow_links` links are followed, and `root` is the folder that holds all of their targets. In a folder
    without sub-folders the files have no category.

    Files of the same object share an `object_id` (`data.folder.objects`) and, where no folder gives the
    split, a drawn split (`data.splits`).

    Raises ManifestError where the folder does not exist or contains no sample.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder")
    kinds, skipped = _files_of(folder, modality, follow_links=follow_links)
    layout = read_layout(kinds)
    if not by_name and any("/" in uri for uri in kinds):
        skipped += [(uri, "beside the sub-folders") for uri in kinds if "/" not in uri]
        kinds = {uri: kind for uri, kind in kinds.items() if "/" in uri}
    if not kinds:
        raise ManifestError(_no_sample_message(folder, skipped))
    notes = _layout_notes(layout, kinds, by_name=by_name)
    if not by_name:
        notes += _deeper(layout, kinds)
    if modality is None:
        kinds, changes = _modalities_by_folder(layout, kinds)
        notes += changes
    names = {uri: first_word(uri) if by_name else layout.category(uri) for uri in kinds}
    words = sorted(
        {name for name in names.values() if name is not None and split_of_folder(name) is not None}
    )
    if by_name and words:
        notes.append(
            f"{', '.join(words)} at the beginning of the names {'is' if len(words) == 1 else 'are'} read as"
            f" {'a category' if len(words) == 1 else 'categories'}, not as splits; use folders for splits"
        )
    categories, on_names = folder_categories({name for name in names.values() if name is not None})
    notes += on_names
    files = [
        MediaFile(uri, kind, None if (name := names[uri]) is None else categories[name].category_id)
        for uri, kind in sorted(kinds.items())
    ]
    groups = group_files(files, folder)
    splits, on_splits = _splits(files, groups, layout)
    notes += [*on_splits, *groups.notes, *_masks(kinds), *_missing(files, by_name=by_name)]
    root, before = root_of(folder, kinds) if follow_links else (folder, "")
    if before:
        notes.append(f"links lead outside {folder}: files are read below {root}")
    object_ids = groups.shared()
    samples = tuple(
        Sample(
            sample_id=file.uri,
            modality=file.modality,
            uri=before + file.uri,
            split=splits[file.uri],
            category_id=file.category,
            object_id=object_ids.get(file.uri),
        )
        for file in files
    )
    listed = tuple(sorted(set(categories.values()), key=lambda category: category.category_id))
    return FolderScan(samples, listed, tuple(sorted(skipped)), tuple(notes), root)


def _files_of(
    folder: Path, modality: Modality | None, *, follow_links: bool
) -> tuple[dict[str, Modality], list[tuple[str, str]]]:
    """The modality of every file that can be a sample, by uri; and the skipped files, with reasons."""
    kinds: dict[str, Modality] = {}
    skipped: list[tuple[str, str]] = []
    found = dict(walk(folder, follow_links=follow_links))
    parts = parts_of_meshes(folder, [uri for uri, why in found.items() if why is None])
    for uri, why in found.items():
        kind = modality or guess_modality(folder / uri)
        if why is not None:
            skipped.append((uri, why))
        elif uri in parts or (kind is None and Path(uri).suffix.lower() == ".mtl"):
            skipped.append((uri, PART))
        elif modality is None and kind == "text" and _PAPERS.match(Path(uri).stem):
            skipped.append((uri, "a licence, readme or list, by its name"))
        elif kind is None:
            skipped.append((uri, f"unknown ending {Path(uri).suffix or '(none)'!r}"))
        else:
            kinds[uri] = kind
    return kinds, skipped


def _no_sample_message(folder: Path, skipped: Sequence[tuple[str, str]]) -> str:
    if not skipped:
        return f"{folder}: no sample in it: the folder is empty"
    counts = Counter(why for _, why in skipped)
    reasons = "; ".join(f"{count} × {why}" for why, count in counts.most_common())
    remedies = [link_remedy(why, folder) for why in counts]
    if any(why.startswith("unknown ending") for why in counts):
        remedies.append(
            f"Known endings: {' '.join(EXTENSIONS)}; `--modality M` reads any file as that modality"
        )
    return ". ".join(
        [f"{folder}: no sample in it: {reasons}", *dict.fromkeys(each for each in remedies if each)]
    )


def link_remedy(why: str, folder: Path) -> str | None:
    """How to include files that were skipped because of links; None for other reasons."""
    if why in {LINK_OUT, LINK_FOLDER}:
        return f"To follow the links: `unibind init {folder} --follow-links`; or copy: `cp -rL {folder} COPY`"
    if why == LINK_BROKEN:
        return "Fetch the files that the links lead to first (`git annex get`, `dvc pull`, `git lfs pull`)"
    return None


def first_word(uri: str) -> str | None:
    """The first word of a file's name (`dog` of `dog_1.jpg` and of `Dog12.wav`); None for a bare number."""
    stem = PurePosixPath(uri).stem
    word = re.split(r"[\s_\-.,()\[\]]+", stem.strip(" _-.,()[]"))[0].casefold()
    if re.search(r"[^\W\d_]", word):
        return re.sub(r"\d+$", "", word)
    return word if word and word != stem else None


def _layout_notes(layout: Layout, uris: Collection[str], *, by_name: bool) -> list[str]:
    """How the sub-folders were read, unless they are simply categories."""
    if words := unread_splits(layout, uris):
        return [f"{', '.join(words)} are not read as splits, because other folders or files lie beside them"]
    if layout.roles in {(), ("category",)}:
        return []
    order = "/".join(
        {"around": "FOLDER", "category": "FOLDER" if by_name else "CATEGORY"}.get(role, role.upper())
        for role in layout.roles
    )
    lines = [f"sub-folders are read as {order}/"]
    said: tuple[tuple[Role, Callable[[str], str | None]], ...]
    said = (("split", layout.split), ("modality", layout.modality))
    for role, what in said:
        if layout.has(role):
            meant = {layout.folder(role, uri): what(uri) for uri in uris}
            pairs = ", ".join(f"{name} → {meaning}" for name, meaning in sorted(meant.items(), key=str))
            lines.append(f"{role} by folder: {pairs}")
    return [f"{'; '.join(lines)}. If these are categories, rename a folder"]


def _deeper(layout: Layout, uris: Iterable[str]) -> list[str]:
    """A note on files in sub-folders of categories, whose names are not read: animals/dog/1.jpg."""
    found = sorted(uri for uri in uris if layout.has("category") and uri.count("/") > len(layout.roles))
    if not found:
        return []
    count = "1 file lies" if len(found) == 1 else f"{len(found)} files lie"
    return [
        f"{count} in a sub-folder of a category, such as {found[0]} of {layout.category(found[0])!r}: such"
        " sub-folders are not read as categories"
    ]


def _masks(uris: Collection[str]) -> list[str]:
    """A note on pictures named like the mask of a picture beside them, which are samples like any other."""
    stems = {PurePosixPath(uri).with_suffix("") for uri in uris}
    found = [
        uri
        for uri in sorted(uris)
        if (name := _MASK.fullmatch(PurePosixPath(uri).stem)) is not None
        and PurePosixPath(uri).with_name(name[1]) in stems
    ]
    if not found:
        return []
    count = "1 file is" if len(found) == 1 else f"{len(found)} files are"
    return [
        f"{count} named like a mask, a depth map or labels of another, such as {found[0]}, and read as"
        " samples; move them out of the folder if they are none"
    ]


def _modalities_by_folder(
    layout: Layout, kinds: Mapping[str, Modality]
) -> tuple[dict[str, Modality], list[str]]:
    """The modality of each file by its folder, where its ending allows it; and notes on the changes."""
    changed: Counter[str] = Counter()
    found = dict(kinds)
    for uri, kind in kinds.items():
        said = layout.modality(uri)
        if said is not None and said != kind and may_have_modality(kind, said):
            found[uri] = said
            changed[f"{said}, not {kind}"] += 1
    return found, [
        f"{count} files are {what}: by the name of their folder" for what, count in sorted(changed.items())
    ]


def _splits(
    files: Sequence[MediaFile], groups: ObjectGroups, layout: Layout
) -> tuple[dict[str, Split], list[str]]:
    """The split of each file, by folder or drawn; and notes on how."""
    given = {file.uri: split for file in files if (split := layout.split(file.uri)) is not None}
    there = set(given.values())
    if there and there != {"train"}:
        notes = []
        if "test" not in there and "val" in there:
            given = {uri: "test" if split == "val" else split for uri, split in given.items()}
            notes.append("no test folder: the val samples are used as test, the split that is scored")
        elif "train" in there and "val" not in there:
            notes.append("no val folder: training keeps the last epoch")
        notes += _leaks(given, groups)
        return given, [f"splits by folder: {_count(given.values())}", *notes]
    drawn = draw_splits(split_units(files, groups.key_of))
    splits = {file.uri: drawn[groups.key_of[file.uri]] for file in files}
    why = "only a train folder: " if there else ""
    return splits, [f"{why}splits drawn by object, 60/20/20 in each category: {_count(splits.values())}"]


def split_units(files: Iterable[MediaFile], key_of: Mapping[str, str]) -> list[SplitUnit]:
    """The objects that files show, each with the category of its first file."""
    members: dict[str, list[MediaFile]] = defaultdict(list)
    for file in files:
        members[key_of[file.uri]].append(file)
    return [
        SplitUnit(key, mine[0].category, frozenset(file.modality for file in mine), len(mine))
        for key, mine in members.items()
    ]


def _leaks(given: Mapping[str, Split], groups: ObjectGroups) -> list[str]:
    splits_of: dict[str, dict[Split, str]] = defaultdict(dict)
    for uri, split in given.items():
        splits_of[groups.key_of[uri]].setdefault(split, uri)
    leaked = [found for found in splits_of.values() if "train" in found and len(found) > 1]
    if not leaked:
        return []
    example = " and ".join(list(leaked[0].values())[:2])
    return [
        f"{len(leaked)} objects are in train and in another split, such as {example}:"
        " scores on them are not held-out"
    ]


def _missing(files: Sequence[MediaFile], *, by_name: bool) -> list[str]:
    """What the folder lacks for recognition, and how to add it."""
    labelled = Counter(file.category for file in files if file.category is not None)
    if not labelled:
        words = Counter(word for file in files if (word := first_word(file.uri)) is not None)
        common = Counter({word: count for word, count in words.items() if count > 1})
        notes = [
            "no categories, because there are no sub-folders: nothing can be recognised or scored;"
            " `unibind run` describes and encodes the samples, and its report says so. To add categories, use"
            " sub-folders or the column `category` of the manifest"
        ]
        if len(common) > 1 and 5 * common.total() >= 4 * len(files) and not by_name:
            few = ", ".join(f"{word} {count}" for word, count in common.most_common(_SHOWN))
            more = ", ..." if len(common) > _SHOWN else ""
            notes.append(
                f"the file names begin with {len(words)} words ({few}{more}): `--by-name` uses them as"
                " categories"
            )
        return notes
    notes = []
    if unlabelled := len(files) - labelled.total():
        notes.append(f"{unlabelled} of {len(files)} files have no category: they are not scored")
    if len(labelled) == 1:
        notes.append(
            f"one category only ({next(iter(labelled))}): recognition needs at least two. If its"
            " sub-folders are the categories, pass that folder to init"
        )
    single = sum(count == 1 for count in labelled.values())
    if single:
        notes.append(
            f"{single} of {len(labelled)} categories have a single file: it is scored, but never trained on"
        )
    return notes


def _count(splits: Iterable[Split]) -> str:
    counts = Counter(splits)
    return ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if counts[split])


def folder_categories(folders: Collection[str]) -> tuple[dict[str, Category], tuple[str, ...]]:
    """The category of each folder, and notes on their names.

    An underscore is read as a space, unless another folder has that name. Raises ManifestError for a name
    without a visible character.
    """
    blank = sorted(folder for folder in folders if is_blank(folder))
    if blank:
        raise ManifestError(f"the folder {blank[0]!r} has no visible character in its name; rename it")
    literal = {name_key(folder) for folder in folders}
    spelling = {}
    for folder in folders:
        read = normal_spelling(folder.replace("_", " "))
        read = folder if is_blank(read) else read
        taken = name_key(read) != name_key(folder) and name_key(read) in literal
        spelling[folder] = normal_spelling(folder) if taken else read
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
