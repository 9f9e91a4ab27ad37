"""Files made to hang, bloat or mislead a reader: each is refused by name, within time and memory."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import SampleError
from data.modality import MODALITIES, Modality
from data.readers import FileBudget, read, use_budget
from data.readers.companions import companions
from data.readers.sandbox import pool as sandbox

MEMORY = 300_000_000  # bytes beyond the decoder itself: less than any of these files would have liked to take


@pytest.fixture(scope="module", autouse=True)
def budget() -> Iterator[None]:
    sandbox.close()
    use_budget(FileBudget(seconds=20, memory=MEMORY))
    yield
    use_budget(FileBudget())
    sandbox.close()


def tiff_loop() -> bytes:
    """One 4 × 4 page of 16 bits whose directory names itself as the next one, in 288 bytes."""
    tags = {256: (3, 4), 257: (3, 4), 258: (3, 16), 259: (3, 1), 262: (3, 1), 273: (4, 200), 277: (3, 1)}
    tags |= {278: (3, 4), 279: (4, 32)}
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    whole = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 8)
    return whole.ljust(288, b"\0")


def tiff_two_step_loop() -> bytes:
    """Two directories that name each other."""
    one = tiff_loop()[:-4]
    second = len(one) + 4
    entries = one[8 : 8 + 2 + 9 * 12]
    first = one[: 8 + len(entries)] + struct.pack("<I", second)
    return first.ljust(second, b"\0") + entries + struct.pack("<I", 8)


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(4) + size + b"\0\x02\x02\x44\x01\0\x3b"


def bomb_npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, event_data=np.zeros((8_500_000, 4), np.int64))
    return file.getvalue()


def lying_npz() -> bytes:
    """A member whose directory entry says little, and whose header declares 10^12 events."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (10**12, 4)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("event_data.npy", header.getvalue() + bytes(64))
    return file.getvalue()


def lying_npy() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 3)})
    return file.getvalue() + bytes(1000)


def bomb_pt() -> bytes:
    """A saved tensor of 280 MB of zeros, its zip packed."""
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(1000, 3), stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(280_000_000) if "/data/" in name else old.read(name))
    return packed.getvalue()


def wide_view() -> bytes:
    """A tensor that claims a terabyte over four bytes."""
    file = io.BytesIO()
    torch.save(torch.zeros(1).expand(10**11, 3), file)
    return file.getvalue()


def wav(*, rate: int, channels: int, declared: int) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, rate, max(channels % 2**16, 1), 8)
    return (
        b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVEfmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", declared) + bytes(100)
    )  # fmt: skip


def avi_without_codec() -> bytes:
    """An AVI whose only stream is pictures of a codec that nobody knows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    header = struct.pack("<14I", 40_000, 0, 0, 16, 3, 0, 1, 0, 32, 32, 0, 0, 0, 0)
    stream = b"vidsQQQQ" + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 25, 0, 3, 0, 0, 0, 0, 0, 32, 32)
    form = struct.pack("<IiiHH4sIiiII", 40, 32, 32, 1, 24, b"QQQQ", 3072, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    frames = b"".join(chunk(b"00dc", bytes(50)) for _ in range(3))
    body = b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", header) + streams)
    return chunk(b"RIFF", body + chunk(b"LIST", b"movi" + frames))


PLY = (
    "ply\nformat {form} 1.0\nelement vertex {count}\n"
    "property float x\nproperty float y\nproperty float z\nend_header\n"
)
PCD = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT {each}\nWIDTH 1\nHEIGHT 1\nPOINTS {count}\n"
    "DATA {form}\n"
)
HOSTILE: dict[str, tuple[Modality, Callable[[], bytes]]] = {
    "loop.tif": ("thermal", tiff_loop),
    "loop2.tif": ("thermal", tiff_two_step_loop),
    "huge.png": ("image", lambda: png(100_000, 100_000)),
    "line.png": ("image", lambda: png(2**31 - 1, 1)),
    "bomb.png": ("image", lambda: png(7900, 7900, zlib.compress(bytes(100)))),
    "huge.gif": ("image", lambda: gif(65535, 65535)),
    "huge.ppm": ("image", lambda: b"P6 1000000 1000000 255\n" + bytes(100)),
    "thermal.png": ("thermal", lambda: png(100_000, 100_000)),
    "rate.wav": ("audio", lambda: wav(rate=2**31, channels=65535, declared=2**32 - 1)),
    "still.wav": ("audio", lambda: wav(rate=0, channels=1, declared=100)),
    "short.wav": ("audio", lambda: wav(rate=8000, channels=1, declared=10**9)),
    "none.avi": ("video", avi_without_codec),
    "list.mp4": ("video", lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
    "text.ply": ("point", lambda: PLY.format(form="ascii", count=10**12).encode()),
    "bits.ply": ("point", lambda: PLY.format(form="binary_little_endian", count=10**12).encode() + bytes(99)),
    "size.off": ("point", lambda: b"OFF\n1000000000000 1000000000000 0\n0 0 0\n"),
    "bits.pcd": ("point", lambda: PCD.format(each="1 1 1", count=10**12, form="binary").encode()),
    "wide.pcd": ("point", lambda: PCD.format(each="1 1 1000000000", count=1, form="binary").encode()),
    "text.pcd": ("point", lambda: PCD.format(each="1 1 9999999", count=1, form="ascii").encode() + b"0 0\n"),
    "pack.pcd": (
        "point",
        lambda: PCD.format(each="1 1 1", count=20_000_000, form="binary_compressed").encode()
        + struct.pack("<II", 2, 240_000_000)
        + b"\xe0\0",
    ),
    "flat.obj": ("point", lambda: b"".join(b"v %d %d\n" % (n, n * n) for n in range(30))),
    "lies.npy": ("point", lying_npy),
    "bomb.pt": ("point", bomb_pt),
    "view.pt": ("point", wide_view),
    "bomb.npz": ("event", bomb_npz),
    "lies.npz": ("event", lying_npz),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    """One line that begins with the file's name; no decoder crashes, and none takes the whole budget."""
    modality, make = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(SampleError) as refused:
        read(modality, path)
    told = str(refused.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    assert "; " in told
    for broken in ("took longer", "its decoder", "decoder crashed"):
        assert broken not in told


def test_a_face_of_many_corners_is_bounded(tmp_path: Path) -> None:
    """An OBJ of one huge face, which used to take 300 bytes a corner without end, is read or refused."""
    vertices = "".join(f"v {n % 97} {n % 89} {n % 83}\n" for n in range(1000))
    corners = " ".join(str(n % 1000 + 1) for n in range(300_000))
    path = tmp_path / "face.obj"
    path.write_text(f"{vertices}f {corners}\nf 1 2 3\n")
    try:
        read("point", path)
    except SampleError as error:
        assert str(error).startswith(f"{path}: ")
        assert "crashed" not in str(error)


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_would_wait_for_ever_is_not_opened(modality: Modality, tmp_path: Path) -> None:
    """A pipe that nobody writes to, a socket, a device and a folder are refused as no regular files."""
    ending = {"point": ".ply", "event": ".bin"}.get(modality, ".png")
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / f"zero{ending}").symlink_to("/dev/zero")
    (tmp_path / f"loop{ending}").symlink_to(tmp_path / f"loop{ending}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / f"socket{ending}"))
        for path in sorted(tmp_path.iterdir()):
            with pytest.raises(SampleError, match=r"regular file|no such file"):
                read(modality, path)


def test_what_belongs_to_a_mesh_is_looked_up_within_bounds(tmp_path: Path) -> None:
    """Ingest asks a mesh for its other files: one that is damaged has none, and stops nothing."""
    for name, content in (
        ("a.obj", b"mtllib    \nv 0 0 0\n"),
        ("b.gltf", b"[" * 100_000),
        ("c.gltf", b'{"asset": {"version": "2.0"}, "buffers": [{"uri": 7}, 3]}'),
        ("d.obj", b""),
    ):
        (tmp_path / name).write_bytes(content)
        assert companions("point", tmp_path / name) == []
    (tmp_path / "e.obj").write_text("mtllib e.mtl\nv 0 0 0\n")
    (tmp_path / "e.mtl").write_text("newmtl a\n")
    assert companions("point", tmp_path / "e.obj") == [tmp_path / "e.mtl"]
