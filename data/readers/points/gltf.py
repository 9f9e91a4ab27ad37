"""Reads glTF 2.0 meshes, as one binary file (`.glb`) or as JSON with embedded or separate buffers (`.gltf`).

All nodes of the scene are transformed into place, in their rest pose and with default morph weights. Buffers
are read from the file itself and from its folder; nothing is fetched. Compressed geometry (Draco, meshopt) is
refused. Source: Khronos, "glTF 2.0 Specification", sections 3.5–3.9 and 4.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from data.errors import SampleError
from data.paths import resolve
from data.readers.payload import AnyArray, Bytes, Doubles, Integers
from data.readers.points.mesh import fans, sample_mesh
from data.readers.untrusted import MEBIBYTE, decoding

GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
MAX_BUFFERS = 512 * MEBIBYTE
MAX_VERTICES = 5_000_000  # over all nodes: a small file can instance one mesh a million times
MAX_DEPTH = 100
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
TRIANGLES, STRIP, FAN = 4, 5, 6
# Extensions that do not matter for shapes and plain colours, even if a file requires them.
IGNORED = (
    "KHR_materials_", "KHR_texture_", "KHR_lights_", "KHR_mesh_quantization", "EXT_texture_", "MSFT_texture_",
    "EXT_lights_", "KHR_xmp", "KHR_animation_pointer", "KHR_node_visibility",
)  # fmt: skip
PACKED = {"KHR_draco_mesh_compression": "Draco", "EXT_meshopt_compression": "meshopt"}

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """The triangles of one primitive in scene coordinates. Colours are linear, 0 … 1, or None."""

    xyz_V3: Doubles
    triangles_M3: Integers
    rgb_V3: Doubles | None


def read_gltf(path: Path) -> tuple[AnyArray, Bytes | None]:
    """(xyz[N, 3], uint8 colours or None) sampled over the surface; y points up, as in the format.

    Colours are base colours and vertex colours, if no primitive has a texture instead.
    """
    with decoding(path, "glTF file"):
        document, binary = _open(path)
        _check_extensions(document, path)
        parts = list(_Scene(document, _buffers(document, binary, path), path).parts())
    if not parts:
        raise SampleError(f"{path}: contains no triangles; export the mesh again")
    starts = np.cumsum([0, *(len(part.xyz_V3) for part in parts)])
    xyz_V3 = np.concatenate([part.xyz_V3 for part in parts])
    triangles_M3 = np.concatenate(
        [part.triangles_M3 + start for part, start in zip(parts, starts, strict=False)]
    )
    rgb_V3 = None
    linear = [part.rgb_V3 for part in parts if part.rgb_V3 is not None]
    if len(linear) == len(parts):
        rgb_V3 = _srgb(np.concatenate(linear))
    return sample_mesh(path, xyz_V3, triangles_M3, vertex_rgb_V3=rgb_V3)


def gltf_buffers(path: Path) -> list[Path]:
    """The buffer files that reading a glTF opens, existing or not."""
    with decoding(path, "glTF file"):
        document, _ = _open(path)
        uris = [buffer.get("uri") for buffer in document.get("buffers", ())]
        return [_inside(path, uri) for uri in uris if uri is not None and not uri.startswith("data:")]


def _open(path: Path) -> tuple[_Json, bytes | None]:
    """(the JSON, the binary chunk of a GLB)."""
    data = path.read_bytes()
    if data[:4] != GLB_MAGIC:
        return _checked(json.loads(data.decode("utf-8-sig")), path), None
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise SampleError(f"{path}: glTF version {version} is not read; export it as version 2")
    if length > len(data):
        raise SampleError(f"{path}: truncated, {len(data):,} of {length:,} bytes are there; fetch it again")
    chunks: dict[int, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > length:
            raise SampleError(f"{path}: truncated within a chunk; fetch it again")
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    if JSON_CHUNK not in chunks:
        raise SampleError(f"{path}: contains no scene description; export it again")
    return _checked(json.loads(chunks[JSON_CHUNK].decode("utf-8")), path), chunks.get(BIN_CHUNK)


def _checked(document: Any, path: Path) -> _Json:
    version = str(document.get("asset", {}).get("version", "")) if isinstance(document, dict) else ""
    if not version.startswith("2"):
        raise SampleError(f"{path}: is not glTF 2 ({version or 'no version'}); export it as version 2")
    checked: _Json = document
    return checked


def _check_extensions(document: _Json, path: Path) -> None:
    for name in document.get("extensionsRequired", ()):
        if name in PACKED:
            raise SampleError(
                f"{path}: its geometry is compressed by {PACKED[name]}; export it without compression"
            )
        if not str(name).startswith(IGNORED):
            raise SampleError(f"{path}: needs the extension {name}; export it without")


def _buffers(document: _Json, binary: bytes | None, path: Path) -> list[bytes]:
    buffers: list[bytes] = []
    for number, buffer in enumerate(document.get("buffers", ())):
        uri, length = buffer.get("uri"), int(buffer["byteLength"])
        if uri is None and number == 0 and binary is not None:
            data = binary
        elif uri is None:
            raise SampleError(f"{path}: its buffer {number} is not in the file; export it again")
        elif uri.startswith("data:"):
            try:
                data = base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise ValueError(f"buffer {number} is not valid base64") from error
        else:
            data = _beside(path, uri).read_bytes()
        if len(data) < length:
            raise SampleError(
                f"{path}: truncated, {len(data):,} of {length:,} bytes of buffer {number} are there; "
                "fetch it again"
            )
        buffers.append(data)
    return buffers


def _inside(path: Path, uri: str) -> Path:
    """The path of a buffer, which must be in the glTF's folder or below; else raises `SampleError`."""
    try:
        return resolve(path.parent, unquote(uri))
    except SampleError as refused:
        raise SampleError(f"{path}: its buffer {refused}") from refused


def _beside(path: Path, uri: str) -> Path:
    """The file of a buffer. Raises `SampleError` where it is missing or too large."""
    found = _inside(path, uri)
    if not found.is_file():
        raise SampleError(f"{path}: its buffer {uri} is missing; put that file beside it, or export as .glb")
    if found.stat().st_size > MAX_BUFFERS:
        raise SampleError(f"{path}: its buffer {uri} is too large; export a simpler mesh")
    return found


class _Scene:
    """A document with its buffers, traversed node by node."""

    def __init__(self, document: _Json, buffers: list[bytes], path: Path) -> None:
        self._document, self._buffers, self._path = document, buffers, path
        self._nodes: list[_Json] = document.get("nodes", [])
        self._placed: dict[int, Doubles] = {}
        self._vertices = 0

    def parts(self) -> Iterator[_Part]:
        for root in self._roots():
            self._place(root, np.eye(4), 0)
        for number, matrix in self._placed.items():
            node = self._nodes[number]
            if "mesh" in node:
                yield from self._mesh(node, matrix)

    def _roots(self) -> list[int]:
        """The root nodes of the default scene; in a file without scenes, every node without a parent."""
        scenes = self._document.get("scenes", [])
        if scenes:
            roots: list[int] = scenes[self._document.get("scene", 0)].get("nodes", [])
            return roots
        children = {child for node in self._nodes for child in node.get("children", ())}
        return [number for number in range(len(self._nodes)) if number not in children]

    def _place(self, number: int, above: Doubles, depth: int) -> None:
        if depth > MAX_DEPTH or number in self._placed:
            raise SampleError(f"{self._path}: its nodes do not form a tree; export it again")
        node = self._nodes[number]
        self._placed[number] = above @ _local(node)
        for child in node.get("children", ()):
            self._place(child, self._placed[number], depth + 1)

    def _mesh(self, node: _Json, matrix: Doubles) -> Iterator[_Part]:
        mesh = self._document["meshes"][node["mesh"]]
        weights = node.get("weights", mesh.get("weights", ()))
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", TRIANGLES)
            if mode not in {TRIANGLES, STRIP, FAN}:
                continue  # points and lines have no surface
            packed = set(primitive.get("extensions", ())) & set(PACKED)
            if packed:
                raise SampleError(
                    f"{self._path}: its geometry is packed by {PACKED[packed.pop()]}; "
                    "export it without compression"
                )
            attributes = primitive["attributes"]
            xyz_V3 = self._accessor(attributes["POSITION"]).astype(np.float64)
            self._vertices += len(xyz_V3)
            if self._vertices > MAX_VERTICES:
                raise SampleError(f"{self._path}: more than {MAX_VERTICES:,} vertices; simplify the mesh")
            for weight, target in zip(weights, primitive.get("targets", ()), strict=False):
                if weight and "POSITION" in target:
                    xyz_V3 = xyz_V3 + float(weight) * self._accessor(target["POSITION"])
            if "skin" in node and "JOINTS_0" in attributes:
                xyz_V3 = self._posed(xyz_V3, attributes, self._document["skins"][node["skin"]])
            else:
                xyz_V3 = xyz_V3 @ matrix[:3, :3].T + matrix[:3, 3]
            indices = (
                self._accessor(primitive["indices"])[:, 0].astype(np.int64)
                if "indices" in primitive
                else np.arange(len(xyz_V3))
            )
            if len(indices) and indices.max() >= len(xyz_V3):
                raise SampleError(f"{self._path}: its faces refer to missing vertices; export the mesh again")
            triangles_M3 = _triangles(indices, mode)
            if len(triangles_M3):
                yield _Part(xyz_V3, triangles_M3, self._colours(primitive, len(xyz_V3)))

    def _posed(self, xyz_V3: Doubles, attributes: _Json, skin: _Json) -> Doubles:
        """The skinned vertices in the rest pose; the node's own transformation is ignored (section
        3.7.3.1)."""
        matrices_J44 = np.stack([self._placed[joint] for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            inverse_J44 = self._accessor(skin["inverseBindMatrices"]).astype(np.float64).reshape(-1, 4, 4)
            matrices_J44 = matrices_J44 @ inverse_J44[: len(matrices_J44)].transpose(0, 2, 1)
        joints_V4 = self._accessor(attributes["JOINTS_0"]).astype(np.int64)
        weights_V4 = self._accessor(attributes["WEIGHTS_0"]).astype(np.float64)
        places_V4 = np.concatenate([xyz_V3, np.ones((len(xyz_V3), 1))], axis=1)
        posed_V3: Doubles = np.zeros_like(xyz_V3)
        for slot in range(4):
            moved_V3 = np.einsum("vij,vj->vi", matrices_J44[joints_V4[:, slot], :3], places_V4)
            posed_V3 += weights_V4[:, slot, None] * moved_V3
        posed_V3 /= np.maximum(weights_V4.sum(axis=1, keepdims=True), 1e-12)
        return posed_V3

    def _colours(self, primitive: _Json, count: int) -> Doubles | None:
        """Linear colours float64[V, 3] of a primitive; None where a texture defines them, or nothing does."""
        material: _Json = {}
        if "material" in primitive:
            material = self._document["materials"][primitive["material"]]
        shade = material.get("pbrMetallicRoughness", {})
        if "baseColorTexture" in shade or "KHR_materials_pbrSpecularGlossiness" in material.get(
            "extensions", ()
        ):
            return None
        factor: Doubles = np.array(shade.get("baseColorFactor", (1, 1, 1, 1)), dtype=np.float64)[:3]
        if "COLOR_0" in primitive["attributes"]:
            own_V3: Doubles = self._accessor(primitive["attributes"]["COLOR_0"]).astype(np.float64)[:, :3]
            return own_V3 * factor
        return np.tile(factor, (count, 1)) if "baseColorFactor" in shade else None

    def _accessor(self, number: int) -> AnyArray:
        """The elements of an accessor [count, width]; normalised integers become fractions."""
        about = self._document["accessors"][number]
        kind, width, count = (
            np.dtype(COMPONENTS[about["componentType"]]),
            WIDTHS[about["type"]],
            about["count"],
        )
        if not 0 <= count <= MAX_VERTICES * 6:
            raise SampleError(f"{self._path}: an accessor of {count:,} elements; simplify the mesh")
        if "bufferView" in about:
            values = self._elements(about["bufferView"], about.get("byteOffset", 0), kind, width, count)
        else:
            values = np.zeros((count, width), kind)
        if "sparse" in about:
            values = values.copy()
            sparse = about["sparse"]
            where, what = sparse["indices"], sparse["values"]
            places = self._elements(
                where["bufferView"],
                where.get("byteOffset", 0),
                np.dtype(COMPONENTS[where["componentType"]]),
                1,
                sparse["count"],
            )
            values[places[:, 0]] = self._elements(
                what["bufferView"], what.get("byteOffset", 0), kind, width, sparse["count"]
            )
        if about.get("normalized") and kind.kind in "iu":
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _elements(self, view: int, offset: int, kind: np.dtype[Any], width: int, count: int) -> AnyArray:
        about = self._document["bufferViews"][view]
        if set(about.get("extensions", ())) & set(PACKED):
            raise SampleError(f"{self._path}: its geometry is compressed; export it without compression")
        start = about.get("byteOffset", 0) + offset
        stride = about.get("byteStride", kind.itemsize * width)
        buffer = self._buffers[about["buffer"]]
        end = start + (count - 1) * stride + kind.itemsize * width if count else start
        if min(start, offset) < 0 or end > min(len(buffer), about.get("byteOffset", 0) + about["byteLength"]):
            raise SampleError(f"{self._path}: an accessor exceeds its buffer; export it again")
        values: AnyArray = np.ndarray((count, width), kind, buffer, start, (stride, kind.itemsize))
        return values


def _local(node: _Json) -> Doubles:
    """The transformation of a node, float64[4, 4]: a matrix (by columns), or scale, rotation, translation."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = (float(part) for part in node.get("rotation", (0, 0, 0, 1)))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _triangles(indices: Integers, mode: int) -> Integers:
    """int64[M, 3] of a list, a strip (every other triangle reversed) or a fan."""
    if mode == TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        triangles, _ = fans(indices, np.array([len(indices)]))
        return triangles
    count = max(0, len(indices) - 2)
    triangles = np.stack([indices[:count], indices[1 : count + 1], indices[2 : count + 2]], axis=1)
    triangles[1::2] = triangles[1::2, [1, 0, 2]]
    return triangles


def _srgb(linear_V3: Doubles) -> Bytes:
    """uint8 sRGB (IEC 61966-2-1) of linear light."""
    light = linear_V3.clip(0, 1)
    bent = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    rgb_V3: Bytes = np.rint(bent * 255).astype(np.uint8)
    return rgb_V3
