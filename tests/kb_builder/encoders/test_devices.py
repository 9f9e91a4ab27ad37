"""Where models run, and several of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.errors import InputError
from kb_builder import encoders
from kb_builder.encoders import load_encoder
from kb_builder.encoders.devices import Replicas, device_names


@pytest.mark.parametrize(
    ("cards", "asked", "names"),
    [
        (0, "auto", ("cpu",)),
        (0, "cpu", ("cpu",)),
        (2, "auto", ("cuda:0", "cuda:1")),
        (2, "cuda", ("cuda:0", "cuda:1")),
        (2, "cpu", ("cpu",)),
        (3, "cuda:2, cuda:0", ("cuda:2", "cuda:0")),
    ],
)
def test_devices_by_name(
    monkeypatch: pytest.MonkeyPatch, cards: int, asked: str, names: tuple[str, ...]
) -> None:
    """`auto` takes every CUDA device or else the CPU; a list takes those."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert device_names(asked) == names


@pytest.mark.parametrize(
    ("cards", "asked"), [(0, "cuda"), (1, "cuda:1"), (0, "tpu"), (2, "cuda:0,cuda:0"), (0, "")]
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, cards: int, asked: str
) -> None:
    """The message lists the available devices."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(InputError, match="this machine and this build of torch have only cpu"):
        device_names(asked)


def test_replicas_take_batches_in_turn_and_are_one_encoder() -> None:
    """Two copies on the CPU share the batches; the vectors are those of one."""
    from kb_builder.encoders.sentence import load_sentence_encoder

    copies: list[Any] = [load_sentence_encoder("minilm") for _ in range(2)]
    served: list[int] = []
    for number, copy in enumerate(copies):
        copy.model.register_forward_pre_hook(lambda *_, number=number: served.append(number))
    both = Replicas(copies)
    one = load_encoder("minilm")
    batches = [["a"], ["b"], ["c"]]
    found = np.concatenate([both.encode([both.prepare("text", text) for text in batch]) for batch in batches])
    assert served == [0, 1, 0]
    np.testing.assert_array_equal(found, np.concatenate([one.encode(batch) for batch in batches]))
    for what in ("name", "identity", "dim", "modalities", "licence", "parameters"):
        assert getattr(both, what) == getattr(one, what)


def test_onnx_runtime_is_loaded_once_whatever_devices_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs on the CPU: two GPUs do not make two of it, and a device that is not there is still refused."""
    loaded: list[tuple[str, str]] = []
    one = load_encoder("minilm")

    def load(name: str, *, device: str) -> Any:
        loaded.append((name, device))
        return one

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setitem(encoders.FACTORIES, "onnx", load)
    assert load_encoder("onnx:of this test", "cuda") is one
    assert loaded == [("of this test", "cpu")]
    with pytest.raises(InputError, match="have only cpu, cuda:0, cuda:1"):
        load_encoder("onnx:of this test", "cuda:7")


def test_half_precision_is_another_encoder_near_the_first() -> None:
    """`bf16:NAME` has another identity, and a cosine of 0.99 with float32."""
    full, half = load_encoder("minilm"), load_encoder("bf16:minilm")
    assert half.name == "bf16:minilm"
    assert half.identity != full.identity
    texts = ["a wooden sphere", "A steel torus rings for a long time."]
    a_ND, b_ND = full.encode(texts), half.encode(texts)
    assert b_ND.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(b_ND, axis=1), 1, atol=1e-6)
    cosines = np.vecdot(a_ND, b_ND)
    assert (cosines > 0.99).all()
    assert (cosines < 1 - 1e-7).any()
