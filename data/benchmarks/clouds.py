"""Converts the point clouds of benchmarks from text files to `.npy` files.

The official resampled ModelNet40 and ShapeNet-part have one line per point: x y z and a normal (and a part),
separated by commas or spaces. Only x y z is kept, in the file's order and units: the reader of clouds could
mistake normals without negative numbers for colours.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.record import Prepare
from data.errors import SampleError
from data.files import atomic_path
from data.readers.untrusted import MEBIBYTE, check_file, decoding
from data.sample import Sample

RECIPE = "clouds-1"
_MAX_BYTES = 64 * MEBIBYTE  # the official files have under one


def cloud_uri(text_uri: str) -> str:
    """The uri of the converted cloud of a text file: the same path with the ending `.npy`."""
    return f"{text_uri.removesuffix('.txt')}.npy"


def prepare_clouds(root: Path) -> Prepare:
    """A function that converts the text file of a sample under `root` to its `.npy` file."""

    def prepare(sample: Sample, target: Path) -> None:
        import numpy as np

        source = root / f"{sample.uri.removesuffix('.npy')}.txt"
        made = target / sample.uri
        if not source.is_file():
            raise SampleError(f"{source}: no such file")
        if made.is_file() and made.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            return
        check_file(source, max_bytes=_MAX_BYTES)
        with decoding(source, "text cloud"):
            lines = source.read_text(encoding="ascii").replace(",", " ").splitlines()
            points_NC = np.loadtxt(lines, dtype=np.float32, ndmin=2) if lines else np.zeros((0, 0))
        if points_NC.shape[1] < 3:
            raise SampleError(f"{source}: expected x y z in every line; found {points_NC.shape[1]} columns")
        with atomic_path(made) as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(points_NC[:, :3]), allow_pickle=False)

    return prepare
