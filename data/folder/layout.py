"""Infers what sub-folders mean (splits, modalities, categories) from their names, level by level.

    dog/1.jpg                    a category
    train/dog/1.jpg              a split, a category
    dog/train/1.jpg              a category, a split
    photos/dog/1.jpg             a modality, a category; thermal/dog/1.png is a thermal picture
    archive/train/dog/1.jpg      a folder around it all, a split, a category

A level holds splits or modalities only if every folder on it has such a name, and if another level remains
for the categories: `train` beside `plane` and `ship` is a vehicle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data.modality import Modality
from data.sample import Split
from data.splits import split_of_folder

Role = Literal["around", "split", "modality", "category"]

_MODALITY_FOLDERS: dict[str, Modality] = {
    **dict.fromkeys(("image", "img", "photo", "picture", "pic", "rgb", "colour", "color"), "image"),
    **dict.fromkeys(("audio", "sound", "wav", "recording"), "audio"),
    **dict.fromkeys(
        ("point", "pointcloud", "cloud", "mesh", "meshe", "model", "3d", "3dmodel", "lidar", "obj", "stl"),
        "point",
    ),
    **dict.fromkeys(("thermal", "infrared", "ir", "heat"), "thermal"),
    **dict.fromkeys(("video", "movie", "film", "clip"), "video"),
    **dict.fromkeys(("event", "dvs"), "event"),
    **dict.fromkeys(("text", "caption", "note", "txt"), "text"),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The role of each level of sub-folders, from the top; deeper levels are ignored."""

    roles: tuple[Role, ...] = ()

    def folder(self, role: Role, uri: str) -> str | None:
        """The folder with this role on the way to a file, or None."""
        folders = uri.split("/")[:-1]
        level = self.roles.index(role) if role in self.roles else len(folders)
        return folders[level] if level < len(folders) else None

    def category(self, uri: str) -> str | None:
        """The folder that names a file's category, or None."""
        return self.folder("category", uri)

    def split(self, uri: str) -> Split | None:
        """The split by the name of a file's folder, or None."""
        name = self.folder("split", uri)
        return None if name is None else split_of_folder(name)

    def modality(self, uri: str) -> Modality | None:
        """The modality by the name of a file's folder, or None."""
        name = self.folder("modality", uri)
        return None if name is None else modality_of_folder(name)

    def has(self, role: Role) -> bool:
        """Whether some level has this role."""
        return role in self.roles


def unread_splits(layout: Layout, uris: Collection[str]) -> list[str]:
    """Folders named like at least two splits, but not read as such because of other folders beside them."""
    if layout.has("split"):
        return []
    level = layout.roles.index("category") if layout.has("category") else 0
    for at in (level, level + 1):
        names = {folders[at] for uri in uris if len(folders := uri.split("/")[:-1]) > at}
        words = sorted(name for name in names if split_of_folder(name) is not None)
        if len({split_of_folder(name) for name in words}) > 1:
            return words
    return []


def modality_of_folder(name: str) -> Modality | None:
    """The modality by a folder's name (`Photos`, `point_clouds`, `thermal`), or None."""
    word = re.sub(r"[\W_]+", "", name.casefold())
    return _MODALITY_FOLDERS.get(word) or _MODALITY_FOLDERS.get(word.removesuffix("s"))


def may_have_modality(kind: Modality | None, said: Modality | None) -> bool:
    """Whether a file whose ending implies `kind` can have the modality `said`: pictures can have three."""
    pictured = {"image", "thermal", "event"}
    return kind is None or kind == said or (kind in {"image", "thermal"} and said in pictured)


def read_layout(kinds: Mapping[str, Modality | None]) -> Layout:
    """The layout of a folder that holds files at these paths (with `/`, relative to it).

    `kinds`: the modality by each file's ending; a folder `text` full of pictures is not read as texts.
    """
    # Files beside the sub-folders do not count.
    files = [_LayoutFile(uri.split("/")[:-1], kind) for uri, kind in kinds.items() if "/" in uri]
    roles: list[Role] = []
    for level in range(max((len(file.folders) for file in files), default=0)):
        role = _role(level, files, roles)
        if role is None:
            break
        roles.append(role)
    return Layout(tuple(roles))


@dataclass(frozen=True, slots=True)
class _LayoutFile:
    folders: list[str]
    kind: Modality | None


def _role(level: int, files: Sequence[_LayoutFile], roles: Sequence[Role]) -> Role | None:
    paths = [file.folders for file in files]
    names = {path[level] for path in paths if len(path) > level}
    deeper = any(len(path) > level + 1 for path in paths)
    words: tuple[tuple[Role, Callable[[str], str | None]], ...] = (
        ("split", split_of_folder),
        ("modality", modality_of_folder),
    )
    categories = "category" in roles
    for role, word in words:
        said = {word(name) for name in names}
        if role in roles or None in said or (role == "modality" and not _match_modalities(level, files)):
            continue
        if categories:  # dog/train/…: only where no file of a category lies beside them
            if all(len(path) > level for path in paths):
                return role
        elif deeper or len(said) > 1:
            return role
    if categories:
        return None
    if not roles and len(names) == 1 and _is_around(paths):
        return "around"
    return "category"


def _match_modalities(level: int, files: Sequence[_LayoutFile]) -> bool:
    """Whether most files below each folder of a level can have the modality that the folder names."""
    fits: dict[str, list[bool]] = {}
    for file in files:
        if len(file.folders) > level:
            name = file.folders[level]
            fits.setdefault(name, []).append(may_have_modality(file.kind, modality_of_folder(name)))
    return all(2 * sum(each) > len(each) for each in fits.values())


def _is_around(paths: Sequence[Sequence[str]]) -> bool:
    """Whether the only top folder just contains splits or modalities of categories: archive/train/dog/."""
    below = [path[1:] for path in paths if len(path) > 1]
    names = {path[0] for path in below}
    deeper = any(len(path) > 1 for path in below)
    return (
        len(below) == len(paths)
        and deeper
        and (
            all(split_of_folder(name) is not None for name in names)
            or all(modality_of_folder(name) is not None for name in names)
        )
    )
