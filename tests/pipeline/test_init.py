"""`unibind init` writes a project that loads and a manifest that reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from data.errors import InputError, ManifestError
from data.manifest import read_manifest
from pipeline.init import init_project
from pipeline.project import load_project


def photos(folder: Path) -> Path:
    for category in ("black cat", "dog's"):
        for number in range(5):
            path = folder / category / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    (folder / "black cat" / "notes.xyzzy").write_text("?", encoding="utf-8")
    return folder


def test_init_writes_a_project_that_loads_beside_an_untouched_folder(tmp_path: Path) -> None:
    """The project file is valid as written, its manifest finds every file, the folder itself gets nothing."""
    folder = photos(tmp_path / 'my "photos"')
    before = sorted(path for path in folder.rglob("*"))
    target = tmp_path / "work" / "unibind.toml"
    target.parent.mkdir()
    told = "\n".join(init_project(folder, target))
    project = load_project(target)
    manifest = read_manifest(project.manifest, root=project.data_root)
    assert len(manifest.samples) == 10
    assert [category.name for category in manifest.categories] == ["black cat", "dog's"]
    assert all((project.data_root / sample.uri).is_file() for sample in manifest.samples)
    assert sorted(path for path in folder.rglob("*")) == before
    assert "10 image in 2 categories" in told
    assert ".xyzzy" in told
    assert not project.train.enabled
    assert project.localize.rule == "name"


def test_init_never_overwrites(tmp_path: Path) -> None:
    """A project that is there stays as it is."""
    folder = photos(tmp_path / "photos")
    init_project(folder, tmp_path / "unibind.toml")
    with pytest.raises(InputError, match="already exists"):
        init_project(folder, tmp_path / "unibind.toml")


def test_init_of_an_empty_folder_writes_nothing(tmp_path: Path) -> None:
    """A folder without samples is refused before anything is written."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(ManifestError, match="no sample"):
        init_project(tmp_path / "photos", tmp_path / "unibind.toml")
    assert not (tmp_path / "unibind.toml").exists()
