"""Meshes as programs write them: OBJ with materials, STL, glTF, OFF with polygons; against trimesh."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import trimesh

from data.errors import SampleError
from data.files import hash_file
from data.readers import read, read_here
from data.readers.axes import Turned, rotate_z_up
from data.readers.companions import companions, content_hash
from data.readers.payload import Points
from data.readers.points.mesh import SURFACE_POINTS

TALL = np.diag((1.0, 2.0, 5.0, 1.0))  # a box of 1 × 2 × 5: no axis is like another


def cloud_of(path: Path) -> Points:
    payload = read_here("point", path)
    assert isinstance(payload, Points)
    return payload


def size_of(path: Path) -> list[float]:
    """How wide the sampled surface is along each axis."""
    xyz = cloud_of(path).xyz_N3
    return [round(float(side), 1) for side in np.ptp(xyz, axis=0)]


def tall_box() -> Any:
    box = trimesh.creation.box()
    box.apply_transform(TALL)
    return box


# ---- OBJ


def box_obj(*, quads: bool = True, extra: str = "") -> str:
    """A box of 1 × 2 × 5, its two ends of material `end`, the rest of material `side`, in two groups."""
    lines = [extra, "o box", "# corners"]
    lines += [f"v {x} {y * 2} {z * 5}" for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    lines += ["vt 0 0", "vn 0 0 1", "s off", "g ends", "usemtl end"]
    faces = ["1/1/1 2/1/1 4/1/1 3/1/1", "5//1 6//1 8//1 7//1"]
    faces += ["g sides", "usemtl side", "-8 -7 -3 -4", "2 4 8 6", "4/1 3/1 7/1 8/1", "3 1 5 7"]
    for face in faces:
        if face[0] in "gu":
            lines.append(face)
        elif quads:
            lines.append(f"f {face}")
        else:
            a, b, c, d = face.split()
            lines += [f"f {a} {b} {c}", f"f {a} {c} {d}"]
    return "\n".join([*lines, "l 1 2 3", "p 1"]) + "\n"


@pytest.mark.parametrize("quads", [True, False])
def test_an_obj_of_several_materials_is_one_thing(quads: bool, tmp_path: Path) -> None:
    """Objects, groups and materials part the file, not the thing; lines and points have no surface."""
    (tmp_path / "a.obj").write_text(box_obj(quads=quads))
    xyz = cloud_of(tmp_path / "a.obj").xyz_N3
    assert xyz.shape == (SURFACE_POINTS, 3)
    assert size_of(tmp_path / "a.obj") == [1.0, 5.0, 2.0]  # y is up in an OBJ, z here
    # By area: two ends of 1 × 2 (z of the file, y here, at −0 or −5), four sides of 15 · 2 in all.
    at_ends = np.isclose(xyz[:, 1], 0, atol=1e-6) | np.isclose(xyz[:, 1], -5, atol=1e-6)
    assert at_ends.mean() == pytest.approx(4 / 34, abs=1e-3)


def test_material_colours_are_those_of_the_library(tmp_path: Path) -> None:
    """Each face has the diffuse colour of its material: red ends, blue sides, by area."""
    (tmp_path / "a.obj").write_text(box_obj(extra="mtllib my colours.mtl"))
    (tmp_path / "my colours.mtl").write_text(
        "# Blender\nnewmtl end\nKa 1 1 1\nKd 1.0 0 0\nd 1\n\nnewmtl side\nNs 3\nKd 0 0 0.5\n"
    )
    cloud = cloud_of(tmp_path / "a.obj")
    assert cloud.rgb_N3 is not None
    at_ends = np.isclose(cloud.xyz_N3[:, 1], 0, atol=1e-6) | np.isclose(cloud.xyz_N3[:, 1], -5, atol=1e-6)
    np.testing.assert_array_equal(cloud.rgb_N3[at_ends], np.tile([255, 0, 0], (at_ends.sum(), 1)))
    np.testing.assert_array_equal(cloud.rgb_N3[~at_ends], np.tile([0, 0, 128], ((~at_ends).sum(), 1)))


@pytest.mark.parametrize(
    "library",
    [
        None,
        "newmtl end\nKd 1 0 0\n",
        "newmtl end\nKd 1 0 0\nnewmtl side\nKd 0 0 1\nmap_Kd wood.png\n",
        "newmtl end\nKd spectral x.rfl\nnewmtl side\nKd 0 0 1\n",
        "newmtl end\nKd 1 0 7\nnewmtl side\nKd 0 0 1\n",
    ],
)
def test_without_every_colour_there_is_none(library: str | None, tmp_path: Path) -> None:
    """A missing library or material, a texture, and colours said in another way give the shape alone."""
    (tmp_path / "a.obj").write_text(box_obj(extra="mtllib a.mtl"))
    if library is not None:
        (tmp_path / "a.mtl").write_text(library)
    assert cloud_of(tmp_path / "a.obj").rgb_N3 is None


@pytest.mark.parametrize(
    "name", ["../outside.mtl", "/etc/passwd", "trap.mtl", "https://example.org/a.mtl", "link.mtl"]
)
def test_no_other_file_is_opened(name: str, tmp_path: Path) -> None:
    """A library outside the folder, at an address, a pipe, and a link that leads out are not looked at."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.mtl").write_text("newmtl end\nKd 1 0 0\nnewmtl side\nKd 1 0 0\n")
    (home / "link.mtl").symlink_to(tmp_path / "outside.mtl")
    os.mkfifo(home / "trap.mtl")  # opening it would block for ever
    (home / "a.obj").write_text(box_obj(extra=f"mtllib {name}"))
    assert cloud_of(home / "a.obj").rgb_N3 is None
    assert companions("point", home / "a.obj") == ([home / name] if name == "trap.mtl" else [])


def test_colours_of_an_objs_vertices_are_mixed(tmp_path: Path) -> None:
    """`v x y z r g b`, from 0 to 1: a triangle's colours are those of its corners, by distance."""
    (tmp_path / "a.obj").write_text("v 0 0 0 0 0 0\nv 1 0 0 1 0 0\nv 0 0 1 0 0 1\nf 1 2 3\n")
    cloud = cloud_of(tmp_path / "a.obj")
    assert cloud.rgb_N3 is not None
    expected = np.stack([cloud.xyz_N3[:, 0], 0 * cloud.xyz_N3[:, 0], -cloud.xyz_N3[:, 1]], axis=1) * 255
    np.testing.assert_allclose(cloud.rgb_N3, expected, atol=0.51)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f 1 2 3\n", "no vertices"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "vertex 0"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "missing vertices"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999\n", "not a readable"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -4\n", "missing vertices"),
        ("v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "not a readable"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "missing vertices"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n", "not a readable"),
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "NaN"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no surface"),
        ("v 0 0 0\ncstype bezier\nsurf 0 1 0 1 1 2 3 4\n", "not a polygon"),
    ],
)
def test_broken_objs_are_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    """Faces without vertices, indices of nothing, torn lines, free-form surfaces: one line."""
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(SampleError, match=reason):
        read_here("point", tmp_path / "a.obj")


def test_a_librarys_advice_to_programmers_is_left_out(tmp_path: Path) -> None:
    """Vertices of unequal length: the reason is given, NumPy's parameter is not."""
    path = tmp_path / "cut.obj"
    path.write_text("v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", encoding="utf-8")
    with pytest.raises(SampleError, match="columns changed from 3 to 2") as refused:
        read_here("point", path)
    assert "usecols" not in str(refused.value)


def test_an_obj_line_may_go_on_in_the_next(tmp_path: Path) -> None:
    """A back slash joins lines, of Unix and of Windows; tabs part words."""
    (tmp_path / "a.obj").write_text(box_obj())
    text = box_obj().replace("f 2 4 8 6", "f 2 4 \\\n 8 6").replace("v 1 0 0\n", "v\t1 \\\r\n 0 0\r\n")
    (tmp_path / "b.obj").write_bytes(text.encode())
    np.testing.assert_array_equal(cloud_of(tmp_path / "a.obj").xyz_N3, cloud_of(tmp_path / "b.obj").xyz_N3)


# ---- OFF


@pytest.mark.parametrize(
    "head", ["OFF\n{}", "OFF {}", "OFF{}", "# made by me\nOFF # keyword\n{}", "{}", "\ufeffOFF\n{}"]
)
def test_an_off_of_polygons_is_cut_into_fans(head: str, tmp_path: Path) -> None:
    """A prism over a pentagon, its counts in every place that programs write them: areas by hand."""
    corners = [(np.cos(a), np.sin(a)) for a in np.arange(5) * 2 * np.pi / 5]
    lines = [f"{x} {y} {z}" for z in (0, 3) for x, y in corners]
    lines += ["5 0 1 2 3 4", "5 5 6 7 8 9  # the lid"] + [
        f"4 {i} {(i + 1) % 5} {(i + 1) % 5 + 5} {i + 5}" for i in range(5)
    ]
    text = head.format("10 7 0") + "\n\n" + "\n".join(lines) + "\n"
    (tmp_path / "a.off").write_text(text, encoding="utf-8")
    xyz = cloud_of(tmp_path / "a.off").xyz_N3
    pentagon, side = 5 / 2 * np.sin(2 * np.pi / 5), 2 * np.sin(np.pi / 5) * 3
    lids = (np.isclose(xyz[:, 2], 0, atol=1e-6) | np.isclose(xyz[:, 2], 3, atol=1e-6)).mean()
    assert lids == pytest.approx(2 * pentagon / (2 * pentagon + 5 * side), abs=2e-3)


def test_off_colours(tmp_path: Path) -> None:
    """COFF has colours at its vertices (whole or fractions), OFF at its faces; NOFF's normals are none."""
    triangle = ["0 0 0", "1 0 0", "0 1 0"]
    for name, colour in (("a", "255 0 51 255"), ("b", "1.0 0.0 0.2 1.0")):
        rows = [f"{row} {colour}" for row in triangle]
        (tmp_path / f"{name}.off").write_text("\n".join(["COFF", "3 1 0", *rows, "3 0 1 2"]))
        rgb = cloud_of(tmp_path / f"{name}.off").rgb_N3
        assert rgb is not None
        assert (rgb == [255, 0, 51]).all()
    (tmp_path / "c.off").write_text("\n".join(["OFF", "3 1 0", *triangle, "3 0 1 2 0 128 255"]))
    rgb = cloud_of(tmp_path / "c.off").rgb_N3
    assert rgb is not None
    assert (rgb == [0, 128, 255]).all()
    (tmp_path / "d.off").write_text(
        "\n".join(["NOFF", "3 1 0", *(f"{row} 0 0 1" for row in triangle), "3 0 1 2"])
    )
    assert cloud_of(tmp_path / "d.off").rgb_N3 is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "truncated"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n", "truncated"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 1 2\n", "lines after"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "not a readable"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "missing vertices"),
        ("OFF BINARY\n3 1 0\n", "binary"),
        ("4OFF\n3 1 0\n", "not a readable|no OFF"),
        ("hello\n", "not a text OFF mesh"),
        ("OFF\n-1 -1 0\n", "truncated"),
    ],
)
def test_broken_offs_are_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    """Fewer or more lines than declared, torn faces, other kinds: one line."""
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(SampleError, match=reason):
        read_here("point", tmp_path / "a.off")


# ---- STL


def test_stl_in_both_forms_is_the_mesh(tmp_path: Path) -> None:
    """Binary, text in small letters and capitals, and binary that begins with "solid" are one surface."""
    tall_box().export(tmp_path / "binary.stl")
    tall_box().export(tmp_path / "text.stl", file_type="stl_ascii")
    data = (tmp_path / "binary.stl").read_bytes()
    (tmp_path / "solid.stl").write_bytes(b"solid made by facet CAD".ljust(80) + data[80:])
    (tmp_path / "capitals.stl").write_text((tmp_path / "text.stl").read_text().upper())
    for name in ("binary", "text", "solid", "capitals"):
        assert size_of(tmp_path / f"{name}.stl") == [1.0, 2.0, 5.0]
        np.testing.assert_allclose(
            cloud_of(tmp_path / f"{name}.stl").xyz_N3, cloud_of(tmp_path / "binary.stl").xyz_N3, atol=1e-5
        )


def test_broken_stls_are_refused(tmp_path: Path) -> None:
    """Cut in both forms, empty, and with something behind: refused with the reason."""
    tall_box().export(tmp_path / "binary.stl")
    tall_box().export(tmp_path / "text.stl", file_type="stl_ascii")
    data, text = (tmp_path / "binary.stl").read_bytes(), (tmp_path / "text.stl").read_bytes()
    broken = {
        "cut": (data[:-1], "truncated, 11 of 12"),
        "cut_text": (text[: len(text) // 2], "truncated"),
        "no_end": (text.replace(b"endsolid", b""), "truncated"),
        "empty": (data[:80] + bytes(4), "no triangles"),
        "more": (data + data[84:], "after the 12"),
        "torn": (text.replace(b"vertex", b"vertex x", 1), "truncated or damaged"),
    }
    for name, (content, reason) in broken.items():
        (tmp_path / f"{name}.stl").write_bytes(content)
        with pytest.raises(SampleError, match=reason):
            read_here("point", tmp_path / f"{name}.stl")


# ---- glTF


def scene() -> Any:
    """Two boxes in a scene of nested, turned and scaled nodes, one of them shown twice."""
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(0.4, (1, 2, 3), (0.5, 0, 1))
    scene.add_geometry(tall_box(), node_name="one", transform=turn)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.7)
    scene.add_geometry(ball, node_name="two", parent_node_name="one", transform=TALL)
    scene.add_geometry(
        ball, node_name="three", transform=trimesh.transformations.translation_matrix((4, 0, 0))
    )
    return scene


def test_a_glb_is_its_scene_as_trimesh_places_it(tmp_path: Path) -> None:
    """Box, centre of the surface and share of each part agree with trimesh's own flat mesh, y turned up."""
    scene().export(tmp_path / "a.glb")
    flat = trimesh.load(tmp_path / "a.glb", force="mesh")
    xyz = cloud_of(tmp_path / "a.glb").xyz_N3
    middle = flat.area_faces @ flat.triangles_center / flat.area
    np.testing.assert_allclose(xyz.mean(axis=0, dtype=np.float64), rotate_z_up(middle, "y"), atol=0.03)
    low, high = rotate_z_up(flat.bounds, "y").min(axis=0), rotate_z_up(flat.bounds, "y").max(axis=0)
    np.testing.assert_allclose(xyz.min(axis=0), low, atol=0.06)
    np.testing.assert_allclose(xyz.max(axis=0), high, atol=0.06)


def save_gltf(path: Path, document: dict[str, Any], buffer: bytes, *, inside: bool) -> None:
    uri = (
        "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
        if inside
        else "my%20data.bin"
    )
    document["buffers"] = [{"byteLength": len(buffer), "uri": uri}]
    if not inside:
        (path.parent / "my data.bin").write_bytes(buffer)
    path.write_text(json.dumps(document))


def triangle(**more: Any) -> tuple[dict[str, Any], bytes]:
    """One triangle of three indexed vertices, two units wide and one high (y)."""
    buffer = (
        np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0]], "<f4").tobytes() + np.array([0, 1, 2], "<u2").tobytes()
    )
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0.5, 0, 1]}}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 6},
        ],
    }
    return document | more, buffer


@pytest.mark.parametrize("inside", [True, False])
def test_a_gltf_reads_its_own_folder_and_no_more(inside: bool, tmp_path: Path) -> None:
    """Buffers in the JSON or in a file beside it; the base colour is linear light: 0.5 is sRGB's 188."""
    save_gltf(tmp_path / "a.gltf", *triangle(), inside=inside)
    assert size_of(tmp_path / "a.gltf") == [2.0, 0.0, 1.0]
    rgb = cloud_of(tmp_path / "a.gltf").rgb_N3
    assert rgb is not None
    assert (rgb == [255, 188, 0]).all()
    found = [] if inside else [tmp_path / "my data.bin"]
    assert companions("point", tmp_path / "a.gltf") == found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"buffers": [{"byteLength": 42, "uri": "../a.bin"}]}, "must lie inside"),
        ({"buffers": [{"byteLength": 42, "uri": "https://example.org/a.bin"}]}, "address"),
        ({"buffers": [{"byteLength": 42, "uri": "none.bin"}]}, "missing"),
        ({"buffers": [{"byteLength": 999, "uri": "a.bin"}]}, "truncated"),
        ({"buffers": [{"byteLength": 42}]}, "not in the file"),
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "compressed by Draco"),
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "compressed by meshopt"),
        ({"extensionsRequired": ["ACME_shape"]}, "ACME_shape"),
        ({"asset": {"version": "1.0"}}, "export it as version 2"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "form a tree"),
        ({"nodes": [{}]}, "no triangles"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 1}]}]}, "no triangles"),
        ({"nodes": [{"mesh": 7}]}, "not a readable glTF"),
        ({"bufferViews": [{"buffer": 0, "byteLength": 36, "byteOffset": 40}] * 2}, "exceeds its buffer"),
        ({"accessors": [{"componentType": 5126, "count": 10**12, "type": "VEC3"}] * 2}, "accessor of"),
    ],
)  # fmt: skip
def test_broken_gltfs_are_refused_with_the_reason(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Buffers elsewhere, packed geometry, loops, indices of nothing: one line, and nothing is fetched."""
    document, buffer = triangle()
    (tmp_path / "a.bin").write_bytes(buffer)
    document["buffers"] = [{"byteLength": 42, "uri": "a.bin"}]
    (tmp_path / "a.gltf").write_text(json.dumps(document | change))
    with pytest.raises(SampleError, match=reason):
        read_here("point", tmp_path / "a.gltf")


def test_a_cut_glb_is_refused(tmp_path: Path) -> None:
    """At every twentieth of its length."""
    scene().export(tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    for part in range(1, 20):
        (tmp_path / "a.glb").write_bytes(data[: len(data) * part // 20])
        with pytest.raises(SampleError, match=r"truncated|not a readable"):
            read_here("point", tmp_path / "a.glb")


def test_skins_morphs_strips_and_small_numbers(tmp_path: Path) -> None:
    """A skin goes where its joints are, a morph by its weight, a strip is triangles, bytes are fractions."""
    document, buffer = triangle()
    document["meshes"][0]["primitives"][0] |= {"targets": [{"POSITION": 0}]}
    document["nodes"][0]["weights"] = [0.5]
    save_gltf(tmp_path / "morph.gltf", document, buffer, inside=True)
    assert size_of(tmp_path / "morph.gltf") == [3.0, 0.0, 1.5]

    places = np.array([[0, 0, 0], [100, 0, 0], [0, 127, 0], [100, 127, 0]], np.int8)
    document, _ = triangle()
    document["accessors"] = [
        {"bufferView": 0, "componentType": 5120, "count": 4, "type": "VEC3", "normalized": True}
    ]
    document["bufferViews"] = [{"buffer": 0, "byteLength": 16, "byteStride": 4}]
    document["meshes"][0]["primitives"][0] = {"attributes": {"POSITION": 0}, "mode": 5}
    document["extensionsRequired"] = ["KHR_mesh_quantization"]
    padded = np.pad(places, ((0, 0), (0, 1))).tobytes()
    save_gltf(tmp_path / "strip.gltf", document, padded, inside=True)
    assert size_of(tmp_path / "strip.gltf") == [round(100 / 127, 1), 0.0, 1.0]

    document, buffer = triangle()
    joints = np.zeros((3, 4), np.uint8).tobytes()
    weights = np.tile(np.array([1, 0, 0, 0], "<f4"), (3, 1)).tobytes()
    start = len(buffer) + 2
    document["bufferViews"] += [
        {"buffer": 0, "byteOffset": start, "byteLength": 12},
        {"buffer": 0, "byteOffset": start + 12, "byteLength": 48},
    ]
    document["accessors"] += [
        {"bufferView": 2, "componentType": 5121, "count": 3, "type": "VEC4"},
        {"bufferView": 3, "componentType": 5126, "count": 3, "type": "VEC4"},
    ]
    document["meshes"][0]["primitives"][0]["attributes"] |= {"JOINTS_0": 2, "WEIGHTS_0": 3}
    document["skins"] = [{"joints": [1]}]
    document["nodes"] = [{"mesh": 0, "skin": 0, "scale": [9, 9, 9]}, {"scale": [1, 4, 1]}]
    document["scenes"] = [{"nodes": [0, 1]}]
    save_gltf(tmp_path / "skin.gltf", document, buffer + bytes(2) + joints + weights, inside=True)
    assert size_of(tmp_path / "skin.gltf") == [2.0, 0.0, 4.0]


# ---- which axis is up, and what belongs to a sample


@pytest.mark.parametrize(
    ("ending", "size"),
    [("obj", [1, 5, 2]), ("glb", [1, 5, 2]), ("stl", [1, 2, 5]), ("ply", [1, 2, 5]), ("off", [1, 2, 5])],
)
def test_formats_say_which_axis_is_up(ending: str, size: list[float], tmp_path: Path) -> None:
    """y in glTF by its specification and in OBJ by custom, z elsewhere; the project may say otherwise."""
    path = tmp_path / f"a.{ending}"
    tall_box().export(path)
    assert size_of(path) == size
    for up, said in (("z", [1, 2, 5]), ("y", [1, 5, 2]), ("x", [5, 2, 1])):
        for reader in (read, read_here):
            cloud = reader("point", Turned(path, up))  # type: ignore[arg-type]
            assert isinstance(cloud, Points)
            assert [round(float(side)) for side in np.ptp(cloud.xyz_N3, axis=0)] == said


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_turning_mirrors_nothing(up: str) -> None:
    """The axis that is up becomes z, and a right-handed corner stays right-handed."""
    turned = rotate_z_up(np.eye(3), up)  # type: ignore[arg-type]
    np.testing.assert_array_equal(turned["xyz".index(up)], [0, 0, 1])
    assert np.linalg.det(turned) == pytest.approx(1)


def test_a_samples_content_is_all_that_is_read(tmp_path: Path) -> None:
    """The hash changes with the mesh, its library, its buffer and the axis; alone it is the file's own."""
    (tmp_path / "a.obj").write_text(box_obj(extra="mtllib a.mtl"))
    missing: list[Path] = []
    own = content_hash("point", tmp_path / "a.obj", absent=missing.append)
    assert missing == [tmp_path / "a.mtl"]
    (tmp_path / "a.mtl").write_text("newmtl end\nKd 1 0 0\n")
    one = content_hash("point", tmp_path / "a.obj")
    (tmp_path / "a.mtl").write_text("newmtl end\nKd 0 1 0\n")
    two = content_hash("point", tmp_path / "a.obj")
    save_gltf(tmp_path / "a.gltf", *triangle(), inside=False)
    three = content_hash("point", tmp_path / "a.gltf")
    (tmp_path / "my data.bin").write_bytes(bytes(42))
    four = content_hash("point", tmp_path / "a.gltf")
    five = content_hash("point", Turned(tmp_path / "a.obj", "z"))
    assert len({own, one, two, three, four, five}) == 6
    assert own == hash_file(tmp_path / "a.obj")


def test_a_byte_order_mark_hides_no_line(tmp_path: Path) -> None:
    """An OBJ or a library that begins with a mark loses neither its first vertex nor its first material."""
    mark = "\ufeff"
    square = "v 0 0 0\nv 1 0 0\nv 1 2 0\nv 0 2 0\n"
    (tmp_path / "plain.obj").write_text(square + "f 1 2 3 4\n")
    (tmp_path / "a.obj").write_text(mark + square + "f 1 2 3 4\n", encoding="utf-8")
    np.testing.assert_array_equal(
        cloud_of(tmp_path / "a.obj").xyz_N3, cloud_of(tmp_path / "plain.obj").xyz_N3
    )
    (tmp_path / "b.obj").write_text(f"{mark}mtllib\tm.mtl\n{square}usemtl red\nf 1 2 3 4\n", encoding="utf-8")
    (tmp_path / "m.mtl").write_text(f"{mark}newmtl red\nKd 1 0 0\n", encoding="utf-8")
    rgb = cloud_of(tmp_path / "b.obj").rgb_N3
    assert rgb is not None and (rgb == [255, 0, 0]).all()
    assert companions("point", tmp_path / "b.obj") == [tmp_path / "m.mtl"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_binary_ply_cloud_is_not_read_number_by_number(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """plyfile maps it into memory, which takes a tenth of the time; a file that was cut off is refused."""
    rows = np.zeros(500, [(axis, f"{order}f4") for axis in "xyz"])
    for axis in "xyz":
        rows[axis] = np.random.default_rng(0).normal(size=500)
    path = tmp_path / "a.ply"
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")], byte_order=order).write(str(path))
    monkeypatch.setattr(plyfile.PlyProperty, "_read_bin", None)
    wanted = np.stack([rows[axis] for axis in "xyz"], axis=1)
    np.testing.assert_array_equal(cloud_of(path).xyz_N3, wanted.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SampleError, match="early end-of-file"):
        cloud_of(path)
