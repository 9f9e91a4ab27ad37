"""The seven modalities, and which file endings belong to which."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Modality = Literal["image", "text", "audio", "point", "thermal", "video", "event"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

# Endings that name one modality by themselves. A thermal picture or a drawn event frame looks like an image
# by its ending: only a manifest, a folder name or `--modality` can tell.
EXTENSIONS: dict[str, Modality] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff"), "audio"),
    **dict.fromkeys((".ply", ".off", ".obj", ".xyz", ".npy", ".pcd", ".pt"), "point"),
    **dict.fromkeys((".tif", ".tiff"), "thermal"),
    **dict.fromkeys((".mp4", ".avi", ".mkv", ".mov", ".webm"), "video"),
    **dict.fromkeys((".bin", ".npz", ".aedat4"), "event"),
    **dict.fromkeys((".txt",), "text"),
}


EVENT_RECORDINGS = (".dat", ".raw")  # of Prophesee's cameras, and of much else: their names must say it


def guess_modality(path: Path) -> Modality | None:
    """The modality of a file by the first word of its name (`thermal_…`, `event_…`), else by its ending."""
    ending = EXTENSIONS.get(path.suffix.lower())
    first_word = path.stem.lower().replace("-", "_").split("_")[0]
    named: dict[str, Modality] = {"thermal": "thermal", "event": "event"}
    if path.suffix.lower() in EVENT_RECORDINGS:
        return "event" if first_word == "event" else None
    if ending in {"image", "thermal"} and first_word in named:
        return named[first_word]
    return ending
