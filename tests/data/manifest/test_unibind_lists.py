"""data.manifest.unibind_lists: the official JSON lists, through `read_manifest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import ManifestError
from data.manifest.read import read_manifest
from data.sample import Category, Sample


def write_lists(folder: Path, **lists: Any) -> None:
    for name, entries in lists.items():
        (folder / f"{name}_data.json").write_text(json.dumps(entries), encoding="utf-8")


def test_the_official_layout(tmp_path: Path) -> None:
    """Three lists beside three folders of media: file names are relative to the split's folder."""
    for split in ("train", "eval", "test"):
        (tmp_path / f"{split}_dataset").mkdir()
    write_lists(
        tmp_path,
        train=[{"data": "0.wav", "label": "car_horn", "description": " A horn. "}],
        eval=[{"data": "0.wav", "label": "car_horn"}],
        test=[{"data": "0.wav", "label": "airplane"}],
    )
    expected = (
        Sample("train/0.wav", "audio", "train_dataset/0.wav", "train", "car-horn", None, "A horn."),
        Sample("val/0.wav", "audio", "eval_dataset/0.wav", "val", "car-horn"),
        Sample("test/0.wav", "audio", "test_dataset/0.wav", "test", "airplane"),
    )
    for path in (tmp_path, tmp_path / "train_data.json", tmp_path / "test_data.json"):
        manifest = read_manifest(path)
        assert manifest.samples == expected
        assert manifest.categories == (Category("airplane", "airplane"), Category("car-horn", "car_horn"))
        assert manifest.root == tmp_path


def test_media_beside_the_lists_and_missing_lists(tmp_path: Path) -> None:
    """Without the split's folder file names are relative to the lists; any list may be missing."""
    write_lists(tmp_path, test=[{"data": "media/a.png", "label": 7}])
    (sample,) = read_manifest(tmp_path, modality="event").samples
    assert sample == Sample("test/media/a.png", "event", "media/a.png", "test", "7")


def test_labels_of_any_type_and_back_slashes(tmp_path: Path) -> None:
    """Whole floats, truth values, signs and outer spaces make the labels that they make in every table."""
    labels = [1.0, 1, True, "C", "C++", "Dog", "dog "]
    entries = [{"data": f"x\\{n}.png", "label": label} for n, label in enumerate(labels)]
    write_lists(tmp_path, test=entries)
    manifest = read_manifest(tmp_path)
    ids = [sample.category_id for sample in manifest.samples]
    assert ids == ["1", "1", "true", "c", "c--cedb1bac7e", "dog", "dog"]
    assert manifest.samples[0].uri == "x/0.png"
    assert any("'Dog' and 'dog ' are read as one category 'dog'" in note for note in manifest.notes)


def test_one_file_in_two_lists_is_kept_and_noted(tmp_path: Path) -> None:
    """Official lists may share files: the ids differ, and the leak from train is told."""
    entry = {"data": "a.png", "label": "dog"}
    write_lists(tmp_path, train=[entry], test=[entry])
    manifest = read_manifest(tmp_path)
    assert [sample.sample_id for sample in manifest.samples] == ["train/a.png", "test/a.png"]
    assert any("in split train and in another" in note for note in manifest.notes)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Wrong entries are told by list and number; paths that lead out are refused, prefixed or not."""
    (tmp_path / "train_dataset").mkdir()
    entries = [
        {"data": "a.png", "labl": "dog"},
        {"label": "dog"},
        "a.png",
        {"data": "../../a.png", "label": "dog"},
        {"data": "/etc/passwd", "label": "dog"},
        {"data": "b.png", "label": "dog", "description": {"a": 3}},
    ]
    write_lists(tmp_path, train=entries)
    with pytest.raises(ManifestError) as error:
        read_manifest(tmp_path, modality="image")
    told = str(error.value)
    for words in (
        "train_data.json entry 1: unknown key 'labl'; did you mean 'label'?",
        "train_data.json entry 1: 'label' is missing",
        "train_data.json entry 2: 'data' is missing",
        "train_data.json entry 3: a str, not an object",
        "train_data.json entry 4: uri 'train_dataset/../../a.png' contains '..'",
        "train_data.json entry 5: uri '/etc/passwd' is absolute",
        "train_data.json entry 6: 'description' is dict",
    ):
        assert words in told


@pytest.mark.parametrize(("content", "message"), [("{}", "not a list"), ("[", "not valid JSON")])
def test_lists_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    """A file that is no JSON list is refused by name."""
    (tmp_path / "test_data.json").write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)
