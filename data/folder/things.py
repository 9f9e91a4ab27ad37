"""Which files show one thing: what must stay in one split, and what several modalities have in common.

Files of one folder with one name and several endings (`rex.jpg`, `rex.wav`) are one thing; so are files of
one name in the modality folders of one category (`dog/photos/rex.jpg`, `dog/sounds/rex.wav`), numbered takes
(`rex-0` … `rex-4`, `rex (1)`, `rex copy`), the same bytes, and the same picture in another size or format.

Numbers mean takes only where several names are numbered beside each other: of `dog/dog_001` … `dog_500` or
`IMG_0001` … each one is another thing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

from data.folder.likeness import alike_pictures, same_bytes
from data.modality import Modality
from data.paths import slug

_NUMBERED = re.compile(
    r"(?P<base>.*?[^\W\d_].*?)(?:[ _.\-]+(?:take|version|v|t)?[ _.\-]*|[ _]*\()(?P<number>\d{1,2})\)?",
    re.IGNORECASE | re.DOTALL,
)
# What was made of a file that is there too: a copy, or the picture turned or mirrored.
_COPY = re.compile(
    r"(?P<base>.+?)[ _\-]+\(?(?:copy|kopie|copie|copia|mirror(?:ed)?|flip(?:ped)?|rot(?:ated)?|aug)\)?"
    r"(?:[ _]*\(?\d{1,3}\)?)?",
    re.IGNORECASE | re.DOTALL,
)
# What cameras, recorders and programs call every file.
_SERIAL = frozenset(
    """img image photo picture pic dsc dscn dscf dscp imgp pxl mvimg snap screenshot scan vid video mov movie
    clip film rec recording audio sound sample track take file item untitled frame object model mesh cloud
    page text note doc data train training val valid test""".split()  # noqa: SIM905  (shorter to read)
)
_HIGHEST_FIRST = 2  # `rex`, `rex-2`: the first may have no number


@dataclass(frozen=True)
class MediaFile:
    """A file that may be a sample."""

    uri: str
    modality: Modality
    category: str | None


@dataclass(frozen=True)
class Things:
    """`key_of` names the thing of every file; `notes` tell in words how files were tied."""

    key_of: Mapping[str, str]
    notes: tuple[str, ...]

    def several(self) -> dict[str, str]:
        """The thing of each file that is not alone."""
        count = Counter(self.key_of.values())
        return {uri: key for uri, key in self.key_of.items() if count[key] > 1}


@dataclass
class _Union:
    """Disjoint sets; each is known by its first member."""

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
        """Make one of the sets of these names; whether any two were apart."""
        roots = {self.find(name) for name in names}
        first = min(roots)
        self.above.update(dict.fromkeys(roots, first))
        return len(roots) > 1


def tie_files(files: Sequence[MediaFile], root: Path, *, known: Iterable[Sequence[str]] = ()) -> Things:
    """Find the files that show one thing. `known` are groups of uris that are one already.

    Takes and equal contents are tied within a category only. A thing's key is the first of its uris without
    the ending. Files that cannot be read are tied by name alone.
    """
    union = _Union()
    for uris in known:
        union.join(uris)
    notes = [*_tie_names(files, union), *_tie_takes(files, union), *_tie_same(files, root, union)]
    return Things({file.uri: _stem(union.find(file.uri)) for file in files}, tuple(notes))


def _stem(uri: str) -> str:
    return PurePosixPath(uri).with_suffix("").as_posix()


def _tie_names(files: Sequence[MediaFile], union: _Union) -> list[str]:
    """Tie files of one name: in one folder, or in the folders of one category, one of each modality."""
    here: dict[str, list[MediaFile]] = defaultdict(list)
    within: dict[tuple[str | None, str], list[MediaFile]] = defaultdict(list)
    for file in files:
        here[_stem(file.uri)].append(file)
        name = PurePosixPath(file.uri).stem
        if file.category is not None and re.search(r"[^\W\d_]", name):  # a bare number says nothing
            within[file.category, name.casefold()].append(file)
    groups = [group for group in here.values() if len(group) > 1]
    for group in within.values():
        if len(group) > 1 and len({file.modality for file in group}) == len(group):
            groups.append(group)
    tied = [group for group in groups if union.join([file.uri for file in group])]
    if not tied:
        return []
    several = Counter(" + ".join(sorted({file.modality for file in group})) for group in tied)
    kinds = ", ".join(f"{count} of {kinds}" for kinds, count in sorted(several.items()))
    example = _stem(tied[0][0].uri)
    return [f"tied {_things(len(tied))} with several files of one name ({kinds}), such as {example}"]


def _tie_takes(files: Sequence[MediaFile], union: _Union) -> list[str]:
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        path = PurePosixPath(file.uri)
        folders[path.parent.as_posix()][path.stem].append(file.uri)
    tied: list[str] = []
    counted: list[str] = []
    for folder, uris_of in sorted(folders.items()):
        takes, others = _takes(list(uris_of), PurePosixPath(folder).name)
        before = "" if folder == "." else f"{folder}/"
        for stems in takes:
            if union.join([uri for stem in stems for uri in uris_of[stem]]):
                tied.append(f"{before}{stems[0]} … {stems[-1]}")
        counted += [f"{before}{stems[0]} …" for stems in others]
    notes = []
    if tied:
        notes.append(f"tied {_things(len(tied))} with numbered or copied takes, such as {tied[0]}")
    if counted:
        series = f"{len(counted)} series" if len(counted) > 1 else "a series"
        notes.append(
            f"the numbers of {series}, such as {counted[0]}, count different things: they are not tied"
        )
    return notes


def _takes(stems: Sequence[str], folder: str) -> tuple[list[list[str]], list[list[str]]]:
    """The series of names in one folder that are takes of one thing, and those that count things."""
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
        if starts and not _is_serial(base, folder):
            takes.append(names)
            most = max(most, len(names))
        else:
            others.append(names)
    if 2 * most > len(stems):  # one name numbered through: it counts the things of the folder
        others += [names for names in takes if names[0] not in copies]
        takes = [names for names in takes if names[0] in copies]
    return takes, others


def _is_serial(base: str, folder: str) -> bool:
    """Whether a name is what every file is called: by a camera, or as its folder."""
    word, place = slug(base), slug(folder)
    return word in _SERIAL or (bool(place) and place in {word, word + "s", word.removesuffix("s")})


def _tie_same(files: Sequence[MediaFile], root: Path, union: _Union) -> list[str]:
    """Tie files of the same bytes and pictures that look the same, within a category."""
    paths = {file.uri: root / file.uri for file in files}
    pictures = {file.uri: paths[file.uri] for file in files if file.modality == "image"}
    category = {file.uri: file.category for file in files}
    same = [pair for names in same_bytes(paths) for pair in pairwise(sorted(names, key=_by(category)))]
    alike = [(min(pair), max(pair)) for pair in alike_pictures(pictures, category)]
    notes = []
    for what, pairs in (("files of the same bytes", same), ("near-duplicate pictures", alike)):
        tied = [pair for pair in pairs if category[pair[0]] == category[pair[1]] and union.join(pair)]
        if tied:
            notes.append(f"tied {_pairs(len(tied))} of {what}, such as {' and '.join(tied[0])}")
    across = sorted({pair for pair in (*same, *alike) if category[pair[0]] != category[pair[1]]})
    if across:
        notes.append(
            f"{_pairs(len(across))} of equal files stand in two categories, such as {' and '.join(across[0])}"
            ": check the labels"
        )
    return notes


def _by(category: Mapping[str, str | None]) -> Callable[[str], tuple[str, str]]:
    return lambda uri: (category[uri] or "", uri)


def _pairs(count: int) -> str:
    return f"{count} pairs" if count > 1 else "a pair"


def _things(count: int) -> str:
    return f"{count} thing{'' if count == 1 else 's'}"
