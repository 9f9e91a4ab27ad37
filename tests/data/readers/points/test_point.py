"""Point clouds: seven formats of the same cloud, meshes, and files that mean harm."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData, PlyElement

from data.errors import SampleError
from data.readers import read_here as read
from data.readers.payload import Bytes, Floats, Points
from data.readers.points.mesh import SURFACE_POINTS


def cloud_of(path: Path) -> Points:
    payload = read("point", path)
    assert isinstance(payload, Points)
    return payload


@pytest.fixture
def xyz() -> Floats:
    return np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture
def rgb() -> Bytes:
    return np.random.default_rng(1).integers(0, 256, (50, 3)).astype(np.uint8)


def save_ply(path: Path, xyz: Floats, rgb: Bytes | None = None, *, text: bool = False) -> None:
    colours = [] if rgb is None else [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.zeros(len(xyz), [("x", "f4"), ("y", "f4"), ("z", "f4"), *colours])
    for name, column in zip("xyz", xyz.T, strict=True):
        vertices[name] = column
    for (name, _), column in zip(colours, () if rgb is None else rgb.T, strict=True):
        vertices[name] = column
    PlyData([PlyElement.describe(vertices, "vertex")], text=text).write(str(path))


def save_pcd(path: Path, xyz: Floats, rgb: Bytes, *, data: str) -> None:
    rows = np.zeros(len(xyz), [("xyz", "<f4", 3), ("pad", "u1", 2), ("rgb", "<u4")])
    rows["xyz"] = xyz
    rows["rgb"] = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z _ rgb\nSIZE 4 4 4 1 4\n"
        f"TYPE F F F U U\nCOUNT 1 1 1 2 1\nWIDTH {len(xyz)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(xyz)}\nDATA {data}\n"
    )
    lines = "".join(
        f"{x:.9g} {y:.9g} {z:.9g} 0 0 {c}\n" for (x, y, z), c in zip(xyz, rows["rgb"], strict=True)
    )
    path.write_bytes(head.encode() + (rows.tobytes() if data == "binary" else lines.encode()))


def test_every_cloud_format_gives_the_same_points(tmp_path: Path, xyz: Floats, rgb: Bytes) -> None:
    """PLY and PCD in both their forms, XYZ, NPY and a tensor give the same coordinates, in order."""
    save_ply(tmp_path / "a.ply", xyz, rgb)
    save_ply(tmp_path / "b.ply", xyz, rgb, text=True)
    save_pcd(tmp_path / "a.pcd", xyz, rgb, data="binary")
    save_pcd(tmp_path / "b.pcd", xyz, rgb, data="ascii")
    np.savetxt(tmp_path / "a.xyz", np.hstack([xyz, rgb]), fmt="%.9g")
    np.savetxt(tmp_path / "b.xyz", np.hstack([xyz, rgb]), fmt="%.9g", delimiter=", ")
    np.save(tmp_path / "a.npy", np.hstack([xyz, rgb / 255.0]))
    for path in sorted(tmp_path.iterdir()):
        cloud = cloud_of(path)
        np.testing.assert_allclose(cloud.xyz_N3, xyz, rtol=1e-6, err_msg=path.name)
        assert cloud.rgb_N3 is not None, path.name
        np.testing.assert_array_equal(cloud.rgb_N3, rgb, err_msg=path.name)
    torch.save(torch.from_numpy(xyz)[None], tmp_path / "a.pt")  # a batch of one
    np.testing.assert_array_equal(cloud_of(tmp_path / "a.pt").xyz_N3, xyz)
    assert cloud_of(tmp_path / "a.pt").rgb_N3 is None


def test_normals_are_not_taken_for_colours(tmp_path: Path, xyz: Floats) -> None:
    """Three further columns with negative numbers are normals (ModelNet40's text files), not colours."""
    np.savetxt(
        tmp_path / "a.xyz", np.hstack([xyz, xyz / np.linalg.norm(xyz, axis=1, keepdims=True)]), delimiter=","
    )
    assert cloud_of(tmp_path / "a.xyz").rgb_N3 is None


def test_invalid_pcd_points_are_dropped_as_pcl_defines(tmp_path: Path, xyz: Floats, rgb: Bytes) -> None:
    """In a PCD, NaN marks a pixel of the depth camera that saw nothing."""
    xyz[3] = np.nan
    save_pcd(tmp_path / "a.pcd", xyz, rgb, data="binary")
    cloud = cloud_of(tmp_path / "a.pcd")
    assert cloud.rgb_N3 is not None
    np.testing.assert_array_equal(cloud.rgb_N3, np.delete(rgb, 3, axis=0))


@pytest.mark.parametrize("ending", ["off", "obj", "ply"])
def test_meshes_are_sampled_over_their_surface(ending: str, tmp_path: Path) -> None:
    """A sphere in any mesh format gives the same number of points on the sphere, evenly, twice the same."""
    trimesh.creation.icosphere(subdivisions=4).export(tmp_path / f"a.{ending}")
    xyz = cloud_of(tmp_path / f"a.{ending}").xyz_N3
    assert xyz.shape == (SURFACE_POINTS, 3)
    np.testing.assert_allclose(np.linalg.norm(xyz, axis=1), 1, atol=0.01)
    np.testing.assert_allclose(np.cov(xyz.T), np.eye(3) / 3, atol=0.01)
    np.testing.assert_array_equal(cloud_of(tmp_path / f"a.{ending}").xyz_N3, xyz)


def test_modelnet_off_headers_without_a_line_break(tmp_path: Path) -> None:
    """ModelNet40 has files that begin `OFF8 12 0`, on one line; they are meshes all the same."""
    box = trimesh.creation.box()
    box.export(tmp_path / "a.off")
    text = (tmp_path / "a.off").read_text()
    (tmp_path / "b.off").write_text(text.replace("OFF\n", "OFF", 1))
    np.testing.assert_array_equal(cloud_of(tmp_path / "a.off").xyz_N3, cloud_of(tmp_path / "b.off").xyz_N3)


def test_an_obj_opens_no_other_file(tmp_path: Path) -> None:
    """The material library that an OBJ names is not looked at, even where it could be."""
    trimesh.creation.box().export(tmp_path / "a.obj")
    os.mkfifo(tmp_path / "trap.mtl")  # opening it would block for ever
    (tmp_path / "a.obj").write_text("mtllib trap.mtl\nusemtl x\n" + (tmp_path / "a.obj").read_text())
    assert len(cloud_of(tmp_path / "a.obj").xyz_N3) == SURFACE_POINTS


def test_far_away_clouds_keep_their_shape(tmp_path: Path, xyz: Floats) -> None:
    """A geo-referenced cloud, flat in float32 where it stands, is moved to the origin."""
    np.save(tmp_path / "a.npy", xyz.astype(np.float64) + np.array([4e6, 5e6, 0]))
    read_xyz = cloud_of(tmp_path / "a.npy").xyz_N3
    np.testing.assert_allclose(read_xyz - read_xyz.mean(axis=0), xyz - xyz.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 3)), "fewer than 16"),
        (np.ones((50, 3)), "coincide"),
        (np.full((50, 3), np.nan), "NaN"),
        (np.full((50, 3), -np.inf), "infinite"),
        (np.arange(150.0).reshape(50, 3) * 1e30, "absurdly far"),
        (np.zeros((50, 2)), "not a point cloud"),
        (np.zeros(150), "not a point cloud"),
        (np.zeros((50, 3), np.complex64), "not a point cloud"),
        (np.zeros((50, 3), [("x", "f4")]), "not a point cloud"),
        (np.zeros((0, 3)), "fewer than 16"),
        (np.random.default_rng(0).random((48, 64)), "a picture or a table"),
        (np.random.default_rng(0).random((1, 48, 64)), "a picture or a table"),
        (np.random.default_rng(0).random((3, 64)), "transposed"),
    ],
)
def test_clouds_without_a_shape_are_refused(array: np.ndarray[Any, Any], reason: str, tmp_path: Path) -> None:
    """One point, no points, one place, NaN, infinity and wrong arrays are refused with the reason."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SampleError, match=reason):
        read("point", tmp_path / "a.npy")


def test_no_array_is_read_by_half(tmp_path: Path, xyz: Floats) -> None:
    """Two arrays saved into one file are refused; a tensor as large as a picture is no cloud either."""
    with (tmp_path / "a.npy").open("wb") as file:
        np.save(file, xyz)
        np.save(file, xyz)
    with pytest.raises(SampleError, match="behind its array"):
        read("point", tmp_path / "a.npy")
    torch.save(torch.rand(48, 64), tmp_path / "a.pt")
    with pytest.raises(SampleError, match="a picture or a table"):
        read("point", tmp_path / "a.pt")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    """Pickles inside `.npy` and `.pt`, and bare ones, are refused and leave no trace of having run."""
    ran = tmp_path / "ran"
    np.save(tmp_path / "a.npy", np.array([Payload(ran)] * 20, dtype=object), allow_pickle=True)
    torch.save({"points": Payload(ran)}, tmp_path / "a.pt")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Payload(ran)))
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Payload(ran)))
    for name in ("a.npy", "a.pt", "b.npy", "b.pt"):
        with pytest.raises(SampleError):
            read("point", tmp_path / name)
    assert not ran.exists()


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    """A stride-0 view that claims 12 GB, a zip bomb, a sparse tensor and a dict are refused in time."""
    torch.save(torch.zeros(1).expand(1_000_000_000, 3), tmp_path / "view.pt")
    with pytest.raises(SampleError, match="too large"):
        read("point", tmp_path / "view.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data/0", bytes(300 * 2**20))
    with pytest.raises(SampleError, match="decompresses to 300 MiB"):
        read("point", tmp_path / "bomb.pt")
    torch.save(torch.eye(20)[:, :3].to_sparse(), tmp_path / "sparse.pt")
    with pytest.raises(SampleError, match="dense"):
        read("point", tmp_path / "sparse.pt")
    torch.save({"points": torch.zeros(20, 3)}, tmp_path / "dict.pt")
    with pytest.raises(SampleError, match="contains a dict"):
        read("point", tmp_path / "dict.pt")


def test_headers_that_promise_too_much_are_refused(tmp_path: Path, xyz: Floats, rgb: Bytes) -> None:
    """PLY, NPY, PCD and OFF headers that declare more than there is are refused before memory is taken."""
    save_ply(tmp_path / "a.ply", xyz, text=True)
    huge = (tmp_path / "a.ply").read_bytes().replace(b"vertex 50", b"vertex 99999999999999")
    (tmp_path / "a.ply").write_bytes(huge)
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(1000))
    save_pcd(tmp_path / "a.pcd", xyz, rgb, data="binary")
    (tmp_path / "a.pcd").write_bytes(
        (tmp_path / "a.pcd").read_bytes().replace(b"POINTS 50", b"POINTS 99999999999")
    )
    trimesh.creation.box().export(tmp_path / "a.off")
    (tmp_path / "a.off").write_text((tmp_path / "a.off").read_text().replace("8 12 ", "8 13 ", 1))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(SampleError, match=r"truncated|mmap length"):
            read("point", path)


def test_polygons_of_any_number_of_corners_are_fans(tmp_path: Path) -> None:
    """A PLY of a triangle, a square, a line and a hexagon is sampled as trimesh cuts them, by area."""
    corners = np.array([[np.cos(a), np.sin(a), 0] for a in np.arange(6) * np.pi / 3])
    square = np.array([[2, 0, 0], [3, 0, 0], [3, 1, 0], [2, 1, 0]])
    vertices = np.zeros(10, [("x", "f8"), ("y", "f8"), ("z", "f8")])
    for name, column in zip("xyz", np.concatenate([corners, square]).T, strict=True):
        vertices[name] = column
    faces = np.zeros(4, [("vertex_indices", object)])
    faces["vertex_indices"] = [np.array(f) for f in ([6, 7, 8], [6, 8, 9], [0, 1], [0, 1, 2, 3, 4, 5])]
    described = PlyElement.describe(faces, "face", val_types={"vertex_indices": "i4"})
    PlyData([PlyElement.describe(vertices, "vertex"), described]).write(str(tmp_path / "a.ply"))
    xyz = cloud_of(tmp_path / "a.ply").xyz_N3
    inside = (np.linalg.norm(xyz, axis=1) <= 1 + 1e-6) & (xyz[:, 0] < 1.5)
    hexagon = 3 * np.sqrt(3) / 2
    assert inside.mean() == pytest.approx(hexagon / (hexagon + 1), abs=1e-3)
    assert (xyz[~inside, 0] >= 2).all()


def test_faces_that_name_no_vertex_are_refused(tmp_path: Path) -> None:
    """A PLY face beyond the last vertex does not become an IndexError."""
    trimesh.creation.box().export(tmp_path / "a.ply", encoding="ascii")
    text = (tmp_path / "a.ply").read_text().splitlines()
    text[-1] = "3 0 1 99"
    (tmp_path / "a.ply").write_text("\n".join(text) + "\n")
    with pytest.raises(SampleError, match="missing vertices"):
        read("point", tmp_path / "a.ply")


def test_unknown_endings_name_the_known_ones(tmp_path: Path) -> None:
    """A cloud in a format that is not read is told which are."""
    (tmp_path / "a.las").write_bytes(b"LASF")
    with pytest.raises(SampleError, match=r"\.npy, \.obj, \.off"):
        read("point", tmp_path / "a.las")


NAMES = ["Jürgen Müller".encode("latin-1"), "Jürgen Müller".encode(), "张伟".encode(), "张伟".encode("gbk")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [b"comment", b"obj_info"])
@pytest.mark.parametrize("text", [True, False])
def test_a_ply_header_holds_names_in_any_letters(
    name: bytes, key: bytes, text: bool, tmp_path: Path, xyz: Floats, rgb: Bytes
) -> None:
    """Comments carry no data: the cloud is the same, in text and binary, with a byte-order mark, too."""
    save_ply(tmp_path / "a.ply", xyz, rgb, text=text)
    data = (tmp_path / "a.ply").read_bytes()
    plain = cloud_of(tmp_path / "a.ply")
    head, line = data.split(b"element", 1)
    for before in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "b.ply").write_bytes(before + head + key + b" by " + name + b"\nelement" + line)
        named = cloud_of(tmp_path / "b.ply")
        np.testing.assert_array_equal(named.xyz_N3, plain.xyz_N3)
        np.testing.assert_array_equal(named.rgb_N3, plain.rgb_N3)


def test_a_ply_mesh_has_the_colours_of_its_vertices(tmp_path: Path) -> None:
    """A triangle with a black, a red and a blue corner is mixed between them."""
    vertices = np.zeros(
        3, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    )
    vertices["x"], vertices["y"] = [0, 1, 0], [0, 0, 1]
    vertices["red"], vertices["blue"] = [0, 255, 0], [0, 0, 255]
    faces = np.array([([0, 1, 2],)], [("vertex_indices", "i4", 3)])
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements).write(str(tmp_path / "a.ply"))
    cloud = cloud_of(tmp_path / "a.ply")
    assert cloud.rgb_N3 is not None
    np.testing.assert_allclose(cloud.rgb_N3[:, [0, 2]], cloud.xyz_N3[:, :2] * 255, atol=0.51)


def test_a_ply_mesh_has_the_colours_of_its_faces(tmp_path: Path) -> None:
    """A red triangle and a blue square are red and blue, without any mixture."""
    vertices = np.array(
        [(0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 0, 0), (3, 0, 0), (3, 1, 0), (2, 1, 0)],
        [("x", "f4"), ("y", "f4"), ("z", "f4")],
    )
    faces = np.zeros(2, [("vertex_indices", object), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    faces["vertex_indices"] = [np.array([0, 1, 2]), np.array([3, 4, 5, 6])]
    faces["red"], faces["blue"] = [255, 0], [0, 255]
    described = PlyElement.describe(faces, "face", val_types={"vertex_indices": "i4"})
    PlyData([PlyElement.describe(vertices, "vertex"), described]).write(str(tmp_path / "a.ply"))
    cloud = cloud_of(tmp_path / "a.ply")
    expected = np.where(cloud.xyz_N3[:, :1] < 1.5, [[255, 0, 0]], [[0, 0, 255]])
    np.testing.assert_array_equal(cloud.rgb_N3, expected)


@pytest.mark.parametrize("text", [True, False])
def test_a_ply_that_goes_on_behind_its_end_is_refused(text: bool, tmp_path: Path, xyz: Floats) -> None:
    """A header that declares fewer points than there are; blank lines and padding at the end are nothing."""
    save_ply(tmp_path / "a.ply", xyz, text=text)
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "b.ply").write_bytes(data + (b"\n\n" if text else bytes(100)))
    np.testing.assert_array_equal(cloud_of(tmp_path / "b.ply").xyz_N3, cloud_of(tmp_path / "a.ply").xyz_N3)
    (tmp_path / "b.ply").write_bytes(data.replace(b"vertex 50", b"vertex 40"))
    with pytest.raises(SampleError, match="10 lines behind" if text else "120 bytes behind"):
        read("point", tmp_path / "b.ply")


def pcd(
    xyz: Floats, rgb: Bytes, *, drop: str = "", name: str = "rgb", before: bytes = b"", kind: str = "U"
) -> bytes:
    """An ascii PCD with colours packed as a whole number or a float, without one line of its header."""
    packed = (rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)).astype("<u4")
    head = [
        "VERSION .7", f"FIELDS x y z {name}", "SIZE 4 4 4 4", f"TYPE F F F {kind}", "COUNT 1 1 1 1",
        f"WIDTH {len(xyz)}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {len(xyz)}", "DATA ascii",
    ]  # fmt: skip
    words = packed.astype(str) if kind == "U" else [f"{value:.10g}" for value in packed.view("<f4")]
    rows = [f"{x:.9g} {y:.9g} {z:.9g} {c}" for (x, y, z), c in zip(xyz, words, strict=True)]
    return before + "\n".join([*(line for line in head if not line.startswith(drop or "?")), *rows]).encode()


@pytest.mark.parametrize("drop", ["POINTS", "COUNT", "HEIGHT", "VIEWPOINT", "VERSION"])
@pytest.mark.parametrize(("name", "kind"), [("rgb", "U"), ("rgba", "U"), ("rgb", "F")])
def test_a_pcd_needs_few_of_its_lines(
    drop: str, name: str, kind: str, tmp_path: Path, xyz: Floats, rgb: Bytes
) -> None:
    """WIDTH × HEIGHT says how many points there are; colours are rgb or rgba, whole numbers or floats."""
    for before in (b"", "# Jürgen\n".encode(), "# Jürgen\n".encode("latin-1"), b"\xef\xbb\xbf"):
        (tmp_path / "a.pcd").write_bytes(pcd(xyz, rgb, drop=drop, name=name, before=before, kind=kind))
        cloud = cloud_of(tmp_path / "a.pcd")
        np.testing.assert_allclose(cloud.xyz_N3, xyz, rtol=1e-6)
        np.testing.assert_array_equal(cloud.rgb_N3, rgb)


@pytest.mark.parametrize(
    ("drop", "reason"),
    [("FIELDS", "lacks FIELDS"), ("TYPE", "lacks TYPE"), ("DATA", "lacks DATA"), ("SIZE", "lacks SIZE")],
)
def test_a_pcd_without_what_it_needs_is_refused(
    drop: str, reason: str, tmp_path: Path, xyz: Floats, rgb: Bytes
) -> None:
    """The line that is missing is named; so are fields that are not there, and points beyond the declared."""
    (tmp_path / "a.pcd").write_bytes(pcd(xyz, rgb, drop=drop))
    with pytest.raises(SampleError, match=reason):
        read("point", tmp_path / "a.pcd")
    save_pcd(tmp_path / "b.pcd", xyz, rgb, data="binary")
    whole = (tmp_path / "b.pcd").read_bytes()
    (tmp_path / "b.pcd").write_bytes(whole.replace(b"POINTS 50", b"POINTS 40"))
    with pytest.raises(SampleError, match="40 are declared"):
        read("point", tmp_path / "b.pcd")
    (tmp_path / "c.pcd").write_bytes(pcd(xyz, rgb).replace(b"x y z", b"u v w"))
    with pytest.raises(SampleError, match="no fields x, y and z"):
        read("point", tmp_path / "c.pcd")
