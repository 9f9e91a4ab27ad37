"""Media of samples: the picture that is sent, a rendering, or the unchanged sound or video.

A request identifies its media by the hash of the file and a *recipe* (see `Media`), so planning a hundred
thousand requests reads no file. When a request is sent, `MediaFiles` reads the file, checks that it is the
one that was ingested, and has it drawn, reduced and encoded by a decoder process (data/render/sent.py): on
all cores, and of the requests that are being sent only.

| modality | sent as |
|---|---|
| image, drawn event picture | the picture, reduced |
| audio | its log-mel spectrogram; natively the file (WAV, MP3) or the sound as 16-bit WAV |
| point | four shaded views on one sheet |
| thermal | grey between its own robust limits |
| video | four frames on one sheet; natively the file |
| event | polarity histogram |

Pictures are sent as JPEG of quality 90 with full colour resolution. On seven real files that changes no
pixel value by more than 1.7 of 255 on average, and is a quarter of the size of PNG.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import SampleError
from data.files import canonical_json
from data.paths import resolver
from data.readers import read, read_prepared
from data.readers.axes import File, path_of, turned
from data.readers.companions import content_hash
from data.readers.payload import Waveform
from data.render import RENDER_VERSION
from kb_builder.ask.request import Media
from kb_builder.settings import DescribeSamples

MEDIA_VERSION = "2"  # raise it when the same file and settings give other bytes
JPEG_QUALITY = 90
NATIVE_MAX_BYTES = 20 * 2**20  # of a sound or video that is sent unchanged; endpoints refuse larger ones
_SENT_SOUNDS = {".wav": "wav", ".mp3": "mp3"}
_VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
}


def media_for(sample: Mapping[str, Any], settings: DescribeSamples) -> tuple[Media, ...]:
    """The media of a sample (a row of `samples`), from its row and the settings alone; a text has none.

    The file's extension is part of the recipe, since some readers depend on it.
    """
    modality = str(sample["modality"])
    if modality == "text":
        return ()
    recipe: dict[str, Any] = {
        "version": MEDIA_VERSION,
        "modality": modality,
        "ending": Path(sample["uri"]).suffix.lower(),
    }
    if sample.get("up"):
        recipe["up"] = sample["up"]
    if modality in settings.native:
        return (Media(modality, sample["sha256"], canonical_json(recipe)),)
    recipe |= {"render": RENDER_VERSION, "max_side": settings.max_side, "jpeg": JPEG_QUALITY}
    return (Media("image", sample["sha256"], canonical_json(recipe)),)


class MediaFiles:
    """The files of a knowledge base's samples, by their media. Thread-safe.

    `contents` are (sha256, uri) pairs, the uri relative to `data_root`. `unreadable` maps media whose file
    could not be read to the reason.
    """

    def __init__(self, data_root: Path, contents: Iterable[tuple[str, str]]) -> None:
        self._locate = resolver(data_root)
        self._uris: dict[tuple[str, str], list[str]] = {}
        for sha256, uri in contents:
            self._uris.setdefault((sha256, Path(uri).suffix.lower()), []).append(uri)
        self.unreadable: dict[Media, str] = {}

    def part(self, media: Media) -> dict[str, Any]:
        """The media as a part of a message to a chat endpoint (`ChatClient.load`).

        Raises SampleError for a file that cannot be read, or is not the ingested one. Nothing is recorded
        then, so the next run asks the request again.
        """
        mime, content = self.encoded(media)
        data = base64.b64encode(content).decode("ascii")
        if media.kind == "audio":
            return {
                "type": "input_audio",
                "input_audio": {"data": data, "format": mime.removeprefix("audio/")},
            }
        kind = f"{media.kind}_url"
        return {"type": kind, kind: {"url": f"data:{mime};base64,{data}"}}

    def encoded(self, media: Media) -> tuple[str, bytes]:
        """The MIME type and the bytes that are sent. Raises SampleError as `part` does."""
        file: File | None = None
        uri = ""
        try:
            file, uri = self._find(media)
            return _MAKE[media.kind](file, _recipe(media))
        except SampleError as error:
            # With the path in the manifest, so that the table does not depend on the place of the folder.
            self.unreadable[media] = (
                str(error) if file is None else str(error).replace(str(path_of(file)), uri)
            )
            raise

    def _find(self, media: Media) -> tuple[File, str]:
        """The first file that still has this content; copies may be missing."""
        recipe = _recipe(media)
        uris = self._uris.get((media.sha256, recipe["ending"]))
        if not uris:
            raise SampleError(f"no sample has the content {media.sha256[:12]}…: read the manifest in again")
        reasons = []
        for uri in uris:
            try:
                file = turned(self._locate(uri), recipe.get("up"))
                if content_hash(recipe["modality"], file) == media.sha256:
                    return file, uri
                reasons.append(f"{uri}: changed since ingest; `unibind run` reads it in again")
            except SampleError as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(f"{uri}: {error.strerror or error}; mend it, or take it out of the manifest")
        raise SampleError(reasons[0])


def _recipe(media: Media) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(media.recipe)
    return recipe


def _encode_picture(file: File, recipe: Mapping[str, Any]) -> tuple[str, bytes]:
    modality, max_side = recipe["modality"], recipe["max_side"]
    drawn = read_prepared(
        modality,
        file,
        "data.render.sent:jpeg",
        # A photo is decoded at least at the size that is sent.
        reader_options={"short_side": max_side} if modality == "image" else {},
        max_side=max_side,
        quality=recipe["jpeg"],
    )
    return "image/jpeg", drawn.tobytes()


def _encode_sound(file: File, recipe: Mapping[str, Any]) -> tuple[str, bytes]:
    path = path_of(file)
    sound = read("audio", path)  # raises SampleError for a damaged file
    assert isinstance(sound, Waveform)
    form = _SENT_SOUNDS.get(recipe["ending"])
    content = _whole(path) if form else _wav(sound)
    _check_size(path, len(content))
    return f"audio/{form or 'wav'}", content


def _wav(sound: Waveform) -> bytes:
    """16-bit mono PCM. A sound beyond full scale would clip, so it is scaled down."""
    peak = max(1.0, float(np.abs(sound.samples_T).max()))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sound.rate)
        writer.writeframes(np.rint(sound.samples_T * (32767 / peak)).astype("<i2").tobytes())
    return file.getvalue()


def _encode_video(file: File, recipe: Mapping[str, Any]) -> tuple[str, bytes]:
    path = path_of(file)
    read("video", path)  # raises SampleError for a damaged file
    mime = _VIDEO_TYPES.get(recipe["ending"])
    if mime is None:
        raise SampleError(
            f"{path}: a video that is sent as it is must be one of {', '.join(_VIDEO_TYPES)}; convert it, "
            "or take `video` out of `native`"
        )
    return mime, _whole(path)


def _whole(path: Path) -> bytes:
    """An unchanged file, whose size is checked before it is read."""
    try:
        _check_size(path, path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise SampleError(f"{path}: {error.strerror or error}") from None


def _check_size(path: Path, size: int) -> None:
    if size > NATIVE_MAX_BYTES:
        raise SampleError(
            f"{path}: {size / 2**20:,.0f} MiB are more than the {NATIVE_MAX_BYTES >> 20} MiB "
            "that are sent as they are; cut it, or take its modality out of `native`"
        )


_MAKE: dict[str, Callable[[File, Mapping[str, Any]], tuple[str, bytes]]] = {
    "image": _encode_picture,
    "audio": _encode_sound,
    "video": _encode_video,
}
