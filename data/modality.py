"""The seven modalities, and which file endings belong to which."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from data.tiff import whole_pictures

Modality = Literal["image", "text", "audio", "point", "thermal", "video", "event"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

# Endings that imply one modality. A thermal picture or a rendered event frame has the ending of an image:
# only a manifest, a folder name or `--modality` marks it as thermal or event.
EXTENSIONS: dict[str, Modality] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"), "image"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"), "audio"),
    **dict.fromkeys((".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".mka"), "audio"),
    **dict.fromkeys((".ply", ".off", ".obj", ".stl", ".glb", ".gltf", ".pcd"), "point"),
    **dict.fromkeys((".xyz", ".xyzn", ".xyzrgb", ".npy", ".pt"), "point"),
    **dict.fromkeys((".tif", ".tiff"), "thermal"),  # if grey: `guess_modality` opens the file
    **dict.fromkeys((".mp4", ".m4v", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv"), "video"),
    **dict.fromkeys((".bin", ".npz", ".aedat4"), "event"),
    **dict.fromkeys((".txt",), "text"),
}


_PHOTOMETRIC = 262
_COLOURED = (2, 3, 5, 6, 8, 9, 10)  # RGB, palette, separated (CMYK), YCbCr, CIE, ICC and ITU L*a*b*

# Endings of Prophesee's recordings, which many other formats use as well: only with a name `event_…`.
EVENT_RECORDINGS = (".dat", ".raw")


def guess_modality(path: Path) -> Modality | None:
    """The modality of a file by the first word of its name (`thermal_…`, `event_…`), else by its ending.

    An existing TIFF is opened: a colour one is an image, a grey one thermal.
    """
    ending = EXTENSIONS.get(path.suffix.lower())
    first_word = path.stem.lower().replace("-", "_").split("_")[0]
    named: dict[str, Modality] = {"thermal": "thermal", "event": "event"}
    if path.suffix.lower() in EVENT_RECORDINGS:
        return "event" if first_word == "event" else None
    if ending in {"image", "thermal"} and first_word in named:
        return named[first_word]
    if ending == "thermal" and _is_colour_tiff(path):
        return "image"
    return ending


def _is_colour_tiff(path: Path) -> bool:
    """Whether the first picture of a TIFF, behind thumbnails, is in colour, by its tags. False for files that
    are not TIFF."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            pictures = whole_pictures(file)
    except OSError:
        return False
    return bool(pictures) and pictures[0].value(_PHOTOMETRIC) in _COLOURED
