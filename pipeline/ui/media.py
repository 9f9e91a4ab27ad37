"""The one route that serves files: samples and dropped files, by ids that are looked up, decoded and re-made.

    /media/PROJECT?sample=ID&as=KIND          /media/PROJECT?file=ID&as=KIND

No part of a path comes from the address: the id is looked up in samples.parquet, its uri is resolved inside
the data folder (data/paths.py refuses `..`, links that lead out and NUL), and the file is decoded in the
readers' sandbox. What the browser gets is made here: a PNG, a JPEG, a WAV or numbers. Only a film is sent as
it is, under a fixed media type that no browser runs.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from data.errors import InputError, SampleError, UniBindError
from data.modality import Modality
from data.readers import read, read_prepared
from data.readers.axes import File, path_of
from data.readers.payload import Bytes, Clip, Points, ThermalPicture, Waveform
from data.readers.points.geometry import unit_sphere
from data.render.canvas import contact_sheet, heat_limits
from pipeline.ui.security import MEDIA_POLICY
from pipeline.ui.state import Desk, upload_file

THUMB_PX, WHOLE_PX = 240, 1024
MOST_POINTS = 30_000  # of a turning cloud
EVENT_FRAMES = 24
_CACHE_BYTES = 64 * 2**20
_FILMS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}


class MadeFile(NamedTuple):
    """What is sent for a sample."""

    body: bytes
    kind: str  # its media type


class _Cache:
    """The last pictures that were made, up to `_CACHE_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], MadeFile] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...], make: Callable[[], MadeFile]) -> MadeFile:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(made.body)
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.body)
        return made


_cache = _Cache()
_WRONG = {InputError: 404, SampleError: 415}


async def serve_media(desk: Desk, project: str, request: Request) -> Response:
    """Answer a request for a view; an unknown id is a 404, a file that cannot be read a 415."""
    ask = request.query_params
    named = ask.get("sample"), ask.get("file"), ask.get("as", "thumb")
    try:
        return await asyncio.to_thread(_answer, desk, project, *named)
    except UniBindError as error:
        status = next((code for kind, code in _WRONG.items() if type(error) is kind), 409)
        return PlainTextResponse(f"{_said(error)}\n", status, headers=_headers("no-store"))


def _said(error: UniBindError) -> str:
    """The error in words, without folders of this machine."""
    return str(error).partition("\n")[0].rpartition("/")[2]


def _headers(cache: str) -> dict[str, str]:
    return {"Content-Security-Policy": MEDIA_POLICY, "Cache-Control": cache}


def _answer(desk: Desk, project: str, sample_id: str | None, upload_id: str | None, kind: str) -> Response:
    opened = desk.project(project)
    if (sample_id is None) == (upload_id is None):
        raise InputError("name a sample or a dropped file")
    if sample_id is not None:
        sample = opened.sample(sample_id)
        modality, file, identity = sample.modality, opened.file_of(sample), sample.sha256
    else:
        upload = desk.uploads.get(str(upload_id))
        if upload.modality is None:
            raise SampleError(f"{upload.name}: its ending does not show its modality")
        modality, file, identity = upload.modality, upload_file(opened, upload), str(upload_id)
    if kind == "film":
        return _film(modality, file)
    if kind not in _MAKERS:
        raise InputError(f"there is no view {kind!r}")
    made = _cache.get((identity, modality, str(file), kind), lambda: _MAKERS[kind](modality, file))
    return Response(made.body, media_type=made.kind, headers=_headers("private, max-age=600"))


def _film(modality: Modality, file: File) -> Response:
    """The file of a film as it is: browsers decode films themselves, in a sandbox of their own."""
    path = path_of(file)
    kind = _FILMS.get(path.suffix.lower())
    if modality != "video" or kind is None:
        raise InputError("there is no film to play")
    return FileResponse(path, media_type=kind, headers=_headers("private, max-age=600"))


def playable(uri: str) -> bool:
    """Whether browsers may play the film of this name."""
    return any(uri.lower().endswith(ending) for ending in _FILMS)


def _picture(rgb_HW3: Bytes, most: int, *, lossless: bool = False) -> MadeFile:
    from PIL import Image

    picture = Image.fromarray(rgb_HW3)
    picture.thumbnail((most, most))
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, format="PNG")
        return MadeFile(buffer.getvalue(), "image/png")
    picture.save(buffer, format="JPEG", quality=85)
    return MadeFile(buffer.getvalue(), "image/jpeg")


def _thumb(modality: Modality, file: File) -> MadeFile:
    views: list[Bytes] = read_prepared(modality, file, "data.render:render")
    return _picture(contact_sheet(views), THUMB_PX)


def _whole(modality: Modality, file: File) -> MadeFile:
    """The picture itself, the frames of a film side by side, or the views of anything else."""
    if modality == "image":
        payload: Any = read(modality, file)
        return _picture(payload.rgb_HW3, WHOLE_PX)
    views: list[Bytes] = read_prepared(modality, file, "data.render:render")
    return _picture(contact_sheet(views), WHOLE_PX, lossless=modality in {"audio", "thermal", "event"})


def _sound(modality: Modality, file: File) -> MadeFile:
    payload = read(modality, file)
    if not isinstance(payload, Waveform):
        raise InputError("there is no sound to play")
    buffer = io.BytesIO()
    import soundfile as sf

    sf.write(buffer, payload.samples_T, payload.rate, format="WAV", subtype="PCM_16")
    return MadeFile(buffer.getvalue(), "audio/wav")


def _cloud(modality: Modality, file: File) -> MadeFile:
    """float32[N, 3] in the unit sphere, then uint8[N, 3] colours: fifteen bytes for each point."""
    payload = read(modality, file)
    if not isinstance(payload, Points):
        raise InputError("there is no cloud to turn")
    step = -(-len(payload.xyz_N3) // MOST_POINTS)
    xyz_N3 = unit_sphere(payload.xyz_N3[::step]).astype("<f4")
    grey = np.full(xyz_N3.shape, 0xC8, np.uint8)
    rgb_N3 = grey if payload.rgb_N3 is None else payload.rgb_N3[::step]
    return MadeFile(xyz_N3.tobytes() + rgb_N3.tobytes(), "application/octet-stream")


def _frames(modality: Modality, file: File) -> MadeFile:
    """All frames of a film or an event recording, one above the other: a PNG or JPEG of equal parts."""
    if modality == "event":
        frames = read_prepared(modality, file, "data.render.film:event_frames", frames=EVENT_FRAMES)
    elif modality == "video":
        payload: Any = read(modality, file)
        frames = list(payload.frames_FHW3)
    else:
        raise InputError("there are no frames to show")
    return _picture(np.concatenate(frames), 2**16)


def thermal_scale(file: File) -> dict[str, Any]:
    """The limits between which a thermal picture is drawn: `low`, `high` and `unit`, degrees where known."""
    payload = read("thermal", file)
    assert isinstance(payload, ThermalPicture)
    low, high = heat_limits(payload)
    zero = 273.15 if payload.unit == "kelvin" else 0.0
    unit = "°C" if payload.unit == "kelvin" else "counts of the sensor"
    return {"low": round(low - zero, 1), "high": round(high - zero, 1), "unit": unit}


def video_frames(file: File) -> int:
    """How many frames the view `frames` of a video holds."""
    payload = read("video", file)
    assert isinstance(payload, Clip)
    return len(payload.frames_FHW3)


_MAKERS: dict[str, Callable[[Modality, File], MadeFile]] = {
    "thumb": _thumb,
    "whole": _whole,
    "sound": _sound,
    "cloud": _cloud,
    "frames": _frames,
}
