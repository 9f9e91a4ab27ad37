"""Reads event streams: N-Caltech101, N-ImageNet, Prophesee, AEDAT 4, and streams rendered as pictures."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from data.errors import SampleError
from data.readers.events.columns import MAX_EVENTS, checked_events
from data.readers.lookup import EVENT_FORMATS, find_function
from data.readers.payload import AnyArray, Events, Picture
from data.readers.pictures.image import read_image
from data.readers.untrusted import MEBIBYTE, check_file, decoding

MAX_BYTES = 256 * MEBIBYTE  # of the file, and of an `.npz` after decompression

BIN_SENSOR = (240, 180)  # width, height of an N-Caltech101 recording
BIN_EVENT_BYTES = 5
# In N-Caltech101 an "event" on row 240, below the sensor, marks an overflow of the timer: 2^13 µs are added
# to all later times, and the mark is dropped (as in gorchard/event-Python, eventvision.py).
BIN_OVERFLOW_ROW, BIN_OVERFLOW_US = 240, 2**13
NPZ_SENSOR = (640, 480)  # width, height of N-ImageNet's camera (Samsung DVS Gen3)
UNITS_US = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # microseconds
MAX_UNIT_BYTES = 1024
MOST_FALLS = 0.1  # share of the events that are earlier than the one before, in a recording by time
MAX_SPAN_US = 3.6e9  # an hour; longer times must be in another unit, such as nanoseconds
NPZ_FIELDS = ("x", "y", "t", "p")


def read_event(path: Path) -> Events | Picture:
    """Read an event stream by its ending, see `EVENT_FORMATS`; any other ending is read as a rendered
    picture.

    Raises `SampleError` for files without events, truncated files, and pixels outside the sensor.
    """
    name = EVENT_FORMATS.get(path.suffix.lower())
    found: Events | Picture = read_image(path) if name is None else find_function(name)(path)
    return found


def is_recording(path: Path) -> bool:
    """Whether a file is read as events, by its ending; else it is a picture rendered from events."""
    return path.suffix.lower() in EVENT_FORMATS


def read_bin(path: Path) -> Events:
    """N-Caltech101: five bytes an event, big-endian: x, y, one bit of polarity, 23 bits of microseconds."""
    size = check_file(path, max_bytes=min(MAX_BYTES, MAX_EVENTS * BIN_EVENT_BYTES))
    if size % BIN_EVENT_BYTES:
        raise SampleError(
            f"{path}: {size:,} bytes are not a whole number of {BIN_EVENT_BYTES}-byte events; fetch it again"
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


def read_npz(path: Path) -> Events:
    """N-ImageNet: `event_data`, records of x, y, t (microseconds), p, or those four as [N, 4] columns.

    `time_unit` beside it, one of `UNITS_US`, gives another unit of t.
    """
    check_file(path, max_bytes=MAX_BYTES)
    events, unit = _load_npz(path)
    if events.dtype.names is not None:
        if missing := [name for name in NPZ_FIELDS if name not in events.dtype.names]:
            raise SampleError(
                f"{path}: event_data lacks {', '.join(missing)}; it needs the fields x, y, t and p"
            )
        columns = [events[name].ravel() for name in NPZ_FIELDS]
    elif events.ndim == 2 and events.shape[1] == 4:
        columns = list(events.T)
        _check_order(path, columns[0], columns[2])
    else:
        raise SampleError(
            f"{path}: event_data has shape {events.shape}; it needs fields x, y, t, p or four columns"
        )
    x_N, y_N, t_N, p_N = columns
    t_us_N = _microseconds(path, t_N, unit)
    _check_clock(path, t_us_N)
    return checked_events(path, x_N, y_N, t_us_N, p_N, sensor=NPZ_SENSOR)


def _check_order(path: Path, first_N: AnyArray, third_N: AnyArray) -> None:
    """Raise `SampleError` for columns t, x, y, p, whose times can pass for pixels in a short recording."""
    if (third_N[1:] < third_N[:-1]).any() and (first_N[1:] >= first_N[:-1]).all():
        raise SampleError(
            f"{path}: its first column is sorted like times, its third is not; save the columns x, y, t, p"
        )


def _check_clock(path: Path, t_N: AnyArray) -> None:
    """Raise `SampleError` for a timer that ran over: times that grow, and fall by half of the recording.

    Events in no order at all, half of which fall, are no such case: no representation depends on the order.
    """
    back = np.flatnonzero(t_N[1:] < t_N[:-1]) if t_N.dtype.kind in "iuf" else np.zeros(0, np.int64)
    if not 0 < len(back) <= MOST_FALLS * len(t_N):
        return
    falls = t_N[back].astype(np.float64) - t_N[back + 1].astype(np.float64)
    if falls.max() > (float(t_N.max()) - float(t_N.min())) / 2:
        n = int(back[falls.argmax()])
        raise SampleError(
            f"{path}: after event {n} the times go back from {t_N[n]} to {t_N[n + 1]}; undo the overflow of "
            "the timer"
        )


def _microseconds(path: Path, t_N: AnyArray, unit: str | None) -> AnyArray:
    """Times in microseconds: converted and rounded if the file names another unit, else unchanged.

    Raises `SampleError` for fractions and for recordings of hours: their unit must be another one, which
    cannot be guessed.
    """
    if t_N.dtype.kind not in "iuf" or not len(t_N):
        return t_N  # `checked_events` reports what is wrong
    if unit is not None:
        if unit not in UNITS_US:
            raise SampleError(f"{path}: time_unit is {unit!r}; it may be {', '.join(UNITS_US)}")
        if unit == "us" and t_N.dtype.kind != "f":
            return t_N
        if unit == "ns" and t_N.dtype.kind != "f":
            t_N = t_N - t_N.min()  # nanoseconds since 1970 are more than a float holds
        return np.rint(t_N.astype(np.float64) * UNITS_US[unit])
    how = 'save whole microseconds, or say the unit: np.savez(…, time_unit="s"), or "ms", "us", "ns"'
    finite = t_N.dtype.kind != "f" or bool(np.isfinite(t_N).all())
    if finite and t_N.dtype.kind == "f" and (t_N != np.rint(t_N)).any():
        raise SampleError(f"{path}: its times are fractions (up to {t_N.max():.6g}), not microseconds; {how}")
    if finite and float(t_N.max()) - float(t_N.min()) > MAX_SPAN_US:
        hours = (float(t_N.max()) - float(t_N.min())) / 3.6e9
        raise SampleError(f"{path}: {hours:,.1f} hours, if its times are microseconds; {how}")
    return t_N


def _load_npz(path: Path) -> tuple[AnyArray, str | None]:
    """(`event_data`, `time_unit` or None). Sizes are checked in the zip's directory first: no zip bombs."""
    with decoding(path, "N-ImageNet event file"), zipfile.ZipFile(path) as archive:
        if "event_data.npy" not in archive.namelist():
            raise SampleError(f"{path}: contains no event_data; save it with np.savez(…, event_data=…)")
        unpacked = archive.getinfo("event_data.npy").file_size
        if unpacked > MAX_BYTES:
            raise SampleError(
                f"{path}: decompresses to {unpacked / MEBIBYTE:,.0f} MiB, more than "
                f"{MAX_BYTES / MEBIBYTE:,.0f}; cut the recording"
            )
        with archive.open("event_data.npy") as member:
            # zipfile reads at most `file_size` bytes: a header that declares more raises an error.
            events: AnyArray = np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
        if "time_unit.npy" not in archive.namelist():
            return events, None
        if archive.getinfo("time_unit.npy").file_size > MAX_UNIT_BYTES:
            raise SampleError(f"{path}: time_unit is too long; it may be {', '.join(UNITS_US)}")
        with archive.open("time_unit.npy") as member:
            unit = np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
    return events, str(unit.ravel()[0]) if unit.size == 1 else ""
