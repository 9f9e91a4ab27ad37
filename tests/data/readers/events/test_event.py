"""Event streams: two file layouts, and drawn pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.payload import Events, Picture

RECORD = [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")]


def seen(path: Path) -> Events:
    payload = read("event", path)
    assert isinstance(payload, Events)
    return payload


def test_an_event_of_five_bytes_is_decoded_by_hand(tmp_path: Path) -> None:
    """x, y, then one bit of polarity and 23 bits of microseconds, big-endian, as worked out by hand."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([239, 179, 0x80 | 0x04, 0x93, 0xE0]) + bytes([1, 2, 0x7F, 0xFF, 0xFF]))
    events = seen(path)
    assert events.x_N.tolist() == [239, 1]
    assert events.y_N.tolist() == [179, 2]
    assert events.t_us_N.tolist() == [0x0493E0, 2**23 - 1]  # 300,000 µs
    assert events.polarity_N.tolist() == [True, False]
    assert (events.width, events.height) == (240, 180)


def test_timer_overflow_marks_move_time_on(tmp_path: Path) -> None:
    """An event on row 240 is a mark: it is dropped, and 8,192 µs are added from there on."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([5, 5, 0, 0, 10]) + bytes([0, 240, 0, 0, 0]) + bytes([5, 5, 0, 0, 20]))
    assert seen(path).t_us_N.tolist() == [10, 8192 + 20]


def test_npz_records_and_columns_agree(tmp_path: Path) -> None:
    """N-ImageNet's record array and the same numbers as four columns give the same events."""
    rng = np.random.default_rng(0)
    records = np.zeros(200, RECORD)
    records["x"], records["y"] = rng.integers(0, 640, 200), rng.integers(0, 480, 200)
    records["t"], records["p"] = np.sort(rng.integers(0, 10**6, 200)), rng.integers(0, 2, 200)
    columns = np.stack([records[name].astype(np.float64) for name in "xytp"], axis=1)
    columns[:, 3] = columns[:, 3] * 2 - 1  # polarity as −1 and 1
    np.savez_compressed(tmp_path / "records.npz", event_data=records)
    np.savez(tmp_path / "columns.npz", event_data=columns)
    for path in (tmp_path / "records.npz", tmp_path / "columns.npz"):
        events = seen(path)
        np.testing.assert_array_equal(events.x_N, records["x"])
        np.testing.assert_array_equal(events.t_us_N, records["t"])
        np.testing.assert_array_equal(events.polarity_N, records["p"])
        assert (events.width, events.height) == (640, 480)


def test_a_drawn_stream_is_a_picture(tmp_path: Path) -> None:
    """An event frame that was saved as PNG is read as a picture."""
    Image.new("RGB", (8, 6), "red").save(tmp_path / "event_a.png")
    assert isinstance(read("event", tmp_path / "event_a.png"), Picture)


@pytest.mark.parametrize("pixel", [(240, 0), (0, 180), (255, 179), (0, 241)])
def test_pixels_outside_the_sensor_are_refused(pixel: tuple[int, int], tmp_path: Path) -> None:
    """The refusal names the sensor, the number of such events and the first one."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([1, 1, 0, 0, 0]) + bytes([*pixel, 0, 0, 1]))
    with pytest.raises(
        SampleError, match=rf"1 events lie outside the 240 × 180 sensor.*number 1 at \({pixel[0]}"
    ):
        read("event", path)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("x", 640, "outside"),
        ("y", -1, "outside"),
        ("x", np.nan, "outside"),
        ("t", np.inf, "times"),
        ("p", 2, "polar"),
    ],
)
def test_numbers_that_are_no_events_are_refused(
    field: str, value: float, reason: str, tmp_path: Path
) -> None:
    """Columns out of range, NaN or of an unknown polarity are refused with the reason."""
    columns = np.ones((20, 4))
    columns[7, "xytp".index(field)] = value
    np.savez(tmp_path / "a.npz", event_data=columns)
    with pytest.raises(SampleError, match=reason):
        read("event", tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"events": np.ones((20, 4))}, "no event_data"),
        ({"event_data": np.ones((20, 3))}, "four columns"),
        ({"event_data": np.zeros(20, RECORD[:3])}, "lacks p"),
        ({"event_data": np.zeros(0, RECORD)}, "contains no events"),
        ({"event_data": np.full((20, 4), "1")}, "not numeric"),
        ({"event_data": np.full((20, 4), {}, object)}, "not a readable"),
    ],
)
def test_other_npz_files_are_refused(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Wrong names, shapes and types, nothing at all, and pickled objects are refused."""
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SampleError, match=reason):
        read("event", tmp_path / "a.npz")


def test_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    """Times in the first column of a short recording could be pixels, in seconds all of them pixel 0."""
    n = np.arange(100)
    x, y, p = n * 7 % 64, n * 5 % 48, n % 2
    for times, reason in ((n, "sorted like times"), (n * 1e-4, "sorted like times|fractions of a pixel")):
        np.savez(tmp_path / "a.npz", event_data=np.stack([times, x, y, p], axis=1))
        with pytest.raises(SampleError, match=reason):
            read("event", tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", event_data=np.stack([x + 0.5, y, n, p], axis=1))
    with pytest.raises(SampleError, match="fractions of a pixel"):
        read("event", tmp_path / "a.npz")


def test_a_timer_that_ran_over_is_refused(tmp_path: Path) -> None:
    """16-bit times that start anew would mix the beginning and the end; events a little late do not."""
    times = np.arange(300) * 1000
    with pytest.raises(SampleError, match="after event 65 the times go back from 65000 to 464"):
        seen(save_times(tmp_path / "a.npz", (times % 2**16).astype(np.uint16)))
    times[[7, 8]] = times[[8, 7]]
    assert seen(save_times(tmp_path / "a.npz", times)).t_us_N.tolist() == times.tolist()


def test_a_torn_event_is_refused(tmp_path: Path) -> None:
    """A `.bin` whose size is no multiple of five bytes was cut."""
    (tmp_path / "a.bin").write_bytes(bytes(12))
    with pytest.raises(SampleError, match="5-byte events"):
        read("event", tmp_path / "a.bin")


def test_zip_bombs_are_refused_unopened(tmp_path: Path) -> None:
    """300 MiB of zeros in 300 kB, and a header that declares a terabyte, are refused."""
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("event_data.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(SampleError, match="decompresses to 300 MiB"):
        read("event", tmp_path / "bomb.npz")

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**35, 4)}
    )
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("event_data.npy", header.getvalue() + bytes(640))
    with pytest.raises(SampleError, match="not a readable"):
        read("event", tmp_path / "liar.npz")


def save_times(path: Path, times: Any, **more: Any) -> Path:
    times = np.asarray(times)
    columns = np.zeros(len(times), [("x", "<u2"), ("y", "<u2"), ("t", times.dtype), ("p", "?")])
    columns["t"] = times
    np.savez(path, event_data=columns, **more)
    return path


SECONDS = np.sort(np.random.default_rng(0).uniform(0, 0.1, 300)).round(6)


@pytest.mark.parametrize("times", [SECONDS, SECONDS.astype(np.float32), SECONDS * 1e3, SECONDS * 1e6 + 0.25])
def test_times_that_are_fractions_are_refused(times: Any, tmp_path: Path) -> None:
    """Seconds would all become 0 µs: they are refused, with the word to write, and never rounded unasked."""
    with pytest.raises(SampleError, match=r"fractions .*time_unit"):
        seen(save_times(tmp_path / "a.npz", times))
    columns = np.zeros((300, 4))
    columns[:, 2] = times
    np.savez(tmp_path / "b.npz", event_data=columns)
    with pytest.raises(SampleError, match="fractions"):
        seen(tmp_path / "b.npz")


@pytest.mark.parametrize(("unit", "scale"), [("s", 1e-6), ("ms", 1e-3), ("us", 1.0), ("ns", 1e3)])
@pytest.mark.parametrize("first", [0, -500])
def test_a_stated_unit_is_converted(unit: str, scale: float, first: int, tmp_path: Path) -> None:
    """Microseconds come back from each unit, as floats or whole numbers, negative and out of order."""
    wanted = np.random.default_rng(0).permutation(300) * 333 + first
    got = seen(save_times(tmp_path / "a.npz", wanted * scale, time_unit=unit)).t_us_N
    np.testing.assert_array_equal(got, wanted)
    if unit == "ns":
        epoch = 1_700_000_000 * 10**9 + wanted * 1000
        got = seen(save_times(tmp_path / "b.npz", epoch, time_unit=unit)).t_us_N
        np.testing.assert_array_equal(got, wanted - wanted.min())


@pytest.mark.parametrize("unit", ["", "minutes", 3, ["s", "s"]])
def test_unknown_units_are_refused(unit: Any, tmp_path: Path) -> None:
    """A word that is no unit is not passed over."""
    with pytest.raises(SampleError, match="time_unit is"):
        seen(save_times(tmp_path / "a.npz", np.arange(300), time_unit=unit))


def test_hours_of_events_are_another_unit(tmp_path: Path) -> None:
    """Whole nanoseconds look like microseconds, a thousand times as long: beyond an hour they are refused."""
    with pytest.raises(SampleError, match="hours, if its times are microseconds"):
        seen(save_times(tmp_path / "a.npz", np.arange(300) * 10**8))
    assert seen(save_times(tmp_path / "b.npz", np.arange(300.0)[::-1] * 1000 - 7)).t_us_N[0] == 298_993
