"""Reads PCD, the format of the Point Cloud Library, version 0.7: `ascii`, `binary`, `binary_compressed`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.errors import SampleError
from data.readers.payload import AnyArray, Bytes
from data.readers.points.colours import named_colours
from data.readers.untrusted import MEBIBYTE, decoding

MAX_HEADER_LINES = 1024
MAX_LINE_BYTES = 2**16
MAX_UNPACKED = 256 * MEBIBYTE


def read_pcd(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None). Points with NaN are invalid by PCL's definition, and dropped.

    Source: the PCD file format page of the Point Cloud Library; `rgb` packs 0x00RRGGBB into four bytes,
    `rgba` 0xAARRGGBB.
    """
    with decoding(path, "PCD cloud"), path.open("rb") as file:
        head = _header(file)
        if missing := [key for key in ("FIELDS", "SIZE", "TYPE", "DATA") if not head.get(key)]:
            raise SampleError(f"{path}: its header lacks {', '.join(missing)}; export the cloud again")
        counts = [int(count) for count in head.get("COUNT", ["1"] * len(head["FIELDS"]))]
        kinds = [f"<{kind.lower()}{size}" for kind, size in zip(head["TYPE"], head["SIZE"], strict=True)]
        fields = list(zip(_distinct(head["FIELDS"]), kinds, [(count,) for count in counts], strict=True))
        row_type, rows, encoding = np.dtype(fields), _rows(head, path), head["DATA"][0].lower()
        body = file.read()
    if not set("xyz") <= set(row_type.names or ()):
        raise SampleError(f"{path}: has no fields x, y and z; export the cloud again")
    with decoding(path, "PCD cloud"):
        cloud = _decode(path, body, row_type, rows, encoding)
        xyz_N3 = np.concatenate([cloud[axis] for axis in "xyz"], axis=1).astype(np.float64)
        rgb_N3 = _colours(cloud)
    valid_N = ~np.isnan(xyz_N3).any(axis=1)
    return xyz_N3[valid_N], None if rgb_N3 is None else rgb_N3[valid_N]


def _header(file: BinaryIO) -> dict[str, list[str]]:
    """The values of each key, up to DATA. Comments may be in any encoding."""
    head: dict[str, list[str]] = {}
    for _ in range(MAX_HEADER_LINES):
        line = file.readline(MAX_LINE_BYTES).decode("latin-1").lstrip("ï»¿").strip()
        key, *values = line.split() or ["#"]
        if not key.startswith("#"):
            head[key.upper()] = values
        if key.upper() == "DATA":
            break
    if "COLUMNS" in head:  # version 0.5
        head.setdefault("FIELDS", head["COLUMNS"])
    return head


def _rows(head: dict[str, list[str]], path: Path) -> int:
    """The number of points: POINTS, or without it WIDTH × HEIGHT, as in PCL and Open3D."""
    if head.get("POINTS"):
        return int(head["POINTS"][0])
    if not head.get("WIDTH"):
        raise SampleError(f"{path}: its header has neither POINTS nor WIDTH; export the cloud again")
    return int(head["WIDTH"][0]) * int((head.get("HEIGHT") or ["1"])[0])


def _colours(cloud: AnyArray) -> Bytes | None:
    """uint8[N, 3] of `rgb` or `rgba` (four bytes packed as a float or an integer), or of r, g and b."""
    names = cloud.dtype.names or ()
    for name in ("rgb", "rgba"):
        if name in names and cloud.dtype[name].itemsize == 4:
            # Little-endian 0xAARRGGBB: blue comes first.
            packed_N4 = np.ascontiguousarray(cloud[name]).view(np.uint8).reshape(-1, 4)
            return np.ascontiguousarray(packed_N4[:, 2::-1])
    for parts in (("r", "g", "b"), ("red", "green", "blue")):
        if set(parts) <= set(names):
            return named_colours(np.concatenate([cloud[part] for part in parts], axis=1))
    return None


def _decode(path: Path, body: bytes, row_type: np.dtype[np.void], rows: int, encoding: str) -> AnyArray:
    if encoding == "binary":
        if rows * row_type.itemsize > len(body):
            raise SampleError(f"{path}: truncated, {rows:,} points are declared; fetch it again")
        there, more = len(body) // row_type.itemsize, body[rows * row_type.itemsize :]
        if there > rows and more.strip(b"\0"):
            raise SampleError(f"{path}: contains {there:,} points, {rows:,} are declared; export it again")
        return np.frombuffer(body, row_type, count=rows)
    if encoding == "binary_compressed":
        return _decode_packed(path, body, row_type, rows)
    if encoding == "ascii":
        flat = np.loadtxt(body.decode("latin-1").splitlines(), dtype=np.float64, ndmin=2)
        if flat.shape[1] != sum(row_type[name].shape[0] for name in row_type.names or ()):
            raise SampleError(
                f"{path}: its lines have {flat.shape[1]} numbers, not as many as declared; export it again"
            )
        if len(flat) != rows:
            raise SampleError(f"{path}: {len(flat):,} of {rows:,} declared points are there; fetch it again")
        return _to_rows(flat, row_type)
    raise SampleError(f"{path}: PCD data {encoding!r} is not read; save it as binary")


def _decode_packed(path: Path, body: bytes, row_type: np.dtype[np.void], rows: int) -> AnyArray:
    """Two sizes, then the values of each field in turn (by column), compressed together by LZF."""
    packed, unpacked = struct.unpack_from("<II", body)
    if unpacked != rows * row_type.itemsize or unpacked > MAX_UNPACKED or packed > len(body) - 8:
        raise SampleError(f"{path}: truncated, {rows:,} points are declared; fetch it again")
    columns = _unpack_lzf(body[8 : 8 + packed], unpacked)
    cloud = np.zeros(rows, row_type)
    start = 0
    for name in row_type.names or ():
        field = row_type[name]
        cloud[name] = np.frombuffer(columns, field.base, rows * field.shape[0], start).reshape(rows, -1)
        start += rows * field.itemsize
    return cloud


def _unpack_lzf(packed: bytes, size: int) -> bytes:
    """Decompress LZF (Marc Lehmann's LibLZF): literal runs, and copies of earlier bytes.

    Raises ValueError where the result has not exactly `size` bytes.
    """
    out = bytearray()
    at = 0
    while at < len(packed) and len(out) <= size:
        control = packed[at]
        at += 1
        if control < 32:  # a run of control + 1 bytes
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[at]
            at += 1
        back = (control & 31) << 8 | packed[at]
        at += 1
        if back >= len(out):
            raise ValueError("a reference before the beginning")
        source = out[len(out) - back - 1 :][: length + 2]
        repeats = -(-(length + 2) // len(source))  # a copy may overlap its own output: a repeated pattern
        out += (source * repeats)[: length + 2]
    if len(out) != size:
        raise ValueError(f"{len(out):,} of {size:,} bytes")
    return bytes(out)


def _to_rows(flat_NC: AnyArray, row_type: np.dtype[np.void]) -> AnyArray:
    cloud = np.zeros(len(flat_NC), row_type)
    column = 0
    for name in row_type.names or ():
        width = row_type[name].shape[0]
        values = flat_NC[:, column : column + width]
        if name in {"rgb", "rgba"} and row_type[name].base == np.float32 and _are_packed(values):
            values = values.astype(np.uint32).view(np.float32)
        with np.errstate(invalid="ignore"):  # NaN and numbers that are too large: refused below
            cloud[name] = values
        if row_type[name].base.kind in "iu" and (cloud[name] != values).any():
            raise ValueError(f"a number of {name} does not fit the type that is declared")
        column += width
    return cloud


def _are_packed(values: AnyArray) -> bool:
    """Whether colours declared as floats are written as integers: their floats are below 1, or negative."""
    return bool((values >= 1).any() and ((values >= 0) & (values < 2**32) & (values % 1 == 0)).all())


def _distinct(names: list[str]) -> list[str]:
    """Distinct field names for NumPy: PCL calls every padding field `_`."""
    return [f"_{i}" if name == "_" else name for i, name in enumerate(names)]
