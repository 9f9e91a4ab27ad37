"""data.folder.layout: what sub-folders mean, level by level."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.folder.layout import Role, modality_of_folder, read_layout, unread_splits
from data.modality import Modality, guess_modality


def kinds(*uris: str) -> dict[str, Modality | None]:
    return {uri: guess_modality(Path(uri)) for uri in uris}


@pytest.mark.parametrize(
    ("uris", "roles"),
    [
        (["a.png", "b.png"], ()),
        (["dog/a.png", "cat/b.png"], ("category",)),
        (["dog/x/y/a.png", "cat/b.png"], ("category",)),
        (["train/dog/a.png", "test/cat/b.png"], ("split", "category")),
        (["train/dog/a.png"], ("split", "category")),
        (["train/a.png", "test/b.png"], ("split",)),
        (["train/a.png"], ("category",)),
        (["train/a.png", "plane/b.png"], ("category",)),
        (["dog/train/a.png", "cat/test/b.png"], ("category", "split")),
        (["dog/train/a.png", "dog/test/b.png"], ("category", "split")),
        (["dog/train/a.png", "cat/b.png"], ("category",)),
        (["photos/dog/a.png", "sounds/dog/a.wav"], ("modality", "category")),
        (["photos/a.png", "sounds/a.wav"], ("modality",)),
        (["train/photos/dog/a.png", "test/photos/dog/b.png"], ("split", "modality", "category")),
        (["photos/train/dog/a.png", "photos/test/dog/b.png"], ("modality", "split", "category")),
        (["dog/photos/train/a.png", "cat/sounds/test/b.wav"], ("category", "modality", "split")),
        (["text/a.png", "image/b.png"], ("category",)),
        (["data/train/dog/a.png", "data/test/cat/b.png"], ("around", "split", "category")),
        (["data/photos/dog/a.png", "data/sounds/cat/b.wav"], ("around", "modality", "category")),
        (["data/dog/a.png", "data/cat/b.png"], ("category",)),
        (["train/dog/a.png", "test/b.png"], ("split", "category")),
        (["train/dog/a.png", "top.png"], ("split", "category")),
    ],
)
def test_the_role_of_each_level(uris: list[str], roles: tuple[Role, ...]) -> None:
    """Splits and modalities where every folder of a level says so; what is left is the category."""
    assert read_layout(kinds(*uris)).roles == roles


def test_what_a_layout_says_of_a_file() -> None:
    """Category, split and modality; None where the file lies higher than the level."""
    layout = read_layout(kinds("Train/dog/photos/a.png", "Test/cat/sounds/b.wav", "Test/c.png"))
    assert layout.roles == ("split", "category")
    assert (layout.category("Train/dog/photos/a.png"), layout.split("Train/dog/photos/a.png")) == (
        "dog",
        "train",
    )
    assert (layout.category("Test/c.png"), layout.split("Test/c.png")) == (None, "test")
    assert layout.modality("Train/dog/photos/a.png") is None


@pytest.mark.parametrize(
    ("name", "modality"),
    [("Photos", "image"), ("point_clouds", "point"), ("Meshes", "point"), ("IR", "thermal"), ("dogs", None)],
)
def test_words_for_modalities(name: str, modality: Modality | None) -> None:
    """In the plural, too."""
    assert modality_of_folder(name) == modality


def test_splits_that_could_not_be_read() -> None:
    """Two splits beside something else are named; one word alone is a category like others."""
    for uris in (
        ["train/dog/a.png", "test/dog/b.png", "extra/c.png"],
        ["dog/train/a.png", "dog/test/b.png", "cat/c.png"],
    ):
        assert unread_splits(read_layout(kinds(*uris)), uris) == ["test", "train"]
    uris = ["train/a.png", "plane/b.png"]
    assert unread_splits(read_layout(kinds(*uris)), uris) == []
