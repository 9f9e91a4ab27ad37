"""Reads point clouds: PLY, PCD, OFF, OBJ, STL, glTF, text, NPY, torch tensors. Meshes are sampled by area."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import TypeAlias

import numpy as np

from data.errors import SampleError
from data.readers.axes import Up, format_up, rotate_z_up
from data.readers.lookup import POINT_FORMATS, find_function
from data.readers.payload import AnyArray, Bytes, Points
from data.readers.points.colours import as_colours
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 256 * MEBIBYTE
MAX_POINTS = 5_000_000
MIN_POINTS = 16  # fewer define no shape
MAX_COLUMNS = 16  # of an array of points: coordinates, colours, normals and a few more; beyond: a picture
NPY_MAGIC = b"\x93NUMPY"

# The output of a format's reader: xyz[N, 3] of any number type, and uint8[N, 3] colours or None.
RawCloud: TypeAlias = tuple[AnyArray, Bytes | None]


def read_point(path: Path, *, up: Up | None = None) -> Points:
    """Read a cloud in the file's own units and order, rotated so that z points up.

    A mesh becomes `mesh.SURFACE_POINTS` points by area. `up`: the axis that points up in the file; by default
    that of its format (`data.readers.axes`).

    A cloud more than a thousand times its size away from the origin is centred: float32 could not resolve it.
    Raises `SampleError` for fewer than `MIN_POINTS` points, for points that all coincide and for coordinates
    that are not finite.
    """
    reader = POINT_FORMATS.get(path.suffix.lower())
    if reader is None:
        raise SampleError(
            f"{path}: no point cloud format ends in {path.suffix!r}; use {', '.join(sorted(POINT_FORMATS))}"
        )
    check_file(path, max_bytes=MAX_BYTES)
    with decoding(path, "cloud"):
        raw_N3, rgb_N3 = find_function(reader)(path)
    if raw_N3.ndim != 2 or raw_N3.shape[1] != 3:
        raise SampleError(f"{path}: its points do not have three coordinates; export the cloud again")
    if len(raw_N3) < MIN_POINTS:
        raise SampleError(f"{path}: {len(raw_N3)} points are fewer than {MIN_POINTS}; use a denser cloud")
    if len(raw_N3) > MAX_POINTS:
        raise SampleError(f"{path}: {len(raw_N3):,} points are more than {MAX_POINTS:,}; thin the cloud")
    if not np.isfinite(raw_N3).all():
        raise SampleError(f"{path}: holds NaN or infinite coordinates; remove those points")
    # Geo-referenced clouds are millions of metres from the origin, where float32 cannot resolve centimetres.
    wide_N3 = raw_N3.astype(np.float64)
    middle_3 = (wide_N3.min(axis=0) + wide_N3.max(axis=0)) / 2
    reach = np.abs(wide_N3 - middle_3).max()
    if not 0 < reach < 1e18:  # squares must stay within float32
        raise SampleError(f"{path}: all points coincide, or are absurdly far apart; export the cloud again")
    if np.abs(middle_3).max() > 1000 * reach:
        wide_N3 -= middle_3
    return Points(rotate_z_up(wide_N3, up or format_up(path)).astype(np.float32), rgb_N3)


def columns_to_cloud(columns_NC: AnyArray, path: Path) -> RawCloud:
    """Split columns x y z [+ three more]; the three are colours if `as_colours` accepts them."""
    if columns_NC.ndim == 3 and columns_NC.shape[0] == 1:
        columns_NC = columns_NC[0]  # a batch of one
    shape = list(columns_NC.shape)
    if columns_NC.ndim != 2 or columns_NC.shape[1] < 3 or columns_NC.dtype.kind not in "iuf":
        raise SampleError(f"{path}: {columns_NC.dtype}{shape} is not a point cloud; save numbers as [N, 3]")
    if shape[1] > MAX_COLUMNS:
        turned = shape[0] in {3, 4, 6, 7, 9}
        hint = "save it transposed, as [N, 3]" if turned else "a picture or a table is no cloud; save [N, 3]"
        raise SampleError(f"{path}: an array of shape {shape} has too many columns for points: {hint}")
    return columns_NC[:, :3], as_colours(columns_NC[:, 3:6]) if columns_NC.shape[1] == 6 else None


def read_npy(path: Path) -> RawCloud:
    """One NumPy array [N, 3] or [N, 6], or a batch of one; never a pickle."""
    with path.open("rb") as file:
        # Otherwise NumPy assumes a pickle, and advises to allow it.
        if file.read(len(NPY_MAGIC)) != NPY_MAGIC:
            raise SampleError(f"{path}: not a NumPy array; save it with np.save")
    with decoding(path, "NumPy array"):
        # Memory-mapped: a header that declares more than the file has is refused before memory is allocated.
        columns_NC = np.load(path, mmap_mode="r", allow_pickle=False)
    beyond = path.stat().st_size - columns_NC.offset - columns_NC.nbytes
    if beyond:
        raise SampleError(
            f"{path}: {beyond:,} bytes behind its array, which would not be read; save one array in a file"
        )
    return columns_to_cloud(columns_NC, path)


def read_torch(path: Path) -> RawCloud:
    """One dense tensor saved by torch ≥ 1.6, loaded without unpickling anything but tensors."""
    import torch

    with decoding(path, "torch tensor"), zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_BYTES:
        raise SampleError(f"{path}: decompresses to {unpacked / MEBIBYTE:,.0f} MiB; save a smaller tensor")
    try:
        with decoding(path, "torch tensor"):
            tensor = torch.load(path, map_location="cpu", weights_only=True)
    except SampleError as refused:
        if not isinstance(refused.__cause__, pickle.UnpicklingError):
            raise
        # torch's own message advises to switch this protection off.
        raise SampleError(
            f"{path}: contains more than tensors, which is not loaded; save one tensor"
        ) from refused
    if not isinstance(tensor, torch.Tensor):
        raise SampleError(f"{path}: contains a {type(tensor).__name__}; save one tensor of shape [N, 3]")
    # A view with stride 0 can claim any size over a few bytes: check the size before copying.
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise SampleError(f"{path}: not a plain dense tensor; save tensor.dense().float()")
    if tensor.numel() * tensor.element_size() > MAX_BYTES:
        raise SampleError(f"{path}: a tensor of shape {list(tensor.shape)} is too large; save fewer points")
    with decoding(path, "torch tensor"):
        plain = tensor.detach().to(torch.float64).numpy()
    return columns_to_cloud(plain, path)
