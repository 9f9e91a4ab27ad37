"""NIST SPHERE, the format of speech corpora (TIMIT): its text header states the number of samples."""

from __future__ import annotations

import re
from pathlib import Path

from data.errors import SampleError
from data.readers.stretch import Stretch

_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d{1,12})\s*$", re.MULTILINE)
_CODING = re.compile(rb"^sample_coding -s\d+ (\S+)", re.MULTILINE)
_PLAIN = (b"pcm", b"ulaw", b"mu-law", b"alaw")


def nist_parts(path: Path, size: int) -> list[Stretch]:
    """The whole file. Raises `SampleError` where it has fewer samples than its header states."""
    with path.open("rb") as file:
        lines = file.read(16).split(b"\n")
        head_bytes = int(lines[1]) if len(lines) > 1 and lines[1].strip().isdigit() else 1024
        file.seek(0)
        head = file.read(min(head_bytes, 2**16))
    fields = {name: int(value) for name, value in _FIELD.findall(head)}
    coding = _CODING.search(head)
    if b"sample_count" in fields and (coding is None or coding[1] in _PLAIN):
        declared = fields[b"sample_count"] * fields.get(b"channel_count", 1)
        declared *= fields.get(b"sample_n_bytes", 2)
        here = size - head_bytes
        if declared > here:
            raise SampleError(f"{path}: truncated, {here:,} of {declared:,} bytes of sound; fetch it again")
    return [Stretch(path, 0, size)]
