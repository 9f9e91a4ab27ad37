"""Which project a command takes: --project, unibind.toml, or the last one run from this folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.errors import ProjectError
from kb_builder.tables.schemas import CATEGORIES, write_table
from pipeline.cli.project import LAST, last_project, load, load_if_any, load_to_read, remember


def _write(folder: Path, name: str, *, file: str) -> Path:
    """A project file whose knowledge base holds one category, called like the project."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'name = "{name}"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    row = {"category_id": name, "name": name, "aliases": [], "parent": None, "notes": None}
    write_table(path.parent / "runs" / name / "kb" / "categories.parquet", [row], CATEGORIES)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: one that holds no project yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_reading_command_takes_the_last_project_and_says_so(folder: Path, unibind: Any) -> None:
    """`kb sql` without --project queries the project that was run last, named on stderr alone."""
    for name in ("first", "second"):
        remember(_write(folder, name, file=f"{name}.toml"))
    status, out, err = unibind("kb", "sql", "SELECT name FROM v_categories", folder=folder)
    assert (status, out.split()) == (0, ["name", "------", "second"])
    assert err == "project second.toml, the last one run from this folder\n"


def test_init_and_a_run_are_remembered(folder: Path, unibind: Any) -> None:
    """`init -p` and `describe -p` each note their project file, though the second of them fails."""
    (folder / "photos" / "red").mkdir(parents=True)
    (folder / "photos" / "red" / "a.txt").write_text("a bell", encoding="utf-8")
    assert unibind("init", "photos", "-p", "other", folder=folder)[0] == 0
    assert last_project() == Path("other.toml")
    _write(folder, "broken", file="broken.toml")
    status, _, err = unibind("describe", "-p", "broken.toml", folder=folder)
    assert (status, "m.csv" in err) == (1, True)
    assert last_project() == Path("broken.toml")


def test_unibind_toml_always_wins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the folder has a unibind.toml, that one is taken, and no other is noted."""
    other = _write(folder, "other", file="other.toml")
    remember(other)
    _write(folder, "own", file="unibind.toml")
    assert load_to_read(None).name == "own"
    shutil.rmtree(LAST.parent)
    remember(other)
    assert not LAST.exists()
    assert load_to_read(None).name == "own"
    assert load_to_read(other).name == "other"
    assert capsys.readouterr().err == ""


def test_a_command_that_changes_a_run_takes_no_last_project(folder: Path) -> None:
    """It names the last project as a hint instead; without one, `unibind init` is the way."""
    with pytest.raises(ProjectError, match="unibind init"):
        load(None)
    remember(_write(folder, "other", file="other.toml"))
    with pytest.raises(ProjectError, match=r"name its project: --project other\.toml is the last one run"):
        load(None)
    assert load(Path("other.toml")).name == "other"


def test_a_project_elsewhere_is_found_by_its_absolute_path(tmp_path: Path, folder: Path) -> None:
    """The note is written in the current folder and nowhere else."""
    elsewhere = _write(tmp_path / "elsewhere", "far", file="far.toml")
    here = folder / "here"
    here.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        remember(elsewhere)
        assert json.loads(LAST.read_text(encoding="utf-8")) == {"project": str(elsewhere)}
        assert load_to_read(None).name == "far"
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["far.toml", "runs"]


def test_a_last_project_that_is_gone_is_an_error(folder: Path) -> None:
    """Its path is named; no other project is taken for it."""
    path = _write(folder, "gone", file="gone.toml")
    remember(path)
    path.unlink()
    with pytest.raises(ProjectError, match=r"gone\.toml: no such project file"):
        load_to_read(None)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"project": 3}'])
def test_a_damaged_note_is_ignored_aloud(
    folder: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands for no project, which is said."""
    LAST.parent.mkdir()
    LAST.write_text(content, encoding="utf-8")
    assert load_if_any(None) is None
    assert "last.json is damaged and ignored" in capsys.readouterr().err
    remember(_write(folder, "new", file="new.toml"))
    assert last_project() == Path("new.toml")


def test_a_folder_that_cannot_be_written_costs_only_the_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command goes on, and one line says that --project is needed later."""
    path = _write(folder, "x", file="x.toml")
    LAST.parent.write_text("a file where the folder would be", encoding="utf-8")
    remember(path)
    assert "later commands need --project" in capsys.readouterr().err
    assert last_project() is None
