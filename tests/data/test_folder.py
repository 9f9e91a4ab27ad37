"""data.folder: anyone's folder of files as a dataset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data.errors import ManifestError
from data.folder import survey_folder
from data.manifest import read_manifest, write_manifest
from data.sample import Category


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_sub_folders_are_categories(tmp_path: Path) -> None:
    """A category is named as its folder, at any depth below; endings tell the modality."""
    fill(tmp_path, "golden_retriever/a.JPG", "golden_retriever/more/b.png", "Bells/c.wav")
    scan = survey_folder(tmp_path)
    samples, categories = scan.samples, scan.categories
    assert categories == (Category("bells", "Bells"), Category("golden-retriever", "golden retriever"))
    assert {(s.uri, s.modality, s.category_id) for s in samples} == {
        ("golden_retriever/a.JPG", "image", "golden-retriever"),
        ("golden_retriever/more/b.png", "image", "golden-retriever"),
        ("Bells/c.wav", "audio", "bells"),
    }


def test_the_split_is_60_20_20_in_each_category_and_stays(tmp_path: Path) -> None:
    """Ten files give 6, 2 and 2; one gives a test sample; the same folder gives the same split."""
    fill(tmp_path, *(f"many/{n}.png" for n in range(10)), *(f"many/{n}.wav" for n in range(2)), "one/a.png")
    samples = survey_folder(tmp_path).samples
    counts = Counter((s.category_id, s.modality, s.split) for s in samples)
    assert counts == {
        ("many", "image", "train"): 6,
        ("many", "image", "val"): 2,
        ("many", "image", "test"): 2,
        ("many", "audio", "train"): 1,
        ("many", "audio", "test"): 1,
        ("one", "image", "test"): 1,
    }
    assert survey_folder(tmp_path).samples == samples


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    """Hidden files, unknown endings, links, and files beside the folders: each with its reason."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"x")
    photos = tmp_path / "photos"
    fill(
        photos,
        "dog/a.png",
        "dog/.DS_Store",
        "dog/notes.doc",
        "dog/a\\b.png",
        " birds/c.png",
        ".git/x.png",
        "top.png",
    )
    (photos / "dog" / "link.png").symlink_to(outside)
    (photos / "dog" / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "linked").symlink_to(tmp_path)
    scan = survey_folder(photos)
    assert [sample.uri for sample in scan.samples] == ["dog/a.png"]
    assert dict(scan.skipped) == {
        "dog/.DS_Store": "hidden",
        "dog/notes.doc": "unknown ending '.doc'",
        "dog/a\\b.png": "a name that a manifest cannot hold",
        " birds/c.png": "a name that a manifest cannot hold",
        ".git/": "a hidden folder",
        "top.png": "beside the category folders",
        "dog/link.png": "a link that leads outside the folder",
        "dog/gone.png": "not a file",
        "linked/": "a link to a folder",
    }


def test_a_flat_folder_has_no_categories(tmp_path: Path) -> None:
    """Files without sub-folders are samples without a category; a told modality takes every file."""
    fill(tmp_path, "a.png", "b.png", "c.dat")
    scan = survey_folder(tmp_path)
    assert [sample.category_id for sample in scan.samples] == [None, None]
    assert scan.categories == ()
    assert {s.modality for s in survey_folder(tmp_path, modality="thermal").samples} == {"thermal"}


def test_folders_that_give_nothing(tmp_path: Path) -> None:
    """A missing folder and one without samples are refused."""
    with pytest.raises(ManifestError, match="no such folder"):
        survey_folder(tmp_path / "none")
    with pytest.raises(ManifestError, match="no sample in it"):
        survey_folder(tmp_path)


def test_folders_of_signs_are_categories_of_their_own(tmp_path: Path) -> None:
    """C, C++ and C#, + and -, and two emoji are seven categories, and read back from the manifest as such."""
    names = ("C", "C++", "C#", "+", "-", "😀", "😃", "a|b", "ice_cream", "ice cream")
    fill(tmp_path / "ph", *(f"{name}/x.png" for name in names))
    scan = survey_folder(tmp_path / "ph")
    assert {category.name for category in scan.categories} == set(names)
    assert len({sample.category_id for sample in scan.samples}) == len(names)
    (note,) = scan.notes
    assert "'C', 'C#' and 'C++'; 'ice cream' and 'ice_cream'" in note
    write_manifest(tmp_path / "m.parquet", scan.samples, categories=scan.categories)
    manifest = read_manifest(tmp_path / "m.parquet", root=tmp_path / "ph")
    assert (manifest.samples, manifest.categories) == (scan.samples, scan.categories)


def test_folders_of_one_name_are_one_category(tmp_path: Path) -> None:
    """Dog and dog are one, which is said; their files are split as those of one category."""
    fill(tmp_path, "Dog/a.png", "dog/b.png", "cat/c.png")
    scan = survey_folder(tmp_path)
    assert scan.categories == (Category("cat", "cat"), Category("dog", "dog"))
    assert sorted(s.split for s in scan.samples if s.category_id == "dog") == ["test", "train"]
    assert scan.notes == ("1 category in several spellings: 'Dog' and 'dog' are read as one category 'dog'",)


def test_a_scan_survives_the_manifest(tmp_path: Path) -> None:
    """What was scanned is what the written manifest reads back, categories' names included."""
    fill(tmp_path, "ice_cream/a.png", "dog/b.wav", "dog/c d.png", "犬/e.png")
    scan = survey_folder(tmp_path)
    samples, categories = scan.samples, scan.categories
    write_manifest(tmp_path / "manifest.parquet", samples, categories=categories)
    manifest = read_manifest(tmp_path / "manifest.parquet")
    assert (manifest.samples, manifest.categories, manifest.notes) == (samples, categories, ())
