"""data.paths: no uri leads out of its folder; ids from names."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import SampleError
from data.paths import resolve, slug


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.png",
        "a/../../secret.png",
        "a\\..\\..\\secret.png",
        "/etc/passwd",
        "C:\\pictures\\a.png",
        "\\\\server\\share\\a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "a\0.png",
        "",
        "..",
    ],
)
def test_refuses_paths_that_leave_the_folder(tmp_path: Path, uri: str) -> None:
    """Absolute paths, parents, addresses and broken paths are refused, of POSIX and of Windows."""
    with pytest.raises(SampleError):
        resolve(tmp_path, uri)


def test_refuses_links_that_lead_outside(tmp_path: Path) -> None:
    """A link to a file outside, a linked folder outside, and a chain of links are refused."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "file.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "chain.png").symlink_to(root / "file.png")
    for uri in ("file.png", "folder/secret.png", "chain.png"):
        with pytest.raises(SampleError, match="outside"):
            resolve(root, uri)


def test_refuses_a_neighbour_whose_name_begins_alike(tmp_path: Path) -> None:
    """`root-2` is not inside `root`, although its path begins with the same letters."""
    root, neighbour = tmp_path / "root", tmp_path / "root-2"
    root.mkdir()
    neighbour.mkdir()
    (root / "link").symlink_to(neighbour)
    with pytest.raises(SampleError, match="outside"):
        resolve(root, "link/a.png")


def test_follows_links_that_stay_inside(tmp_path: Path) -> None:
    """A link within the folder keeps its own name, and so its ending; a linked root is fine."""
    root = tmp_path / "root"
    (root / "store").mkdir(parents=True)
    (root / "store" / "0af3").write_bytes(b"x")
    (root / "a.png").symlink_to(root / "store" / "0af3")
    (tmp_path / "alias").symlink_to(root)
    assert resolve(root, "a.png") == root / "a.png"
    assert resolve(tmp_path / "alias", "a.png") == tmp_path / "alias" / "a.png"


def test_gives_paths_of_files_that_do_not_exist(tmp_path: Path) -> None:
    """Whether a file is there is for `ingest` to say; a loop of links is not an endless one."""
    assert resolve(tmp_path, "no/such.png") == tmp_path / "no" / "such.png"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert resolve(tmp_path, "loop") == tmp_path / "loop"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ice cream", "ice-cream"),
        ("  vehicles/autos ", "vehicles-autos"),
        ("car_horn", "car-horn"),
        ("Straße", "strasse"),
        ("犬", "犬"),
        ("Ｆｕｌｌ", "full"),
        ("!!!", ""),
    ],
)
def test_slugs(name: str, expected: str) -> None:
    """Ids are lower-case words of any script joined by hyphens; a name of signs alone has none."""
    assert slug(name) == expected
