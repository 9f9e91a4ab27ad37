"""Validation of chat requests, with the errors of OpenAI."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from typing import Any

from kb_builder.fake_openai.errors import ApiError
from kb_builder.fake_openai.schema import SchemaError, check_strict

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)
_ROLES = {"system", "developer", "user", "assistant", "tool"}
_PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_SOUND_STARTS = {"wav": (b"RIFF",), "mp3": (b"ID3", b"\xff")}
_TILE = 512  # pixels; a picture costs a fixed number of tokens, and some per tile
_PICTURE_TOKENS, _TILE_TOKENS = 85, 170
_BYTES_PER_TOKEN = 1000  # of sound and video: this server does not decode them
_MOST_CHOICES = 128


def check_request(body: Any) -> int:
    """The prompt's tokens: a quarter of its characters, and those of its media. Raises `ApiError`."""
    if not isinstance(body, Mapping):
        raise ApiError(400, "The request's body must be a JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise ApiError(400, "you must provide a model parameter", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "'messages' must be an array with at least one message.", param="messages")
    if body.get("stream"):
        raise ApiError(400, "This server does not stream.", param="stream")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, _MOST_CHOICES)):
        value = body.get(name)
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise ApiError(400, f"Invalid '{name}': expected {low} to {high}, got {value!r}.", param=name)
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ApiError(400, f"Invalid '{name}': expected at least 1, got {value!r}.", param=name)
    _check_format(body.get("response_format"))
    return sum(_check_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _check_format(given: Any) -> None:
    if given is None:
        return
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind not in {"text", "json_object", "json_schema"}:
        raise ApiError(400, f"Invalid response_format type {kind!r}.", param="response_format")
    if kind != "json_schema":
        return
    wanted = given.get("json_schema")
    if (
        not isinstance(wanted, Mapping)
        or not wanted.get("name")
        or not isinstance(wanted.get("schema"), dict)
    ):
        raise ApiError(400, "json_schema needs a name and a schema.", param="response_format")
    if wanted.get("strict"):
        try:
            check_strict(wanted["schema"])
        except SchemaError as error:
            raise ApiError(
                400,
                f"Invalid schema for response_format '{wanted['name']}': {error}",
                param="response_format",
            ) from None


def _check_message(message: Any, where: str) -> int:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        raise ApiError(400, f"Invalid '{where}.role': one of {sorted(_ROLES)} is expected.", param=where)
    content = message.get("content")
    if isinstance(content, str):
        return tokens(content)
    if content is None and message["role"] == "assistant":
        return 0
    if not isinstance(content, list) or not content:
        raise ApiError(400, f"Invalid '{where}.content': a string or an array of parts.", param=where)
    return sum(_check_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))


def _check_part(part: Any, where: str) -> int:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return tokens(part["text"])
    inner = part.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, Mapping):
        raise ApiError(400, f"Invalid '{where}': content of type {kind!r} is not understood.", param=where)
    if kind == "image_url":
        return _picture_tokens(inner.get("url"), where)
    if kind == "input_audio":
        return _sound_tokens(inner, where)
    if kind == "video_url":
        found, data = _data_url(inner.get("url"), where)
        if not found.startswith("video/") or not data:
            raise ApiError(400, f"Invalid '{where}': not a video, but {found}.", param=where)
        return -(-len(data) // _BYTES_PER_TOKEN)
    raise ApiError(400, f"Invalid '{where}': content of type {kind!r} is not understood.", param=where)


def _picture_tokens(url: Any, where: str) -> int:
    from PIL import Image, UnidentifiedImageError

    found, data = _data_url(url, where)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            picture.verify()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        width = 0
    if not width or found not in _PICTURES:
        raise ApiError(
            400,
            "You uploaded an unsupported image. Please make sure your image is valid and has one of the "
            f"following formats: {sorted(_PICTURES)}.",
            code="invalid_image_format",
            param=where,
        )
    return _PICTURE_TOKENS + _TILE_TOKENS * -(-width // _TILE) * -(-height // _TILE)


def _sound_tokens(given: Mapping[str, Any], where: str) -> int:
    starts = _SOUND_STARTS.get(str(given.get("format")))
    data = _decode(given.get("data"), where)
    if starts is None or not data.startswith(starts):
        raise ApiError(400, f"Invalid '{where}': not {given.get('format')!r} sound.", param=where)
    return -(-len(data) // _BYTES_PER_TOKEN)


def _data_url(url: Any, where: str) -> tuple[str, bytes]:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ApiError(
            400,
            f"Invalid '{where}': a data URL is expected; this server fetches nothing.",
            code="invalid_image_url",
            param=where,
        )
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise ApiError(
            400,
            f"Invalid '{where}': expected a base64-encoded data URL with a media type "
            f"(e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), but got a value without one.",
            code="invalid_base64",
            param=where,
        )
    return match["type"], _decode(match["data"], where)


def _decode(data: Any, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ApiError(
            400, f"Invalid '{where}': the base64 is broken.", code="invalid_base64", param=where
        ) from None


def tokens(text: str) -> int:
    """The tokens of a text: a quarter of its characters, rounded up."""
    return -(-len(text) // 4)
