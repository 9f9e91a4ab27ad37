"""Reads STL meshes, binary and text. Source: Marshall Burns, "Automated Fabrication" (1993), section 6.5."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.mesh import sample_mesh
from data.readers.untrusted import decoding

HEAD_BYTES, FACET_BYTES = 84, 50
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_NUMBER = r"\s+([-+.\deEnaifNAIF]+)"
_VERTEX = re.compile(r"^\s*vertex" + 3 * _NUMBER + r"\s*$", re.MULTILINE | re.IGNORECASE)


def read_stl(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], None) sampled over the surface. Raises `SampleError` for truncated files, or no triangles.

    A binary file may begin with "solid", like text; it is recognised by its length, which the header implies.
    """
    data = path.read_bytes()
    facets = int.from_bytes(data[80:HEAD_BYTES], "little") if len(data) >= HEAD_BYTES else 0
    whole = HEAD_BYTES + facets * FACET_BYTES
    is_text = data[:256].lstrip().lower().startswith(b"solid") and b"facet" in data[:4096].lower()
    if len(data) >= HEAD_BYTES and whole <= len(data) and not (is_text and whole < len(data)):
        if data[whole:].strip(b"\0\r\n\x1a "):
            raise SampleError(
                f"{path}: {len(data) - whole:,} bytes after the {facets:,} triangles declared in its header; "
                "export it again"
            )
        rows = np.frombuffer(data, FACET, count=facets, offset=HEAD_BYTES)
        corners = rows["corners"].reshape(-1, 3)
    elif is_text:
        corners = _text(data, path)
    else:
        there = max(0, len(data) - HEAD_BYTES) // FACET_BYTES
        raise SampleError(f"{path}: truncated, {there:,} of {facets:,} triangles are there; fetch it again")
    if not len(corners):
        raise SampleError(f"{path}: contains no triangles; export the mesh again")
    return sample_mesh(path, corners, np.arange(len(corners)).reshape(-1, 3))


def _text(data: bytes, path: Path) -> AnyArray:
    """float64[3 · triangles, 3]."""
    text = data.decode("latin-1")
    lowered = text.lower()
    facets = len(re.findall(r"^\s*facet\b", lowered, re.MULTILINE))
    ends = len(re.findall(r"^\s*endfacet\b", lowered, re.MULTILINE))
    found = _VERTEX.findall(text)
    if facets != ends or "endsolid" not in lowered or len(found) != 3 * facets:
        raise SampleError(
            f"{path}: truncated or damaged, {facets:,} triangles begin and {ends:,} end; fetch it again"
        )
    with decoding(path, "STL mesh"):
        return np.array(found, dtype=np.float64).reshape(-1, 3)
