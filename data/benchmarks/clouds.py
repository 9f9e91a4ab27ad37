"""Point clouds in text files, which become `.npy` files of ours.

The official resampled ModelNet40 and ShapeNet-part have one line a point: x y z and a normal (and a part),
parted by commas or spaces. Only x y z is kept, in the file's order and units: the reader of clouds would take
normals that have no negative number for colours.
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
    """Where the cloud of a text file will lie: the same path with the ending `.npy`."""
    return f"{text_uri.removesuffix('.txt')}.npy"


def prepare_clouds(root: Path) -> Prepare:
    """A function that makes the `.npy` file of a sample from the text file under `root`."""

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
