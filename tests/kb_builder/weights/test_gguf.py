"""The header of a GGUF file, whole and damaged."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from data.errors import InputError
from kb_builder.weights.gguf import read_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ENTRIES = (
    entry("general.architecture", 8, text("llama")),
    entry("llama.context_length", 4, struct.pack("<I", 8192)),
    entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("c")),
    entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 3) + bytes(12)),
    entry("tokenizer.chat_template", 8, text("{{ messages }}")),
)
TENSOR = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0)


def gguf(*entries: bytes, version: int = 3, tensors: bytes = TENSOR, data: int = 64) -> bytes:
    """A file of these entries and one tensor."""
    entries = entries or ENTRIES
    head = (
        b"GGUF"
        + struct.pack("<IQQ", version, 1 if tensors else 0, len(entries))
        + b"".join(entries)
        + tensors
    )
    return head + bytes(-len(head) % 32) + bytes(data)


def test_what_the_header_says(tmp_path: Path) -> None:
    """Architecture, context and chat template; vocabularies are skipped."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    header = read_header(path)
    assert (header.architecture, header.context, header.template) == ("llama", 8192, "{{ messages }}")
    assert header.tensors == 1
    assert "tokenizer.ggml.tokens" not in header.values
    path.write_bytes(gguf(ENTRIES[0]))
    bare = read_header(path)
    assert (bare.context, bare.template) == (None, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin with GGUF"),
        (b"PK\x03\x04 a zip", "does not begin with GGUF"),
        (gguf()[:40], "cut off|damaged"),
        (gguf(data=0), "cut off"),
        (gguf(version=99), "version 99"),
        (gguf(version=3 << 24), "big-endian"),
        (gguf(ENTRIES[1]), r"general\.architecture"),
        (gguf(ENTRIES[0], ENTRIES[0]), "twice"),
        (gguf(ENTRIES[0], entry("x", 99, b"")), r"unknown \(99\)"),
        (gguf(ENTRIES[0], entry("x", 8, struct.pack("<Q", 2**62))), "damaged"),
        (gguf(ENTRIES[0], entry("x", 9, struct.pack("<IQ", 8, 2**62))), "damaged"),
        (gguf(ENTRIES[0], entry("x", 9, struct.pack("<IQ", 10, 2**61))), "cut off"),
        (gguf(ENTRIES[0], entry("x", 9, struct.pack("<IQ", 9, 1) * 9)), "unknown|damaged|cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63), "damaged"),
        (gguf(tensors=text("t") + struct.pack("<IQIQ", 1, 0, 0, 0)), "sizes"),
        (gguf(tensors=text("t") + struct.pack("<I", 4_000_000_000)), "dimensions"),
        (gguf(ENTRIES[0], entry("general.alignment", 4, struct.pack("<I", 0))), "alignment"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    """What is wrong and which file; counts beyond its size cost neither time nor memory."""
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_flipped_byte_is_a_traceback(tmp_path: Path) -> None:
    """Any header that was damaged anywhere reads, or is refused by name."""
    path = tmp_path / "m.gguf"
    draw = random.Random(0)
    whole = gguf()
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        try:
            read_header(path)
        except InputError as error:
            assert str(path) in str(error)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """A missing file and a folder."""
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_header(path)
