"""PCD, the Point Cloud Library's format, version 0.7: `ascii` and `binary` data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.untrusted import decoding

MAX_HEADER_LINES = 64


def read_pcd(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None). Points marked invalid by NaN are dropped, as PCL defines them.

    Source: the PCD file format page of the Point Cloud Library; `rgb` packs 0x00RRGGBB into four bytes.
    """
    with decoding(path, "PCD cloud"), path.open("rb") as file:
        head: dict[str, list[str]] = {}
        for _ in range(MAX_HEADER_LINES):
            key, *values = file.readline().decode("ascii").split() or ["#"]
            head[key] = values
            if key == "DATA":
                break
        counts = [int(count) for count in head.get("COUNT", ["1"] * len(head["FIELDS"]))]
        kinds = [f"<{kind.lower()}{size}" for kind, size in zip(head["TYPE"], head["SIZE"], strict=True)]
        fields = list(zip(_distinct(head["FIELDS"]), kinds, [(count,) for count in counts], strict=True))
        row_type, rows, encoding = np.dtype(fields), int(head["POINTS"][0]), head["DATA"][0]
        body = file.read()
    with decoding(path, "PCD cloud"):
        cloud = _decode(path, body, row_type, rows, encoding)
        xyz_N3 = np.concatenate([cloud[axis] for axis in "xyz"], axis=1).astype(np.float64)
        rgb_N3 = None
        if "rgb" in (cloud.dtype.names or ()) and cloud.dtype["rgb"].itemsize == 4:
            # Little-endian 0x00RRGGBB: blue comes first.
            packed_N4 = np.ascontiguousarray(cloud["rgb"]).view(np.uint8).reshape(-1, 4)
            rgb_N3 = np.ascontiguousarray(packed_N4[:, 2::-1])
    valid_N = ~np.isnan(xyz_N3).any(axis=1)
    return xyz_N3[valid_N], None if rgb_N3 is None else rgb_N3[valid_N]


def _decode(path: Path, body: bytes, row_type: np.dtype[np.void], rows: int, encoding: str) -> AnyArray:
    if encoding == "binary":
        if rows * row_type.itemsize > len(body):
            raise SampleError(f"{path}: truncated, {rows:,} points are declared; fetch it again")
        return np.frombuffer(body, row_type, count=rows)
    if encoding == "ascii":
        flat = np.loadtxt(body.decode("ascii").splitlines(), dtype=np.float64, ndmin=2)
        if len(flat) != rows:
            raise SampleError(f"{path}: {len(flat):,} of {rows:,} declared points are there; fetch it again")
        return _to_rows(flat, row_type)
    raise SampleError(f"{path}: PCD data {encoding!r} is not read; save it as binary or ascii")


def _to_rows(flat_NC: AnyArray, row_type: np.dtype[np.void]) -> AnyArray:
    cloud = np.zeros(len(flat_NC), row_type)
    column = 0
    for name in row_type.names or ():
        width = row_type[name].shape[0]
        cloud[name] = flat_NC[:, column : column + width]
        column += width
    return cloud


def _distinct(names: list[str]) -> list[str]:
    """PCL calls every padding field `_`; NumPy wants distinct names."""
    return [f"_{i}" if name == "_" else name for i, name in enumerate(names)]
