"""Lookup tables of the readers: by modality and, for point clouds and event streams, by file ending.

A new format is one line here (and one in `data.modality.EXTENSIONS`, if its ending implies the modality); a
test compares the tables with each other and with docs/readers.md. Functions are named by "module:function",
not imported: each reader needs a heavy library, and a run over photos needs neither a video decoder nor
torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from data.modality import Modality

# (path, options) -> payload
READERS: dict[Modality, str] = {
    "image": "data.readers.pictures.image:read_image",
    "text": "data.readers.text:read_text",
    "audio": "data.readers.sound.audio:read_audio",
    "point": "data.readers.points.point:read_point",
    "thermal": "data.readers.pictures.thermal:read_thermal",
    "video": "data.readers.video:read_video",
    "event": "data.readers.events.event:read_event",
}

_TEXT_CLOUD = "data.readers.points.text_cloud:read_text_cloud"
# Of `read_point`. (path) -> xyz[N, 3] of any number type, and uint8[N, 3] colours or None
POINT_FORMATS: dict[str, str] = {
    ".ply": "data.readers.points.mesh:read_ply",
    ".off": "data.readers.points.off:read_off",
    ".obj": "data.readers.points.obj:read_obj",
    ".stl": "data.readers.points.stl:read_stl",
    ".glb": "data.readers.points.gltf:read_gltf",
    ".gltf": "data.readers.points.gltf:read_gltf",
    ".pcd": "data.readers.points.pcd:read_pcd",
    **dict.fromkeys((".xyz", ".asc", ".xyzn", ".xyzrgb", ".pts"), _TEXT_CLOUD),
    ".txt": _TEXT_CLOUD,  # ModelNet40's resampled clouds; only where the modality is given as point
    ".npy": "data.readers.points.point:read_npy",
    ".pt": "data.readers.points.point:read_torch",
}

# Of `read_event`, which reads files of any other ending as pictures. (path) -> Events
EVENT_FORMATS: dict[str, str] = {
    ".bin": "data.readers.events.event:read_bin",
    ".npz": "data.readers.events.event:read_npz",
    ".dat": "data.readers.events.prophesee:read_dat",
    ".raw": "data.readers.events.prophesee:read_raw",
    ".aedat4": "data.readers.events.aedat:read_aedat",
}

# Point formats with companion files. (path) -> paths of the other files that reading one opens
COMPANIONS: dict[str, str] = {
    ".obj": "data.readers.points.obj:obj_libraries",
    ".gltf": "data.readers.points.gltf:gltf_buffers",
}


def find_function(name: str) -> Callable[..., Any]:
    """The function that "module:function" names. Raises ImportError where a library is missing."""
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
