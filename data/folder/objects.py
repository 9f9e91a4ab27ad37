"""Groups files that show the same object: they share an object id and must stay in one split.

Files with the same name and different endings in one folder (`rex.jpg`, `rex.wav`) show one object; so do
files with the same name in the modality folders of one category (`dog/photos/rex.jpg`, `dog/sounds/rex.wav`),
numbered takes (`rex-0` … `rex-4`, `rex (1)`, `rex copy`), files with the same bytes, and the same picture in
another size or format.

Numbers mean takes only if several names in a folder are numbered, and a name is not that of the category or a
camera's: of `dog_01` … `dog_50` or `IMG_01` … each file shows another object.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

from data.folder.duplicates import exact_duplicates, near_duplicates
from data.modality import Modality
from data.paths import slug

_NUMBERED = re.compile(
    r"(?P<base>.*?[^\W\d_].*?)(?:[ _.\-]+(?:take|version|v|t)?[ _.\-]*|[ _]*\()(?P<number>\d{1,2})\)?",
    re.IGNORECASE | re.DOTALL,
)
# Names of copies, rotated or mirrored versions of a file in the same folder.
_COPY = re.compile(
    r"(?P<base>.+?)[ _\-]+\(?(?:copy|kopie|copie|copia|mirror(?:ed)?|flip(?:ped)?|rot(?:ated)?|aug)\)?"
    r"(?:[ _]*\(?\d{1,3}\)?)?",
    re.IGNORECASE | re.DOTALL,
)
# Generic names that cameras, recorders and programs give to every file.
_SERIAL = frozenset(
    """img image photo picture pic dsc dscn dscf dscp imgp pxl mvimg snap screenshot scan vid video mov movie
    clip film rec recording audio sound sample track take file item untitled frame object model mesh cloud
    page text note doc data train training val valid test""".split()  # noqa: SIM905  (shorter to read)
)
_HIGHEST_FIRST = 2  # `rex`, `rex-2`: the first may be unnumbered


@dataclass(frozen=True)
class MediaFile:
    """A file that may be a sample."""

    uri: str
    modality: Modality
    category: str | None


@dataclass(frozen=True)
class ObjectGroups:
    """`key_of`: the object of each file, by uri; `notes`: how files were grouped, in words."""

    key_of: Mapping[str, str]
    notes: tuple[str, ...]

    def shared(self) -> dict[str, str]:
        """The object of each file that shares it with other files, by uri."""
        count = Counter(self.key_of.values())
        return {uri: key for uri, key in self.key_of.items() if count[key] > 1}


@dataclass
class _DisjointSets:
    """Union-find over names; each set is identified by its smallest member."""

    above: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str:
        root = name
        while (parent := self.above.get(root, root)) != root:
            root = parent
        while (parent := self.above.get(name, name)) != root:
            self.above[name] = root
            name = parent
        return root

    def join(self, names: Sequence[str]) -> bool:
        """Merge the sets of these names. Returns whether any two of them were separate."""
        roots = {self.find(name) for name in names}
        first = min(roots)
        self.above.update(dict.fromkeys(roots, first))
        return len(roots) > 1


def group_files(
    files: Sequence[MediaFile], root: Path, *, known: Iterable[Sequence[str]] = ()
) -> ObjectGroups:
    """Group the files that show the same object. `known`: groups of uris that belong together already.

    Takes and equal contents are grouped within a category only. An object's key is the first of its uris
    without the ending. Files that cannot be read are grouped by name alone.
    """
    union = _DisjointSets()
    for uris in known:
        union.join(uris)
    notes = [
        *_group_by_name(files, union),
        *_group_takes(files, union),
        *_group_duplicates(files, root, union),
    ]
    return ObjectGroups({file.uri: _stem(union.find(file.uri)) for file in files}, tuple(notes))


def _stem(uri: str) -> str:
    return PurePosixPath(uri).with_suffix("").as_posix()


def _group_by_name(files: Sequence[MediaFile], union: _DisjointSets) -> list[str]:
    """Group files with the same name: in one folder, or one of each modality in the folders of a category."""
    here: dict[str, list[MediaFile]] = defaultdict(list)
    within: dict[tuple[str | None, str], list[MediaFile]] = defaultdict(list)
    for file in files:
        here[_stem(file.uri)].append(file)
        name = PurePosixPath(file.uri).stem
        if file.category is not None and re.search(r"[^\W\d_]", name):  # a bare number identifies nothing
            within[file.category, name.casefold()].append(file)
    groups = [group for group in here.values() if len(group) > 1]
    for group in within.values():
        if len(group) > 1 and len({file.modality for file in group}) == len(group):
            groups.append(group)
    grouped = [group for group in groups if union.join([file.uri for file in group])]
    if not grouped:
        return []
    several = Counter(" + ".join(sorted({file.modality for file in group})) for group in grouped)
    kinds = ", ".join(f"{count} of {kinds}" for kinds, count in sorted(several.items()))
    example = _stem(grouped[0][0].uri)
    return [f"grouped {_objects(len(grouped))} with several files of one name ({kinds}), such as {example}"]


def _group_takes(files: Sequence[MediaFile], union: _DisjointSets) -> list[str]:
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, set[str]] = defaultdict(set)  # of each folder: its own, and those of its categories
    for file in files:
        path = PurePosixPath(file.uri)
        folder = path.parent.as_posix()
        folders[folder][path.stem].append(file.uri)
        names[folder] |= {slug(path.parent.name), file.category or ""} - {""}
    grouped: list[str] = []
    counted: list[str] = []
    for folder, uris_of in sorted(folders.items()):
        takes, others = _takes(list(uris_of), names[folder])
        before = "" if folder == "." else f"{folder}/"
        for stems in takes:
            if union.join([uri for stem in stems for uri in uris_of[stem]]):
                grouped.append(f"{before}{stems[0]} … {stems[-1]}")
        counted += [f"{before}{stems[0]} …" for stems in others]
    notes = []
    if grouped:
        notes.append(f"grouped {_objects(len(grouped))} with numbered or copied takes, such as {grouped[0]}")
    if counted:
        series = f"{len(counted)} series" if len(counted) > 1 else "a series"
        notes.append(
            f"the numbers of {series}, such as {counted[0]}, count different objects: they are not grouped"
        )
    return notes


def _takes(stems: Sequence[str], places: Collection[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Series of names in one folder: those that are takes of one object, and those that number objects.

    `places`: the name of the folder and the ids of its categories.
    """
    series: dict[str, list[tuple[int, str]]] = defaultdict(list)
    copies: dict[str, list[str]] = defaultdict(list)
    present = set(stems)
    for stem in stems:
        if (copy := _COPY.fullmatch(stem)) and copy["base"] in present:
            copies[copy["base"]].append(stem)
        elif match := _NUMBERED.fullmatch(stem):
            series[match["base"]].append((int(match["number"]), stem))
    takes, others = [[base, *sorted(found)] for base, found in sorted(copies.items())], []
    most = 0
    for base, found in sorted(series.items()):
        names = [base] * (base in present) + [stem for _, stem in sorted(found)]
        if len(names) < 2:
            continue
        starts = min(number for number, _ in found) < _HIGHEST_FIRST + (base in present)
        if starts and not _is_generic(base, places):
            takes.append(names)
            most = max(most, len(names))
        else:
            others.append(names)
    if 2 * most > len(stems):  # one series covers most of the folder: it numbers different objects
        others += [names for names in takes if names[0] not in copies]
        takes = [names for names in takes if names[0] in copies]
    return takes, others


def _is_generic(base: str, places: Collection[str]) -> bool:
    """Whether a name is generic: one that cameras give to every file, or that of the folder or a category."""
    word = slug(base)
    return word in _SERIAL or any(place in {word, word + "s", word.removesuffix("s")} for place in places)


def _group_duplicates(files: Sequence[MediaFile], root: Path, union: _DisjointSets) -> list[str]:
    """Group files with the same bytes and near-duplicate pictures, within a category."""
    paths = {file.uri: root / file.uri for file in files}
    pictures = {file.uri: paths[file.uri] for file in files if file.modality == "image"}
    category = {file.uri: file.category for file in files}
    same = [
        pair for names in exact_duplicates(paths) for pair in pairwise(sorted(names, key=_sort_key(category)))
    ]
    alike = [(min(pair), max(pair)) for pair in near_duplicates(pictures, category)]
    notes = []
    for what, pairs in (("files of the same bytes", same), ("near-duplicate pictures", alike)):
        grouped = [pair for pair in pairs if category[pair[0]] == category[pair[1]] and union.join(pair)]
        if grouped:
            notes.append(f"grouped {_pairs(len(grouped))} of {what}, such as {' and '.join(grouped[0])}")
    across = sorted({pair for pair in (*same, *alike) if category[pair[0]] != category[pair[1]]})
    if across:
        notes.append(
            f"{_pairs(len(across))} of equal files are in two categories, such as {' and '.join(across[0])}"
            ": check the labels"
        )
    return notes


def _sort_key(category: Mapping[str, str | None]) -> Callable[[str], tuple[str, str]]:
    return lambda uri: (category[uri] or "", uri)


def _pairs(count: int) -> str:
    return f"{count} pairs" if count > 1 else "a pair"


def _objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"
