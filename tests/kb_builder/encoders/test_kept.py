"""Which encoders a process keeps loaded, and whether they fit."""

from __future__ import annotations

import gc
import inspect
import json
import weakref
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.errors import InputError
from data.files import hash_text
from data.modality import MODALITIES
from data.reads import recorded
from kb_builder import encoders
from kb_builder.encode.embed import embed_samples
from kb_builder.encoders import load_encoder, release_encoders
from kb_builder.settings import Encode
from kb_builder.weights import identity as memory
from kb_builder.weights.identity import check_memory, free_bytes


class _Model(SimpleNamespace):
    """Something that a weak reference can point to."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`small:X` and `large:X` can be loaded; the list records what was."""
    names: list[str] = []

    def factory(parameters: int) -> Any:
        def load(name: str, *, device: str) -> Any:
            names.append(name)
            return _Model(name=name, parameters=parameters)

        return load

    monkeypatch.setitem(encoders.FACTORIES, "small", factory(1_000_000))
    monkeypatch.setitem(encoders.FACTORIES, "large", factory(2_000_000_000))
    release_encoders()
    return names


def test_small_ones_stay_and_large_ones_make_room(loaded: list[str]) -> None:
    """Of large encoders only the last is kept, so that two never lie in memory for nothing."""
    for name in ("small:a", "large:a", "small:a", "large:a"):
        load_encoder(name)
    assert loaded == ["a", "a"]
    held = weakref.ref(load_encoder("large:a"))
    assert held() is not None
    load_encoder("large:b")
    gc.collect()
    assert held() is None
    load_encoder("small:a")
    assert loaded == ["a", "a", "b"]
    release_encoders()
    load_encoder("small:a")
    assert loaded == ["a", "a", "b", "a"]


def test_no_more_than_a_few_small_ones_are_kept(loaded: list[str]) -> None:
    """The oldest goes."""
    for number in range(9):
        load_encoder(f"small:{number}")
    load_encoder("small:8")
    load_encoder("small:0")
    assert loaded == [*map(str, range(9)), "0"]


def test_memory_is_asked_of_the_kernel_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller of what the machine has left and what the container may still take."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n", encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_bytes() == 4096 * 1024
    (tmp_path / "memory.max").write_text("3000000\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1000000\n", encoding="ascii")
    assert free_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert free_bytes() == 4096 * 1024
    check_memory("x", 4096 * 1024)
    with pytest.raises(InputError, match="x: its weights take"):
        check_memory("x", 4096 * 1024 + 1)
    (tmp_path / "meminfo").unlink()
    assert free_bytes() is None
    check_memory("x", 10**15)


class _Encoder:
    """Unit vectors of nothing, by a model of two billion parameters."""

    parameters, dim, licence = 2_000_000_000, 4, "none"
    modalities = frozenset(MODALITIES)

    def __init__(self, name: str) -> None:
        self.name, self.identity = name, hash_text(name)

    def prepare(self, modality: str, source: object) -> object:
        return source

    def encode(self, batch: Sequence[object]) -> np.ndarray:
        return np.tile(np.array([1, 0, 0, 0], np.float32), (len(batch), 1))


def test_the_encode_stage_holds_one_encoder_at_a_time(
    sensor_kb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second is loaded nothing holds the first any longer; each role has its folder."""
    held: list[weakref.ref[_Encoder]] = []

    def load(name: str, *, device: str) -> _Encoder:
        gc.collect()
        assert [each() for each in held] == [None] * len(held)
        encoder = _Encoder(f"huge:{name}")
        held.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setitem(encoders.FACTORIES, "huge", load)
    release_encoders()
    settings = Encode(text="huge:text", samples="huge:seen", zero_shot=None)
    embed_samples(sensor_kb, sensor_kb.parent / "data", settings)
    assert len(held) == 2
    roles = json.loads((sensor_kb / "embeddings" / "encoders.json").read_text(encoding="utf-8"))
    assert roles["zero_shot"] is None
    assert roles["text"] != roles["samples"]


def test_an_encoder_from_outside_is_stale_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file counts as read; a process that loaded it before cannot know the new code, and says so."""
    source = tmp_path / "mine_for_this_test.py"
    source.write_text("from types import SimpleNamespace\ndef load(detail, *, device):\n")
    with source.open("a") as file:
        file.write("    return SimpleNamespace(name=detail, parameters=1, device=device)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(encoders.FACTORIES, "mine", "mine_for_this_test:load")
    with recorded() as recorder:
        first: Any = load_encoder("mine:a", "cpu")
    assert (first.name, first.device) == ("a", "cpu")
    assert [note.path for note in recorder.notes()] == [str(source)]
    assert load_encoder("mine:a", "cpu") is first
    source.write_text(source.read_text() + "# another line\n")
    with pytest.raises(InputError, match=r"has changed since Python loaded it; start Python again"):
        load_encoder("mine:a", "cpu")


def test_an_entry_or_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is not there, and a model of an encoder that has one only."""
    monkeypatch.setitem(encoders.FACTORIES, "mine", "no_such_module:load")
    with pytest.raises(InputError, match="Python finds no module no_such_module; set PYTHONPATH"):
        load_encoder("mine:b", "cpu")
    with pytest.raises(InputError, match="leave out `:small`"):
        load_encoder("efficientnet-lite0:small", "cpu")


def test_every_entry_of_the_table_is_there() -> None:
    """Each names a function that can be called with a detail and a device."""
    for named in encoders.FACTORIES.values():
        assert isinstance(named, str)
        if named.startswith("kb_builder."):
            module, _, function = named.partition(":")
            inspect.signature(getattr(import_module(module), function)).bind("detail", device="cpu")
