"""TensorBoard reads what train_log.parquet holds."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import TrainingError
from kb_builder.tables.schemas import read_rows
from trainer.align.checkpoint import tensorboard_writer
from trainer.align.train import train
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_curves_of_the_parquet_log(make_kb: MakeKb, tmp_path: Path) -> None:
    """Every value that is not null, at its step; and none is written unless it is asked for."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path / "without", Train(epochs=2, batch_size=48))
    assert not (tmp_path / "without" / "tensorboard").exists()
    train(kb, tmp_path / "with", Train(epochs=2, batch_size=48, tensorboard=True))
    log = read_rows(tmp_path / "with" / "train_log.parquet")
    found = _scalars(tmp_path / "with" / "tensorboard")
    for name in ("loss", "loss_description", "loss_center", "learning_rate", "temperature", "val_top1"):
        expected = [(row["step"], row[name]) for row in log if row[name] is not None]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_steps_that_were_taken_again_show_once(tmp_path: Path) -> None:
    """What an attempt wrote after the checkpoint that the next one resumes from is hidden."""
    row: dict[str, Any] = dict.fromkeys(("learning_rate", "loss_description", "loss_center", "val_top1"))
    with tensorboard_writer(tmp_path, after=-1) as write:
        write([{**row, "step": s, "loss": 1.0, "temperature": 0.1} for s in range(6)])
    with tensorboard_writer(tmp_path, after=2) as write:
        write([{**row, "step": s, "loss": 2.0, "temperature": 0.1} for s in range(3, 5)])
    assert _scalars(tmp_path)["loss"] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorBoard is not installed, the error gives the command that installs it."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if "tensorboard" in name:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(TrainingError, match=r"pip install --editable '\.\[tensorboard\]'"),
        tensorboard_writer(tmp_path, after=0),
    ):
        pass
