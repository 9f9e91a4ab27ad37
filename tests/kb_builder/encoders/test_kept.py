"""Which encoders a process keeps loaded, and whether they fit."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.errors import InputError
from data.files import hash_text
from data.modality import MODALITIES
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
        def load(name: str, device: str) -> Any:
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

    def load(name: str, device: str) -> _Encoder:
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
