"""`unibind init` writes a project that loads and a manifest that reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError, ManifestError
from data.manifest.read import read_manifest
from pipeline.init import init_project
from pipeline.project import load_project


def photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for category in ("black cat", "dog's"):
        for number in range(5):
            path = folder / category / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (folder / "black cat" / "notes.xyzzy").write_text("?", encoding="utf-8")
    return folder


def sounds(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
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
    assert (
        (target.parent / "manifest.csv")
        .read_text(encoding="utf-8")
        .startswith("sample_id,uri,modality,category,")
    )
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


def test_a_second_project_stands_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-p other` makes other.toml with a manifest and results of its own; the first stays as it is."""
    monkeypatch.chdir(tmp_path)
    folder = photos(tmp_path / "photos")
    init_project(folder, Path("unibind.toml"))
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    told = init_project(folder, Path("other"))
    one, other = load_project(Path("unibind.toml")), load_project(Path("other.toml"))
    assert other.manifest == tmp_path / "other.csv"
    assert one.run != other.run
    assert told[-1] == "next: unibind run -p other.toml"
    assert {name: (tmp_path / name).read_bytes() for name in first} == first
    (tmp_path / "sub").mkdir()
    init_project(folder, tmp_path / "sub")
    assert (tmp_path / "sub" / "unibind.toml").is_file()


def test_two_projects_never_share_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the name of another project here gets another name, and that is said."""
    monkeypatch.chdir(tmp_path)
    init_project(photos(tmp_path / "a" / "photos"), Path("unibind.toml"))
    told = init_project(photos(tmp_path / "b" / "photos"), Path("photos.toml"))
    assert load_project(Path("photos.toml")).name == "photos-2"
    assert "named photos-2: runs/photos belongs to another project here" in told


@pytest.mark.parametrize(
    ("files", "trained", "why"),
    [
        (
            ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"],
            True,
            "audio cannot be compared with texts",
        ),
        (["a/1.wav", "b/1.wav"], False, "of fewer than two categories"),
        (["a/1.wav", "a/2.wav"], False, "of fewer than two categories"),
        (["1.wav", "2.wav"], False, "no sample has a category"),
        (["a/1.mp4", "a/2.mp4", "b/1.txt", "b/2.txt"], False, "text and video: recognised without it"),
        (["a/1.txt", "a/2.txt", "a/3.ply", "b/4.ply", "b/5.ply"], True, "point cannot be compared"),
    ],
)
def test_training_is_chosen_by_what_is_there(
    tmp_path: Path, files: list[str], trained: bool, why: str
) -> None:
    """`unibind run` trains where a modality needs it and labels allow it; a line and the file say why."""
    told = init_project(sounds(tmp_path / "f", *files), tmp_path / "unibind.toml")
    assert load_project(tmp_path / "unibind.toml").train.enabled is trained
    (line,) = [line for line in told if line.startswith("training is")]
    assert why in line
    assert why in (tmp_path / "unibind.toml").read_text(encoding="utf-8")


def test_init_says_what_it_tied_and_what_is_missing(tmp_path: Path) -> None:
    """Lines for ties, splits, links with their remedy, and a flat folder's lack of categories."""
    folder = sounds(tmp_path / "f", "dog/rex.wav", "dog/rex.txt", "cat/tom.wav")
    (folder / "cat" / "out.wav").symlink_to(tmp_path / "elsewhere.wav")
    (tmp_path / "elsewhere.wav").write_bytes(b"sound")
    told = "\n".join(init_project(folder, tmp_path / "one.toml"))
    assert "grouped 1 object with several files of one name (1 of audio + text), such as dog/rex" in told
    assert "splits drawn by object" in told
    assert (
        "left out: 1 file (a link that leads outside the folder). To follow the links: "
        f"`unibind init {folder}" in told
    )
    flat = sounds(tmp_path / "flat", "dog_1.wav", "dog_2.wav", "cat_1.wav", "cat_2.wav")
    told = "\n".join(init_project(flat, tmp_path / "two.toml"))
    assert "no categories" in told
    assert "--by-name" in told
    assert "category" in (tmp_path / "two.csv").read_text(encoding="utf-8").splitlines()[0]


def test_modality_overrules_endings(tmp_path: Path) -> None:
    """`--modality thermal` takes every file as that, and the manifest says so."""
    init_project(photos(tmp_path / "photos"), tmp_path / "unibind.toml", modality="thermal")
    project = load_project(tmp_path / "unibind.toml")
    manifest = read_manifest(project.manifest, root=project.data_root)
    assert {sample.modality for sample in manifest.samples} == {"thermal"}
    assert len(manifest.samples) == 11
    told = read_manifest(project.manifest, root=project.data_root, modality="image").notes
    assert any("the column modality overrides `modality = 'image'` for 11 samples" in note for note in told)


@pytest.mark.parametrize("name", ["a\x7fb", "a\x9fb", "a\x1fb", b"a\xffb".decode("utf-8", "surrogateescape")])
def test_a_folder_that_no_project_can_name_is_refused(name: str, tmp_path: Path) -> None:
    """Its project file could not be read, or not be written: one line, and nothing is left behind."""
    sounds(tmp_path / name, "dog/a.wav", "cat/b.wav")
    with pytest.raises(InputError, match="holds a character that no project file can hold; rename"):
        init_project(tmp_path / name, tmp_path / "unibind.toml")
    assert [path.name for path in tmp_path.iterdir()] == [name]
