"""Event streams: N-Caltech101, N-ImageNet, Prophesee, AEDAT 4, and streams that somebody drew."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.event_columns import MAX_EVENTS, checked_events
from data.readers.image import read_image
from data.readers.payload import AnyArray, Events, Picture
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 256 * MEBIBYTE  # packed; `.npz` is held to as much unpacked

BIN_SENSOR = (240, 180)  # width, height of an N-Caltech101 recording
BIN_EVENT_BYTES = 5
# N-Caltech101's own readers take an "event" on row 240, below the sensor, as the mark of a timer that ran
# over: 2^13 µs are added from there on, and the mark is dropped (gorchard/event-Python, eventvision.py).
BIN_OVERFLOW_ROW, BIN_OVERFLOW_US = 240, 2**13
NPZ_SENSOR = (640, 480)  # width, height of N-ImageNet's camera (Samsung DVS Gen3)
NPZ_FIELDS = ("x", "y", "t", "p")


def read_event(path: Path) -> Events | Picture:
    """Read an event stream by its ending, see `READERS`; any other ending is read as a drawn picture.

    Raises `SampleError` for no events, torn files, and pixels outside the sensor.
    """
    return READERS.get(path.suffix.lower(), read_image)(path)


def _read_bin(path: Path) -> Events:
    """N-Caltech101: five bytes an event, big-endian: x, y, one bit of polarity, 23 bits of microseconds."""
    size = check_file(path, max_bytes=min(MAX_BYTES, MAX_EVENTS * BIN_EVENT_BYTES))
    if size % BIN_EVENT_BYTES:
        raise SampleError(
            f"{path}: {size:,} bytes are no whole number of {BIN_EVENT_BYTES}-byte events; fetch it again"
        )
    raw_N5 = np.fromfile(path, dtype=np.uint8).reshape(-1, BIN_EVENT_BYTES)
    x_N, y_N, high_N, middle_N, low_N = np.ascontiguousarray(raw_N5.T)
    t_us_N = (high_N & 0x7F).astype(np.int64) << 16 | middle_N.astype(np.int32) << 8 | low_N
    p_N = high_N > 0x7F
    overflow_N = y_N == BIN_OVERFLOW_ROW
    if overflow_N.any():
        t_us_N += BIN_OVERFLOW_US * np.cumsum(overflow_N)
        x_N, y_N, t_us_N, p_N = (column[~overflow_N] for column in (x_N, y_N, t_us_N, p_N))
    return checked_events(path, x_N, y_N, t_us_N, p_N, sensor=BIN_SENSOR)


def _read_npz(path: Path) -> Events:
    """N-ImageNet: `event_data`, records of x, y, t (microseconds), p, or those four as [N, 4] columns."""
    check_file(path, max_bytes=MAX_BYTES)
    events = _load_npz(path)
    if events.dtype.names is not None:
        if missing := [name for name in NPZ_FIELDS if name not in events.dtype.names]:
            raise SampleError(
                f"{path}: event_data lacks {', '.join(missing)}; it needs the fields x, y, t and p"
            )
        columns = [events[name].ravel() for name in NPZ_FIELDS]
    elif events.ndim == 2 and events.shape[1] == 4:
        columns = list(events.T)
    else:
        raise SampleError(
            f"{path}: event_data has shape {events.shape}; it needs fields x, y, t, p or four columns"
        )
    return checked_events(path, *columns, sensor=NPZ_SENSOR)


def _load_npz(path: Path) -> AnyArray:
    """`event_data` of a zip whose directory says how large it unpacks, so that no zip bomb is unpacked."""
    with decoding(path, "N-ImageNet event file"), zipfile.ZipFile(path) as archive:
        if "event_data.npy" not in archive.namelist():
            raise SampleError(f"{path}: holds no event_data; save it with np.savez(…, event_data=…)")
        unpacked = archive.getinfo("event_data.npy").file_size
        if unpacked > MAX_BYTES:
            raise SampleError(
                f"{path}: unpacks to {unpacked / MEBIBYTE:,.0f} MiB, more than "
                f"{MAX_BYTES / MEBIBYTE:,.0f}; cut the recording"
            )
        with archive.open("event_data.npy") as member:
            # zipfile gives no more than `file_size` bytes: a header that declares more ends in an error.
            events: AnyArray = np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
    return events


def _read_dat(path: Path) -> Events:
    from data.readers.prophesee import read_dat

    return read_dat(path)


def _read_raw(path: Path) -> Events:
    from data.readers.prophesee import read_raw

    return read_raw(path)


def _read_aedat(path: Path) -> Events:
    from data.readers.aedat import read_aedat

    return read_aedat(path)


READERS: dict[str, Callable[[Path], Events | Picture]] = {
    ".bin": _read_bin,
    ".npz": _read_npz,
    ".dat": _read_dat,
    ".raw": _read_raw,
    ".aedat4": _read_aedat,
}
