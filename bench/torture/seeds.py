"""Generate tiny valid files of every format that the readers know, as seeds of mutants."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pyarrow as pa
import soundfile
import tifffile
from PIL import Image

from data.modality import Modality


@dataclass(frozen=True, slots=True)
class Format:
    """One format: the suffix of its files, and the contents of some valid ones."""

    modality: Modality
    ending: str
    contents: tuple[bytes, ...]


def formats() -> tuple[Format, ...]:
    """Every format of data/readers, each with one to four files."""
    return (*_pictures(), *_thermal(), *_sounds(), *_videos(), *_clouds(), *_events(), *_texts())


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _pictures() -> Iterator[Format]:
    rgb = _rng().integers(0, 256, (12, 17, 3), dtype=np.uint8)
    colour, grey = Image.fromarray(rgb), Image.fromarray(rgb[:, :, 0])
    palette, clear = colour.convert("P"), colour.convert("RGBA")
    deep = Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 200)
    drawn: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "JPEG": [(colour, {}), (grey, {"progressive": True}), (colour, {"exif": _exif()})],
        "PNG": [(colour, {}), (palette, {"transparency": 3}), (deep, {}), (clear, {"exif": _exif()})],
        "WEBP": [(colour, {}), (clear, {"lossless": True})],
        "BMP": [(colour, {}), (palette, {})],
        "GIF": [(palette, {}), (palette, {"save_all": True, "append_images": [grey.convert("P")]})],
        "PPM": [(colour, {}), (grey, {})],
        "TIFF": [(colour, {}), (grey, {"compression": "tiff_lzw"}), (colour, {"compression": "jpeg"})],
    }
    for name, pictures in drawn.items():
        contents = []
        for picture, how in pictures:
            file = io.BytesIO()
            picture.save(file, name, **how)
            contents.append(file.getvalue())
        ending = {"JPEG": "jpg", "TIFF": "tif"}.get(name, name.lower())
        yield Format("image", f".{ending}", tuple(contents))
        if name in {"PNG", "JPEG"}:
            yield Format("thermal", f".{ending}", tuple(contents))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    return exif


def _thermal() -> Iterator[Format]:
    counts = _rng().integers(0, 2**14, (12, 17), dtype=np.uint16)
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (counts, {"metadata": {"unit": "kelvin", "scale": 0.02}}),
        (counts.astype(np.float32), {"description": "centikelvin", "byteorder": ">"}),
        (counts, {"bigtiff": True, "rowsperstrip": 3}),
        (counts.astype(np.uint8), {"tile": (16, 16)}),
    ]
    contents = []
    for values, how in kinds:
        file = io.BytesIO()
        tifffile.imwrite(file, values, **how)
        contents.append(file.getvalue())
    yield Format("thermal", ".tiff", tuple(contents))


def _sounds() -> Iterator[Format]:
    wave = 0.3 * np.sin(np.arange(4000) * 0.2)
    stereo = np.stack([wave, wave[::-1]], axis=1)
    for name, ending, kinds in (
        ("WAV", "wav", ("PCM_16", "FLOAT", "ULAW")),
        ("FLAC", "flac", ("PCM_16",)),
        ("OGG", "ogg", ("VORBIS", "OPUS")),
        ("MP3", "mp3", ("MPEG_LAYER_III",)),
        ("AIFF", "aiff", ("PCM_24",)),
        ("CAF", "caf", ("PCM_16",)),
        ("W64", "w64", ("PCM_16",)),
        ("AU", "au", ("PCM_16",)),
    ):
        contents = []
        for kind in kinds:
            file = io.BytesIO()
            soundfile.write(file, stereo if kind != "OPUS" else wave, 16_000, format=name, subtype=kind)
            contents.append(file.getvalue())
        yield Format("audio", f".{ending}", tuple(contents))
    yield Format("audio", ".m4a", (_film("mp4", None, wave),))


def _videos() -> Iterator[Format]:
    wave = 0.3 * np.sin(np.arange(4000) * 0.2)
    for ending, kind, codecs in (
        ("mp4", "mp4", ("libx264", "mpeg4")),
        ("mkv", "matroska", ("libx264", "mpeg4")),
        ("avi", "avi", ("mpeg4", "mjpeg")),
        ("mpg", "mpeg", ("mpeg1video",)),
        ("flv", "flv", ("flv1",)),
    ):
        sound = wave if ending == "mp4" else None
        yield Format("video", f".{ending}", tuple(_film(kind, codec, sound) for codec in codecs))


def _film(kind: str, codec: str | None, sound: Any) -> bytes:
    file = io.BytesIO()
    rng = _rng()
    with av.open(file, "w", format=kind) as container:
        streams = []
        if codec is not None:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 32, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            streams.append(stream)
        if sound is not None:
            track = container.add_stream("aac", rate=16_000)
            streams.append(track)
        if codec is not None:
            for at in range(13):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels)
                frame.pts, frame.time_base = at, Fraction(1, 25)
                container.mux(stream.encode(frame))
        if sound is not None:
            clip = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            clip.sample_rate, clip.pts = 16_000, 0
            container.mux(track.encode(clip))
        for each in streams:
            container.mux(each.encode())
    return file.getvalue()


def _clouds() -> Iterator[Format]:
    rng = _rng()
    xyz = rng.normal(size=(20, 3)).astype(np.float32)
    rgb = rng.integers(0, 256, (20, 3), dtype=np.uint8)
    faces = np.stack([np.arange(18), np.arange(1, 19), np.arange(2, 20)], axis=1)
    lines = [" ".join(f"{value:.4f}" for value in point) for point in xyz]
    words = "\n".join(lines)
    triangles = "\n".join("3 " + " ".join(map(str, face)) for face in faces)
    polygon = "4 0 1 2 3"
    xyz_type = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    coloured = np.zeros(20, [*xyz_type, ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    for number, name in enumerate(coloured.dtype.names or ()):
        coloured[name] = (xyz if number < 3 else rgb)[:, number % 3]
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    colours = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    corners = "property list uchar int vertex_indices\n"
    ascii_ply = f"ply\nformat ascii 1.0\ncomment a\nelement vertex 20\n{axes}"
    binary_ply = f"ply\nformat binary_little_endian 1.0\nelement vertex 20\n{axes}"
    packed = b"".join(struct.pack("<B3i", 3, *face) for face in faces)
    yield Format(
        "point",
        ".ply",
        (
            f"{ascii_ply}end_header\n{words}\n".encode(),
            f"{ascii_ply}element face 18\n{corners}end_header\n{words}\n{triangles}\n".encode(),
            f"{binary_ply}{colours}end_header\n".encode() + coloured.tobytes(),
            f"{binary_ply}element face 18\n{corners}end_header\n".encode() + xyz.tobytes() + packed,
        ),
    )
    yield Format("point", ".off", (f"OFF\n20 19 0\n{words}\n{triangles}\n{polygon}\n".encode(),))
    obj_faces = "\n".join("f " + " ".join(f"{corner + 1}/1/1" for corner in face) for face in faces)
    vertices = "\n".join(f"v {line}" for line in lines)
    yield Format(
        "point",
        ".obj",
        (
            f"{vertices}\nvt 0 0\nvn 0 0 1\n{obj_faces}\nf 1 2 3 4 5\n".encode(),
            f"{vertices}\n".encode(),
        ),
    )
    head = (
        "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\nPOINTS 20\nDATA "
    )
    columns = np.ascontiguousarray(xyz.T).tobytes()
    runs = [columns[at : at + 32] for at in range(0, len(columns), 32)]
    lzf = b"".join(bytes([len(run) - 1]) + run for run in runs)
    yield Format(
        "point",
        ".pcd",
        (
            f"{head}ascii\n{words}\n".encode(),
            f"{head}binary\n".encode() + xyz.tobytes(),
            f"{head}binary_compressed\n".encode() + struct.pack("<II", len(lzf), len(columns)) + lzf,
        ),
    )
    yield from _later_meshes(xyz, faces)
    yield Format("point", ".xyz", (words.encode(), words.replace(" ", ",").encode()))
    saved = io.BytesIO()
    np.save(saved, xyz)
    yield Format("point", ".npy", (saved.getvalue(),))


def _later_meshes(xyz: Any, faces: Any) -> Iterator[Format]:
    """STL as text and binary, and glTF as one binary file and with embedded buffers."""
    corners = xyz[faces]
    records = b"".join(bytes(12) + triangle.astype("<f4").tobytes() + b"\0\0" for triangle in corners)
    facets = "".join(
        "facet normal 0 0 1\nouter loop\n"
        + "".join(f"vertex {a:.4f} {b:.4f} {c:.4f}\n" for a, b, c in triangle)
        + "endloop\nendfacet\n"
        for triangle in corners
    )
    yield Format(
        "point",
        ".stl",
        (
            bytes(80) + struct.pack("<I", len(corners)) + records,
            f"solid a\n{facets}endsolid a\n".encode(),
        ),
    )
    binary = xyz.astype("<f4").tobytes() + faces.astype("<u2").tobytes()
    scene: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": [1, 0, 0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(xyz), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": xyz.nbytes},
            {"buffer": 0, "byteOffset": xyz.nbytes, "byteLength": 2 * faces.size},
        ],
        "buffers": [{"byteLength": len(binary)}],
    }
    described = json.dumps(scene).encode()
    described += b" " * (-len(described) % 4)
    chunks = struct.pack("<I4s", len(described), b"JSON") + described
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    yield Format("point", ".glb", (b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks,))
    inside = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    scene["buffers"] = [{"byteLength": len(binary), "uri": inside}]
    yield Format("point", ".gltf", (json.dumps(scene).encode(),))


def _events() -> Iterator[Format]:
    rng = _rng()
    count = 40
    x, y = rng.integers(0, 200, count), rng.integers(0, 170, count)
    t, on = np.sort(rng.integers(0, 5000, count)), rng.integers(0, 2, count)
    raw = np.stack([x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8)
    yield Format("event", ".bin", (raw.tobytes(),))
    columns = np.stack([x, y, t, on], axis=1)
    fields = np.zeros(count, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])
    for name, column in zip("xytp", columns.T, strict=True):
        fields[name] = column
    contents = []
    for save, events in ((np.savez, columns), (np.savez_compressed, fields)):
        file = io.BytesIO()
        save(file, event_data=events)
        contents.append(file.getvalue())
    yield Format("event", ".npz", tuple(contents))
    words = np.stack([t, x | y << 14 | on << 28], axis=1).astype("<u4").tobytes()
    yield Format("event", ".dat", (b"% Version 2\n% Width 304\n% Height 240\n" + bytes([0x0C, 8]) + words,))
    evt2 = [
        0x8 << 28 | 1,
        *(int(p) << 28 | (i % 64) << 22 | int(a) << 11 | int(b) for i, (a, b, p) in _three(x, y, on)),
    ]
    evt3 = [0x8 << 12, 0x6 << 12 | 5]
    for number, (a, b, p) in _three(x, y, on):
        evt3 += [
            int(b),
            0x2 << 12 | int(p) << 11 | int(a),
            0x3 << 12 | number,
            0x4 << 12 | 0xA5,
            0x5 << 12 | 0x3C,
        ]
    yield Format(
        "event",
        ".raw",
        (
            b"% evt 2.0\n% end\n" + np.array(evt2, "<u4").tobytes(),
            b"% format EVT3;height=240;width=320\n% end\n" + np.array(evt3, "<u2").tobytes(),
        ),
    )
    yield Format("event", ".aedat4", tuple(_aedat(x, y, t, on, codec) for codec in (None, "lz4", "zstd")))


def _three(x: Any, y: Any, on: Any) -> Iterator[tuple[int, tuple[int, int, int]]]:
    return enumerate(zip(x.tolist(), y.tolist(), on.tolist(), strict=True))


def _aedat(x: Any, y: Any, t: Any, on: Any, codec: str | None) -> bytes:
    """One packet of events in the FlatBuffers of AEDAT 4."""
    about = (
        b'<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier">EVTS</attr>'
        b'<node name="info"><attr key="sizeX">346</attr><attr key="sizeY">260</attr></node>'
        b"</node></node></dv>"
    )
    packing = {None: 0, "lz4": 1, "zstd": 3}[codec]
    head = struct.pack("<I", 16) + struct.pack("<6H", 10, 20, 4, 8, 16, 0)
    head += struct.pack("<iIqI", 12, packing, -1, 4) + struct.pack("<I", len(about)) + about
    rows = b"".join(
        struct.pack("<qhhB3x", *event)
        for event in zip(t.tolist(), x.tolist(), y.tolist(), on.tolist(), strict=True)
    )
    body = struct.pack("<I4s", 16, b"EVTS") + struct.pack("<4H", 6, 8, 4, 0) + struct.pack("<iI", 8, 4)
    body += struct.pack("<I", len(x)) + rows
    packet = struct.pack("<I", len(body)) + body
    if codec is not None:
        packet = pa.Codec(codec).compress(packet, asbytes=True)
    return (
        b"#!AER-DAT4.0\r\n"
        + struct.pack("<I", len(head))
        + head
        + struct.pack("<iI", 0, len(packet))
        + packet
    )


def _texts() -> Iterator[Format]:
    yield Format("text", ".txt", ("\ufeffein hölzerner Würfel — 木\n".encode(), b"a wooden cube"))
