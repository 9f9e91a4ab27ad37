"""Readers: turn an untrusted file into a checked record.

`read` is deterministic: the same file gives the same bits. Nothing is silently truncated, clipped or
repaired: a file that cannot be read whole is refused with one line that says which file, what is wrong and
how to fix it. No reader runs pickled code.

The functions here decode in a worker process, within a budget of time and memory
(data/readers/sandbox/pool.py); the rest of the pipeline calls these. The modules of the readers have the same
functions for decoding in the calling process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from data.modality import Modality
from data.readers.axes import File, Turned, path_of
from data.readers.lookup import READERS, find_function
from data.readers.payload import Bytes, Payload, Picture, Waveform
from data.readers.sandbox import pool as sandbox
from data.readers.sandbox.budget import FileBudget
from data.readers.sandbox.pool import use_budget, warm_up
from data.readers.untrusted import decoding

__all__ = [
    "READERS",
    "FileBudget",
    "read",
    "read_audio",
    "read_clips",
    "read_here",
    "read_image",
    "read_prepared",
    "reading_ahead",
    "use_budget",
    "warm_up",
]

_CLIPS = "data.readers.clips:read_clips"
_SHOWN = {"image": "picture", "audio": "sound", "point": "cloud", "event": "event file"}


def read(modality: Modality, file: File) -> Payload:
    """Read one sample in a worker process. Raises `SampleError` where the file is not a complete, valid
    sample of that modality, or exceeds its budget of time or memory."""
    if modality == "text":  # bounded, and decoded by Python itself
        return read_here(modality, file)
    payload: Payload = sandbox.decode(
        READERS[modality], path_of(file), _options(modality, file), what=_shown(modality)
    )
    return payload


def read_here(modality: Modality, file: File) -> Payload:
    """The same in this process, without a budget: for trusted files, and for tests."""
    path = path_of(file)
    with decoding(path, _shown(modality)):
        payload: Payload = find_function(READERS[modality])(path, **_options(modality, file))
        return payload


def read_prepared(
    modality: Modality,
    file: File,
    step: str,
    *,
    reader_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """`step(read(modality, file), **options)`, both in the worker process, each within the budget.

    `reader_options` are further ones of the reader, such as `short_side` of a picture's. `step` is
    "module:function"; it returns a payload, an array or a list of arrays. Several threads that prepare
    samples in this way do not wait for Python's lock, and what comes back is the smaller result.
    """
    if modality == "text":
        return find_function(step)(read_here(modality, file), **options)
    return sandbox.decode(
        READERS[modality],
        path_of(file),
        {**_options(modality, file), **(reader_options or {})},
        what=_shown(modality),
        step=step,
        step_options=options,
    )


def read_image(path: Path, *, short_side: int) -> Picture:
    """`read("image", path)`, a JPEG no smaller than `short_side` on its short side."""
    picture: Picture = sandbox.decode(READERS["image"], path, {"short_side": short_side}, what="picture")
    return picture


def read_audio(path: Path, *, rate: int) -> Waveform:
    """`read("audio", path)` at `rate` samples a second."""
    sound: Waveform = sandbox.decode(READERS["audio"], path, {"rate": rate}, what="sound")
    return sound


def read_clips(
    path: Path, *, clips: int, frames: int, seconds: float | None = None, short_side: int | None = None
) -> Bytes:
    """`frames` frames of each of `clips` clips of a video, uint8[C, F, H, W, 3]: `data.readers.clips`."""
    options = {"clips": clips, "frames": frames, "seconds": seconds}
    if short_side is not None:
        options["short_side"] = short_side
    found: Bytes = sandbox.decode(_CLIPS, path, options, what="video")
    return found


def reading_ahead(files: Sequence[tuple[str, File]]) -> AbstractContextManager[None]:
    """Decode ahead: within the block, the next of these files (modality, file) are decoded while this thread
    works on one. It should `read` them in this order; reading others, or skipping some, is allowed."""
    return sandbox.reading_ahead([(modality, path_of(file)) for modality, file in files])


def _options(modality: Modality, file: File) -> dict[str, str]:
    return {"up": file.up} if isinstance(file, Turned) and modality == "point" else {}


def _shown(modality: Modality) -> str:
    return _SHOWN.get(modality, modality)
