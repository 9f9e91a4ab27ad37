"""Readers: an untrusted file comes in, a checked record goes out.

`read` is deterministic: the same file gives the same bits. Nothing is cut short, clipped or repaired in
silence: what cannot be read whole is refused with one line that says which file, what is wrong and how to
mend it. No reader runs pickled code.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from data.modality import Modality
from data.readers.payload import Payload

# Modality -> module:function. Named, not imported: each reader brings a heavy library, and a run over photos
# needs neither a video decoder nor torch.
READERS: dict[Modality, str] = {
    "image": "data.readers.image:read_image",
    "text": "data.readers.text:read_text",
    "audio": "data.readers.audio:read_audio",
    "point": "data.readers.point:read_point",
    "thermal": "data.readers.thermal:read_thermal",
    "video": "data.readers.video:read_video",
    "event": "data.readers.event:read_event",
}


def read(modality: Modality, path: Path) -> Payload:
    """Read one sample. Raises `SampleError` where the file is not a whole, sane sample of that modality."""
    module, function = READERS[modality].split(":")
    reader: Callable[[Path], Payload] = getattr(import_module(module), function)
    return reader(path)
