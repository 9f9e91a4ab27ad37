"""Reads text samples: UTF-8, bounded in size."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from data.errors import SampleError
from data.readers.payload import Text
from data.readers.untrusted import MEBIBYTE, check_file

MAX_BYTES = MEBIBYTE  # a sample is a text about one thing, not a book


def read_text(path: Path) -> Text:
    """Read a UTF-8 text file; a byte-order mark and outer white space are dropped."""
    check_file(path, max_bytes=MAX_BYTES)
    try:
        text = path.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SampleError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if "\0" in text:
        raise SampleError(f"{path}: contains NUL characters, so it is not a text; save it as plain UTF-8")
    if all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text):
        raise SampleError(
            f"{path}: contains nothing but white space and invisible characters; write a text into it"
        )
    return Text(text)
