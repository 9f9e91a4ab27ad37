"""The list of known models, and where their weights are looked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.errors import InputError
from kb_builder.encoders import FACTORIES
from kb_builder.weights.known import find_model, forbids_commerce, known_models, licence_of, read_models

SOUND = """
[mine]
encoder = "clip"
licence = "MIT"
about = "a model"
megabytes = 3
files = [{ path = "config.json", url = "http://127.0.0.1:1/config.json" }]
"""


def test_the_built_in_list_is_sound() -> None:
    """Every model names an adapter that is there, and no file twice; large files lie at HTTPS."""
    for name, known in known_models().items():
        assert known.encoder in FACTORIES
        paths = [file.path for file in known.files]
        assert len(set(paths)) == len(paths), name
        assert all(file.url.startswith("https://") for file in known.files)
    assert forbids_commerce(known_models()["imagebind"].licence)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"clip"', '"blip"', "mine.encoder"),
        ("megabytes = 3", "megabites = 3", "mine.megabytes"),
        ("config.json", "../config.json", "relative path inside"),
        ("config.json", "/etc/config.json", "relative path inside"),
        ("http://127.0.0.1:1", "file:///etc", "must be an address"),
        ("http://127.0.0.1:1", "http://me:secret@127.0.0.1:1", "must hold no user name"),
        ('config.json" }', 'config.json", sha256 = "abc" }', "sha256"),
        ("[mine]", "[mine", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_list_is_told_with_its_key(tmp_path: Path, before: str, after: str, told: str) -> None:
    """No path leaves the model's folder, no address holds a password, and none of it is repeated."""
    path = tmp_path / "list.toml"
    path.write_text(SOUND.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        read_models(path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_list_is_one_clear_line(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(InputError, match=r"list\.toml: cannot be read"):
        read_models(tmp_path / "list.toml")


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there as it was written is taken; else the model folder is looked into."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "a").mkdir(parents=True)
    assert find_model("a", encoder="clip") == Path("models/a")
    (tmp_path / "a").mkdir()
    assert find_model("a", encoder="clip") == Path("a")
    with pytest.raises(InputError, match="fetch it: unibind models get imagebind"):
        find_model("imagebind", encoder="imagebind")


def test_what_a_card_states_comes_before_what_is_known(tmp_path: Path) -> None:
    """A folder of a known model's name, without a card, has the licence of the list."""
    folder = tmp_path / "clip-vit-base-patch32"
    folder.mkdir()
    assert licence_of(folder) == "MIT"
    (folder / "README.md").write_text("---\nlicense: other\n---\n", encoding="utf-8")
    assert licence_of(folder) == "other"
    assert licence_of(tmp_path) == "not stated"


@pytest.mark.parametrize(
    ("licence", "forbidden"),
    [
        ("CC-BY-NC-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("Non-Commercial research", True),
        ("apple-amlr-research", True),
        ("MIT", False),
        ("apache-2.0", False),
        ("not stated", False),
        ("nccl", False),
    ],
)
def test_non_commercial_licences_are_known_by_their_names(licence: str, forbidden: bool) -> None:
    """By whole words, whatever their case."""
    assert forbids_commerce(licence) is forbidden
