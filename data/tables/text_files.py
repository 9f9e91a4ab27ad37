"""Text files in any of the usual encodings, with or without a byte-order mark; and TOML."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from data.errors import ManifestError, UniBindError
from data.reads import reading
from data.special_files import open_regular

# Longer marks first: UTF-32's begins with the bytes of UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_AROUND = 12  # bytes shown on each side of the first invalid one
# Limits far above any real project file.
_TOML_BYTES = 1 << 20
_TOML_DEPTH = 40
_TOML_DOTS = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_text(path: Path, error: type[UniBindError] = ManifestError, *, most_bytes: int | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; line ends become `\\n`.

    The byte-order mark is dropped. Raises `error` where the file has another encoding (with the likely one
    and a fix), cannot be read, or is larger than `most_bytes`.
    """
    try:
        with open_regular(reading(path)) as file:
            raw = file.read() if most_bytes is None else file.read(most_bytes + 1)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror or failure}") from None
    except ValueError as failure:  # a path with a NUL in it
        raise error(f"{str(path)!r}: cannot be read: {failure}") from None
    if most_bytes is not None and len(raw) > most_bytes:
        raise error(f"{path}: larger than {most_bytes:,} bytes; check that it is the right file")
    encoding = encoding_of(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as failure:
        raise error(f"{path}: {_why_not_text(raw, encoding, failure)}") from None
    # UTF-8 text has no such share of NULs: this is UTF-16 without a byte-order mark.
    if encoding == "utf-8" and 4 * raw.count(b"\0", 0, 4096) > len(raw[:4096]):
        raise error(f"{path}: looks like UTF-16 text without a byte-order mark; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(raw: bytes) -> str:
    """Python's name of the encoding that the byte-order mark indicates; "utf-8" without one."""
    return next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")


def _why_not_text(raw: bytes, encoding: str, failure: UnicodeDecodeError) -> str:
    if encoding != "utf-8":
        return f"begins as {encoding.removesuffix('-sig').upper()} text and breaks off ({failure.reason})"
    start = failure.start
    line = raw.count(b"\n", 0, start) + 1
    why = f"not UTF-8 text ({failure.reason} at byte {start}, line {line})"
    around = raw[max(raw.rfind(b"\n", 0, start) + 1, start - _AROUND) : start + _AROUND].partition(b"\n")[0]
    # Almost every byte is valid in Windows-1252; control characters show that it is not text.
    if any(byte < 9 for byte in raw[:4096]):
        return f"{why}; it does not look like a text file"
    shown = " ".join(around.decode("cp1252", "replace").split())
    return (
        f"{why}; as Windows-1252 (Excel's 'CSV') it would read {shown!r}: save it as 'CSV UTF-8', or "
        f"convert it with `iconv -f WINDOWS-1252 -t UTF-8`"
    )


def read_toml(path: Path, error: type[UniBindError]) -> dict[str, Any]:
    """A TOML file as nested dicts. Raises `error`, with the line, where it is not valid or cannot be read."""
    try:
        text = read_text(path, error, most_bytes=_TOML_BYTES)
        # The parser's time grows with the square of the parts of a dotted key, which is always one line.
        if any(line.count(".") > _TOML_DOTS for line in text.split("\n")):
            raise error(f"{path}: a line with more than {_TOML_DOTS} dots; check that it is the right file")
        content = tomllib.loads(text)
    except RecursionError:
        raise error(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError as failure:  # TOMLDecodeError, and errors of int() and datetime on absurd values
        raise error(f"{path}: not valid TOML: {failure}") from None
    if wrong := _first_absurd_value(content):
        raise error(f"{path}: {wrong}")
    return content


def _first_absurd_value(content: dict[str, Any]) -> str | None:
    """The first value that no setting can have: nested too deeply, a control character, over 64 bits; or
    None."""
    level: list[tuple[str, Any]] = list(content.items())
    for _ in range(_TOML_DEPTH):
        inner: list[tuple[str, Any]] = []
        for key, value in level:
            if _CONTROL.search(key):
                return f"{key!r}: a control character in a key"
            if isinstance(value, dict):
                inner += [(f"{key}.{name}", each) for name, each in value.items()]
            elif isinstance(value, list):
                inner += [(key, each) for each in value]
            elif isinstance(value, str) and (found := _CONTROL.search(value)):
                return f"{key}: holds the control character {found[0]!r}"
            elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
                return f"{key}: a number of more than 64 bits"
        if not inner:
            return None
        level = inner
    return f"{level[0][0][:60]}...: nested too deeply"
