"""kb_builder.weights.identity: a model's identity follows its files, and large files are read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data import files, reads
from data.errors import InputError
from kb_builder.weights import identity as weights
from kb_builder.weights.identity import hash_weights


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"0" * 100)
    (folder / "README.md").write_text("about", encoding="utf-8")
    return folder


def test_the_identity_follows_the_files_and_not_the_folder(model: Path) -> None:
    """Weights and configuration count; the read-me and the folder's name do not."""
    first = hash_weights(model)
    (model / "README.md").write_text("other", encoding="utf-8")
    moved = model.rename(model.with_name("moved"))
    assert hash_weights(moved) == first
    (moved / "config.json").write_text('{"a": 1}', encoding="utf-8")
    second = hash_weights(moved)
    (moved / "model.safetensors").write_bytes(b"1" * 100)
    assert len({first, second, hash_weights(moved)}) == 3


def test_large_files_are_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time only the signature is looked at; a touched file is read again."""
    read: list[str] = []
    honest = reads.hash_file
    monkeypatch.setattr(weights, "REMEMBERED_BYTES", 50)
    monkeypatch.setattr(files, "SETTLED_NS", -1)  # files count as old enough at once
    monkeypatch.setattr(reads, "hash_file", lambda path: read.append(path.name) or honest(path))
    first = hash_weights(model)
    assert hash_weights(model) == first
    assert read.count("model.safetensors") == 1
    os.utime(model / "model.safetensors", (1, 1))
    assert hash_weights(model) == first
    assert read.count("model.safetensors") == 2


def test_a_damaged_or_readonly_cache_costs_time_only(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is no part of the answer."""
    monkeypatch.setattr(weights, "REMEMBERED_BYTES", 50)
    monkeypatch.setattr(files, "SETTLED_NS", -1)
    first = hash_weights(model)
    (model.parent / "cache" / "unibind" / "weights.json").write_text("[torn", encoding="utf-8")
    assert hash_weights(model) == first
    (model.parent / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(model.parent / "file"))
    assert hash_weights(model) == first


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 605157884\n"


def test_a_pointer_is_not_the_file(model: Path) -> None:
    """A clone without Git LFS holds a few lines in place of the weights: told with the way on."""
    path = next(model.glob("*.safetensors"))
    path.write_text(POINTER)
    with pytest.raises(InputError, match=r"a Git LFS pointer, not the file itself; run `git lfs pull` in"):
        hash_weights(model)
    (model / "pytorch_model.bin").write_text(POINTER)  # beside safetensors it is not read
    path.write_bytes(b"x" * 10)
    hash_weights(model)


def test_pickled_weights_are_not_read(model: Path) -> None:
    """A folder without safetensors is told why it is refused."""
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        hash_weights(model)
