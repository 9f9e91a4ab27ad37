"""A replayed step is the ordinary one. No GPU is needed: what is recorded is run again by calling it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align import aligner as aligner_module
from trainer.align import losses, replay
from trainer.align.aligner import Aligner, threads_for
from trainer.align.blocks import block_operations
from trainer.align.pairs import Pairs, make_pairs
from trainer.align.processes import ALONE, Processes
from trainer.align.replay import can_replay
from trainer.inputs import load_sample_texts, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
VARIANTS: dict[str, dict[str, Any]] = {
    "mean centers": {},
    "mean centers and descriptions": {"center_weight": 0.5, "mixing": 0.0},
    "one center": {"centers": "one", "center_weight": 0.5},
    "all centers": {"centers": "all", "center_weight": 0.5},
    "averaged": {"ema": 0.9, "head": "mlp", "hidden": 16},
    "sigmoid": {
        "loss": "sigmoid",
        "centers": "one",
        "center_weight": 0.5,
        "head": "low-rank",
        "start": "ridge",
        "rank": 4,
    },
    "official": {"loss": "official"},
}
# What a recorded step may not do: look at a value, or have a result whose shape depends on values.
_LOOKS = ("_local_scalar_dense", "nonzero", "_unique2", "masked_select", "equal")


class _NoLooking(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in _LOOKS, func
        return func(*args, **(kwargs or {}))


@contextmanager
def _nothing_from_the_host() -> Iterator[None]:
    """Within, the numbers of a batch cannot enter by another way than the tensor that holds them."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("a recorded step read an array")

    with pytest.MonkeyPatch.context() as patch, _NoLooking():
        patch.setattr(torch, "from_numpy", refuse)
        # As on a GPU: on a CPU the loss looks at its groups and at its scale.
        patch.setattr(losses, "block_operations", lambda _, *given: block_operations("cuda", *given))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a training of this size."""
    with threads_for(0):
        yield


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trainings are replayed on this machine; the list has one entry for each repetition."""
    count: list[int] = []

    def record(work: Callable[[], torch.Tensor]) -> tuple[Callable[[], Any], torch.Tensor]:
        result = torch.full((len(aligner_module.LOGGED),), -1.0)

        def repeat() -> None:
            with _nothing_from_the_host():
                result.copy_(work())
            count.append(1)

        return repeat, result

    monkeypatch.setattr(replay, "record_cuda_graph", record)
    monkeypatch.setattr(aligner_module, "can_replay", lambda *_: True)
    return count


def _world(kb: Path) -> tuple[dict[str, Pairs], np.ndarray, np.ndarray]:
    base = open_kb(kb)
    centers = load_centers(base)
    sets, texts = load_samples(base, "samples")[0], load_sample_texts(base)[0]
    pairs, texts_MT, _ = make_pairs(sets, texts, centers, text_head=False)
    return pairs, texts_MT, centers.category_N


def _trained(aligner: Aligner, epochs: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    log = [row for _ in range(epochs) for row in aligner.epoch()]
    heads = aligner.heads({})
    return log, {m: np.concatenate([w, heads.biases[m][:, None]], axis=1) for m, w in heads.weights.items()}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_replayed_steps_are_the_ordinary_ones(
    make_kb: MakeKb, monkeypatch: pytest.MonkeyPatch, repeated: list[int], variant: str
) -> None:
    """Heads and log, but for rates that are rounded to float32 and logits that are taken another way."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    world, settings = _world(kb), Train(epochs=4, batch_size=48, learning_rate=0.02, **VARIANTS[variant])
    log, heads = _trained(Aligner(*world, settings), 2)
    assert len(repeated) == len(log) - replay._WARM_UP
    monkeypatch.undo()
    plain_log, plain_heads = _trained(Aligner(*world, settings), 2)
    assert [row["learning_rate"] for row in log] == [row["learning_rate"] for row in plain_log]
    for row, plain in zip(log, plain_log, strict=True):
        assert row["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert row["temperature"] == pytest.approx(plain["temperature"], rel=1e-4)
    for modality, whole in plain_heads.items():
        np.testing.assert_allclose(heads[modality], whole, rtol=1e-2, atol=2e-4)


def test_a_step_of_another_layout_runs_as_usual(make_kb: MakeKb, repeated: list[int]) -> None:
    """Where some samples have no text, shapes change: such steps are not replayed, and count all the same."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    for number, row in enumerate(rows):
        row["category_id"] = None if number % 3 == 0 and row["split"] == "train" else row["category_id"]
    write_table(kb / "samples.parquet", rows, SAMPLES)
    localize(kb, Localize(k=5))
    world, settings = _world(kb), Train(epochs=4, batch_size=24, center_weight=0.5)
    log, heads = _trained(Aligner(*world, settings), 3)
    assert 0 < len(repeated) < len(log) - replay._WARM_UP
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligner_module, "can_replay", lambda *_: False)
        plain_log, plain_heads = _trained(Aligner(*world, settings), 3)
    assert [r["loss"] for r in log] == pytest.approx([r["loss"] for r in plain_log], rel=1e-4)
    for modality, whole in plain_heads.items():
        np.testing.assert_allclose(heads[modality], whole, rtol=1e-2, atol=2e-4)


def test_what_cannot_be_recorded_is_run_as_usual_and_said_once(
    make_kb: MakeKb, monkeypatch: pytest.MonkeyPatch, repeated: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed recording costs no step."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    world, settings = _world(kb), Train(epochs=4, batch_size=48)

    def fail(_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    expected = _trained(Aligner(*world, settings), 2)
    monkeypatch.setattr(replay, "record_cuda_graph", fail)
    log, heads = _trained(Aligner(*world, settings), 2)
    assert [r["loss"] for r in log] == pytest.approx([r["loss"] for r in expected[0]], rel=1e-4)
    for modality, whole in expected[1].items():
        np.testing.assert_allclose(heads[modality], whole, rtol=1e-2, atol=2e-4)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "  train: steps run operation by operation: they make no CUDA graph"
        " (operation not permitted when stream is capturing)"
    ]


def test_who_replays(make_kb: MakeKb, capsys: pytest.CaptureFixture[str]) -> None:
    """One process on a GPU with small batches of samples that all have texts; else one line says why not."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    pairs = _world(kb)[0]
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert can_replay(pairs, 1024, gpu, ALONE)
    assert not can_replay(pairs, 1024, cpu, ALONE)
    assert not can_replay(pairs, 8192, gpu, ALONE)
    assert capsys.readouterr().err == ""
    assert not can_replay(pairs, 1024, gpu, Processes(0, 2))
    assert "several processes" in capsys.readouterr().err
    counts_N = pairs["image"].own.counts_N
    counts_N[0] = 0
    assert not can_replay(pairs, 1024, gpu, ALONE)
    assert "some samples have no text" in capsys.readouterr().err
    assert can_replay(pairs, 1024, gpu, ALONE, False)  # own texts are not looked at
    counts_N[:] = 0
    assert can_replay(pairs, 1024, gpu, ALONE)
