"""data.folder.objects: which files show the same object."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.folder.objects import MediaFile, ObjectGroups, group_files
from data.modality import Modality

KINDS: dict[str, Modality] = {"png": "image", "jpg": "image", "wav": "audio", "ply": "point", "txt": "text"}


def group(root: Path, *uris: str, known: list[list[str]] | None = None) -> ObjectGroups:
    """Groups of files, each of its own content unless it exists; the first folder is the category."""
    for uri in uris:
        path = root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(uri.encode())
    files = [
        MediaFile(uri, KINDS[uri.rsplit(".", 1)[1]], uri.split("/")[0] if "/" in uri else None)
        for uri in uris
    ]
    return group_files(files, root, known=known or ())


def groups(found: ObjectGroups) -> list[list[str]]:
    """The files that are not alone, by object."""
    by_object: dict[str, list[str]] = defaultdict(list)
    for uri, key in found.shared().items():
        by_object[key].append(uri)
    return sorted(sorted(uris) for uris in by_object.values())


def test_one_name_in_one_folder(tmp_path: Path) -> None:
    """rex.png, rex.wav and rex.ply are one object, and how many were grouped is said."""
    found = group(tmp_path, "dog/rex.png", "dog/rex.wav", "dog/rex.ply", "dog/max.png", "cat/rex.png")
    assert groups(found) == [["dog/rex.ply", "dog/rex.png", "dog/rex.wav"]]
    assert found.key_of["dog/rex.wav"] == "dog/rex"
    (note,) = found.notes
    assert (
        note
        == "grouped 1 object with several files of one name (1 of audio + image + point), such as dog/rex"
    )


def test_one_name_in_modality_folders(tmp_path: Path) -> None:
    """In a category one of each modality is one object; bare numbers and several of one modality are not."""
    found = group(
        tmp_path,
        *("dog/photos/rex.png", "dog/sounds/Rex.wav"),
        *("dog/photos/1.png", "dog/sounds/1.wav"),
        *("dog/a/ada.png", "dog/b/ada.png", "dog/c/ada.wav"),
    )
    assert groups(found) == [["dog/photos/rex.png", "dog/sounds/Rex.wav"]]


@pytest.mark.parametrize(
    "names",
    [
        ("rex-0", "rex-1", "rex-2", "rex-3", "rex-4"),
        ("rex_01", "rex_02"),
        ("rex (1)", "rex (2)"),
        ("rex", "rex (1)"),
        ("rex", "rex-2"),
        ("rex", "rex copy", "rex - Copy (2)"),
        ("rex", "rex_mirror", "rex_rot90"),
        ("rex take 1", "rex take 2"),
    ],
)
def test_takes_of_one_object(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Numbers and copies behind a name that stands beside others."""
    others = ("ada", "max", "eve", "bob", "kim")
    found = group(tmp_path, *(f"dog/{name}.wav" for name in (*names, *others)))
    assert groups(found) == [sorted(f"dog/{name}.wav" for name in names)]
    assert "numbered or copied takes" in found.notes[0]


@pytest.mark.parametrize(
    "names",
    [
        [f"dog_{n:03}" for n in range(1, 60)],  # the category, numbered
        [f"IMG_{n:04}" for n in range(1, 60)],  # a camera
        [f"beagle {n}" for n in range(1, 20)],  # the only name
        [str(n) for n in range(1, 60)],
        ["a-37", "a-62", "b-11", "b-40"],  # from the middle of a longer series
        ["mp3", "mp4", "h264", "h265"],  # no sign before the number
    ],
)
def test_numbers_that_count_objects(tmp_path: Path, names: list[str]) -> None:
    """Generic names and running numbers group nothing."""
    found = group(tmp_path, *(f"dog/{name}.wav" for name in names))
    assert groups(found) == []


def test_numbers_that_count_objects_are_said(tmp_path: Path) -> None:
    """A note says how the numbers were read."""
    found = group(
        tmp_path, *(f"dogs/dog_{n}.wav" for n in range(5)), *(f"cats/img {n}.wav" for n in range(5))
    )
    assert found.notes == (
        "the numbers of 2 series, such as cats/img 0 …, count different objects: they are not grouped",
    )


def photo(seed: int) -> Image.Image:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((360, 280), Image.Resampling.BICUBIC)


def test_near_duplicates_and_equal_bytes(tmp_path: Path) -> None:
    """The same picture smaller and as JPEG, and a sound of the same bytes, are grouped; others are not."""
    folder = tmp_path / "dog"
    folder.mkdir()
    for seed in range(6):
        photo(seed).save(folder / f"{'abcdef'[seed]}.png")
    photo(0).resize((120, 93)).save(folder / "small.png")
    photo(0).save(folder / "worse.jpg", quality=40)
    found = group(tmp_path, *(f"dog/{name}.png" for name in "abcdef"), "dog/small.png", "dog/worse.jpg")
    assert groups(found) == [["dog/a.png", "dog/small.png", "dog/worse.jpg"]]
    assert "grouped 2 pairs of near-duplicate pictures" in found.notes[0]
    (folder / "x.wav").write_bytes(b"sound")
    (folder / "y.wav").write_bytes(b"sound")
    found = group(tmp_path, "dog/x.wav", "dog/y.wav", "dog/z.wav")
    assert groups(found) == [["dog/x.wav", "dog/y.wav"]]
    assert found.notes == ("grouped a pair of files of the same bytes, such as dog/x.wav and dog/y.wav",)


def test_equal_files_in_two_categories(tmp_path: Path) -> None:
    """They are not grouped, because their labels differ; a note says so."""
    for name in ("dog/x.wav", "cat/x.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"sound")
    found = group(tmp_path, "dog/x.wav", "cat/x.wav")
    assert groups(found) == []
    assert "are in two categories, such as cat/x.wav and dog/x.wav: check the labels" in found.notes[0]


def test_known_objects_stay(tmp_path: Path) -> None:
    """Known groups stay together, and grow by files that match one of theirs."""
    found = group(tmp_path, "a.png", "b.wav", "b.txt", "c.png", known=[["a.png", "b.wav"]])
    assert groups(found) == [["a.png", "b.txt", "b.wav"]]
