"""Lists every file below a folder, and why some cannot be samples: hidden, links, parts of meshes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

LINK_OUT = "a link that leads outside the folder"
LINK_FOLDER = "a link to a folder"
LINK_BROKEN = "a link to a missing file"
PART = "a texture, buffer or material of a mesh"
_MOST_BYTES = 16 << 20  # read of a .mtl or .gltf file
_MAPS = ("map_", "bump", "disp", "decal", "refl", "norm")  # lines of a .mtl file that name a picture


def walk(folder: Path, *, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    """Every file as its path relative to `folder`, with `/`, and why it cannot be a sample, or None.

    With `follow_links` links are followed, except those to a folder above themselves.
    """
    real_root = os.path.realpath(folder) + os.sep
    for parent, folders, files in os.walk(folder, followlinks=follow_links):
        above = os.path.realpath(parent) + os.sep
        for name in sorted(folders):
            path = Path(parent) / name
            why = _not_entered(path, above, follow_links=follow_links)
            if why is not None:
                folders.remove(name)
                yield f"{path.relative_to(folder).as_posix()}/", why
        folders.sort()
        for name in sorted(files):
            path = Path(parent) / name
            uri = path.relative_to(folder).as_posix()
            if name.startswith("."):
                yield uri, "hidden"
            elif not _is_plain(uri):
                yield uri.encode("utf-8", "backslashreplace").decode(), "a name that a manifest cannot hold"
            elif path.is_symlink() and not path.exists():
                yield uri, LINK_BROKEN
            elif not follow_links and not (os.path.realpath(path) + os.sep).startswith(real_root):
                yield uri, LINK_OUT
            elif not path.is_file():
                yield uri, "not a file"
            else:
                yield uri, None


def _not_entered(path: Path, above: str, *, follow_links: bool) -> str | None:
    if path.name.startswith("."):
        return "a hidden folder"
    if path.name == "runs" and any(path.glob("*/kb")):
        return "the results of a project"
    if not path.is_symlink():
        return None
    if not follow_links:
        return LINK_FOLDER
    return "a link to a folder above it" if above.startswith(os.path.realpath(path) + os.sep) else None


def _is_plain(uri: str) -> bool:
    """Whether a manifest can hold the path: UTF-8, no control characters, no outer spaces, no backslash."""
    try:
        uri.encode("utf-8")
    except UnicodeEncodeError:
        return False
    is_printed = all(ord(letter) >= 32 and letter != "\x7f" for letter in uri)
    return uri == uri.strip() and "\\" not in uri and is_printed


def root_of(folder: Path, uris: Iterable[str]) -> tuple[Path, str]:
    """The folder that holds `folder` and all targets of its links; and the prefix for uris relative to it."""
    real = os.path.realpath(folder)
    targets = {os.path.realpath(folder / Path(uri).parent) for uri in uris}
    targets |= {os.path.dirname(os.path.realpath(folder / uri)) for uri in uris}  # noqa: PTH120
    root = os.path.commonpath([real, *targets])
    inside = os.path.relpath(real, root)
    return Path(root), "" if inside == "." else f"{Path(inside).as_posix()}/"


def parts_of_meshes(folder: Path, uris: Iterable[str]) -> set[str]:
    """The uris that the materials (.mtl) and scenes (.gltf) among these name: textures, buffers."""
    parts: set[str] = set()
    for uri in uris:
        ending = Path(uri).suffix.lower()
        if ending in {".mtl", ".gltf"}:
            names = _mtl_names(folder / uri) if ending == ".mtl" else _gltf_names(folder / uri)
            beside = PurePosixPath(uri).parent
            parts.update((beside / name.replace("\\", "/").removeprefix("./")).as_posix() for name in names)
    return parts


def _mtl_names(path: Path) -> Iterator[str]:
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0].lower().startswith(_MAPS):
            yield words[-1]  # after options such as `-s 1 1 1`
            yield line.strip().split(None, 1)[1]  # a name with spaces


def _gltf_names(path: Path) -> Iterator[str]:
    try:
        scene = json.loads(_text(path) or "{}")
    except ValueError:  # the reader of meshes reports it
        return
    for kind in ("images", "buffers"):
        named = scene.get(kind) if isinstance(scene, dict) else None
        for each in named if isinstance(named, list) else ():
            uri = each.get("uri") if isinstance(each, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:_MOST_BYTES].decode("utf-8", "replace")
    except OSError:
        return ""
