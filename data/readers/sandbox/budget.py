"""Budget of time and memory for one untrusted file: `[data] seconds_per_file` and `memory_per_file`."""

from __future__ import annotations

import re
from dataclasses import dataclass

GB, MB = 10**9, 10**6
LEAST_MEMORY = 64 * MB
WAITS = 10  # limit on wall-clock time, in multiples of `seconds`: for a disk that does not respond


@dataclass(frozen=True, slots=True)
class FileBudget:
    """Limits for reading one file, beyond the decoder's own code: processor seconds and bytes of memory."""

    seconds: float = 60.0
    memory: int = 2 * GB


def parse_bytes(value: object) -> object:
    """The number of bytes of "2 GB" or "500 MB" (decimal units); values of other types unchanged."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*(MB|GB)\s*", value, re.IGNORECASE)
    if found is None:
        raise ValueError('must be a size such as "2 GB" or "500 MB"')
    return round(float(found[1]) * (GB if found[2].upper() == "GB" else MB))


def format_bytes(count: int) -> str:
    """A size for people, in the units that `parse_bytes` reads."""
    return f"{count / GB:g} GB" if count >= GB else f"{count / MB:g} MB"
