"""`unibind split`: what it says, and that a project's manifest has the splits afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from data.manifest.read import read_manifest
from pipeline.project import load_project
from pipeline.split import split_project


def project_of(folder: Path, manifest: str) -> Path:
    (folder / "unibind.toml").write_text(f'name = "x"\n[data]\nmanifest = "{manifest}"\nroot = "media"\n')
    return folder / "unibind.toml"


def test_counts_per_category_are_told(tmp_path: Path) -> None:
    """A line for each category and one for all, what was tied, and where the old file is."""
    lines = [
        "uri,category",
        *(f"{category}{n}.wav,{category}" for category in ("ox", "ape") for n in "abcde"),
    ]
    (tmp_path / "media").mkdir()
    (tmp_path / "m.csv").write_text("\n".join([*lines, "lone.wav,"]))
    project = load_project(project_of(tmp_path, "m.csv"))
    told = split_project(project, seed=0, force=False)
    assert told[0].split() == ["train", "val", "test"]
    assert [line.split()[-4:] for line in told[1:5]] == [
        ["category)", "0", "0", "1"],
        ["ape", "3", "1", "1"],
        ["ox", "3", "1", "1"],
        ["all", "6", "2", "3"],
    ]
    assert "m.before-split.csv" in told[-1]
    assert {s.split for s in read_manifest(project.manifest, root=project.data_root).samples} == {
        "train",
        "val",
        "test",
    }


def test_the_world_has_its_own(tmp_path: Path) -> None:
    """The tabletop world is split by its settings."""
    with pytest.raises(InputError, match="tabletop"):
        split_project(load_project(project_of(tmp_path, "tabletop")), seed=0, force=False)
