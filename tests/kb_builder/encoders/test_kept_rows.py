"""Vectors kept in the cache folder: right or made again, whatever happens to the files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.wordnet import ImageNetClass
from kb_builder.encoders import conse, kept_rows
from kb_builder.encoders.kept_rows import KEPT
from kb_builder.encoders.kept_rows import kept_rows as kept

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unibind" / "vectors"


class Maker:
    """Makes the matrix, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1
        return ROWS


def ask(make: Callable[[], Any], what: Any = "classes", shape: tuple[int, int] = (5, 3)) -> Any:
    return kept(what, shape, make, words="encoding five classes")


def test_made_once_and_said_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second call reads the bits of the first, and says nothing."""
    make = Maker()
    first = ask(make)
    assert capsys.readouterr().err == "note: encoding five classes, once on this machine\n"
    again = ask(make)
    assert capsys.readouterr().err == ""
    assert make.times == 1
    assert first.tobytes() == again.tobytes() == ROWS.tobytes()
    assert (again.dtype, again.flags.writeable) == (np.float32, True)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"\0" * len(data),
    ],
    ids=["empty", "cut", "longer", "a bit of a row", "a bit of the sum", "zeros"],
)
def test_a_damaged_file_is_made_again(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    """And is whole afterwards."""
    make = Maker()
    ask(make)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert ask(make).tobytes() == ROWS.tobytes()
    assert make.times == 2
    assert path.read_bytes() == whole


def test_a_file_of_another_key_is_not_taken(cache: Path) -> None:
    """A renamed file holds other vectors; its sum says so."""
    make = Maker()
    ask(make, "one")
    (one,) = cache.iterdir()
    ask(make, "two")
    (two,) = set(cache.iterdir()) - {one}
    two.write_bytes(one.read_bytes())
    ask(make, "two")
    assert make.times == 3


def test_a_pipe_in_its_place_is_not_waited_for(cache: Path) -> None:
    """Opening it would block for ever."""
    make = Maker()
    ask(make)
    (path,) = cache.iterdir()
    path.unlink()
    os.mkfifo(path)
    assert ask(make).tobytes() == ROWS.tobytes()
    assert path.is_file()


@pytest.mark.parametrize("part", ["code", "packages", "processor", "gpus"])
def test_everything_that_decides_the_bits_is_in_the_key(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code, another torch, another processor or GPU: made again. Each is stated."""
    make = Maker()
    ask(make)
    here = kept_rows._environment()
    assert here["code"] and here["packages"]["torch"] and any(here["processor"])
    monkeypatch.setattr(kept_rows, "_environment", lambda: {**here, part: ["another"]})
    ask(make)
    ask(make, "other texts")
    assert make.times == 3


def test_the_hash_of_the_code_covers_the_encoders() -> None:
    """A changed line in any module of the encoders is another key."""
    folder = Path(conse.__file__).parent
    assert len(kept_rows._environment()["code"]) == len(list(folder.rglob("*.py")))


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the place of the folder: the vectors are made each time, and the reason is said."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    make = Maker()
    assert ask(make).tobytes() == ask(make).tobytes() == ROWS.tobytes()
    assert make.times == 2
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == "note: encoding five classes, once on this machine"
    assert "cannot be written (Not a directory); the next command makes them again" in second


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_no_error(cache: Path) -> None:
    """It is only slower."""
    cache.mkdir(parents=True)
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    make = Maker()
    assert ask(make).tobytes() == ROWS.tobytes()
    cache.chmod(stat.S_IRWXU)


def test_a_user_without_a_home_folder_gets_them_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs under a number without a name."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    assert ask(Maker()).tobytes() == ROWS.tobytes()
    assert "set XDG_CACHE_HOME" in capsys.readouterr().err


def test_old_files_make_room(cache: Path) -> None:
    """Of more than eight, those written first go."""
    make = Maker()
    for number in range(KEPT + 2):
        ask(make, number)
        for age, path in enumerate(sorted(cache.iterdir(), key=lambda each: -each.stat().st_mtime_ns)):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - age * 10**9))
    assert len(list(cache.iterdir())) == KEPT
    ask(make, KEPT + 1)
    assert make.times == KEPT + 2
    ask(make, 0)
    assert make.times == KEPT + 3


class _Text:
    """A text encoder whose vectors follow from the lengths of the texts."""

    name, identity, dim, modalities = "lengths", "1" * 64, 2, frozenset({"text"})
    licence, parameters = "MIT", 1

    def prepare(self, modality: str, source: str) -> str:
        return source

    def encode(self, batch: list[str]) -> Any:
        return np.array([[len(text), 1.0] for text in batch], np.float32)


def test_conse_follows_its_class_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other glosses give other vectors though a matrix of the same shape is kept; the same give the same."""
    monkeypatch.setattr(conse, "load_encoder", lambda name, device: _Text())
    classes = [ImageNetClass(f"n{k:08}", "a name" + "y" * k, "z" * (k + 1)) for k in range(1000)]
    monkeypatch.setattr(conse, "read_classes", lambda: classes)
    first = conse.load_conse("lengths").class_vectors_KD
    assert first.tobytes() == conse.encode_classes(_Text(), classes).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(conse, "encode_classes", None)  # may not be called again
        assert conse.load_conse("lengths").class_vectors_KD.tobytes() == first.tobytes()
    classes[7] = ImageNetClass(classes[7].synset, classes[7].lemmas, "another gloss")
    other = conse.load_conse("lengths").class_vectors_KD
    assert (other != first).any(axis=1).nonzero()[0].tolist() == [7]
