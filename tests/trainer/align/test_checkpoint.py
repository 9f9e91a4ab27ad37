"""Training resumes after a kill and ends with the same bits; TensorBoard reads what the log holds."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import TrainingError
from kb_builder.tables.schemas import read_rows
from trainer.align import train as training
from trainer.align.checkpoint import CheckpointFile, tensorboard_writer
from trainer.align.processes import ALONE
from trainer.align.train import train
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every epoch": {"val_every": 1, "mixing": 0.0},
    "descriptions": {"centers": "one", "center_weight": 0.5, "text_head": False, "centred": False},
    "averaged": {"ema": 0.9, "head": "mlp", "hidden": 16},
    "image-centred": {"align": "image"},
    "all centers": {"centers": "all", "start": "ridge", "patience": 2, "val_every": 1},
    "sigmoid": {"loss": "sigmoid", "centers": "one", "head": "low-rank", "start": "ridge", "rank": 4},
}
SETTINGS = Train(epochs=3, batch_size=48)


class _Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("kept", [1, 4, 9])
def test_a_killed_training_ends_with_the_same_bytes(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, kept: int
) -> None:
    """Killed right after its 1st, 4th or 9th checkpoint and run again, heads and log are those of one go."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    settings = Train(epochs=6, batch_size=48, learning_rate=0.02, **VARIANTS[variant])
    train(kb, tmp_path / "whole", settings)

    left = kept
    keep = CheckpointFile.save

    def keep_and_die(self: CheckpointFile, checkpoint: Any) -> None:
        nonlocal left
        keep(self, checkpoint)
        left -= 1
        if left == 0:
            raise _Killed

    monkeypatch.setattr(CheckpointFile, "save", keep_and_die)
    try:
        train(kb, tmp_path / "killed", settings, every=0)
    except _Killed:
        assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    monkeypatch.undo()
    summary = train(kb, tmp_path / "killed", settings, every=0)
    for file in ("heads.safetensors", "train_log.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / "killed" / "checkpoint.safetensors").exists()
    assert sum(summary["modalities"].values()) == summary["train_samples"]


def leave_checkpoint(make_kb: MakeKb, run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A knowledge base, and the checkpoint of a whole training on it, which would have removed it."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        train(kb, run, SETTINGS, every=0)
    return kb, run / "checkpoint.safetensors"


def test_a_checkpoint_of_another_training_is_not_used(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings, or other centers, start from the beginning; a damaged checkpoint does too."""
    kb, left = leave_checkpoint(make_kb, tmp_path, monkeypatch)
    whole = left.read_bytes()

    def resumes(given: Train) -> bool:
        capsys.readouterr()
        train(kb, tmp_path, given, every=1e9)
        return "resuming after epoch 2" in capsys.readouterr().err

    assert resumes(SETTINGS)
    left.write_bytes(whole)
    assert not resumes(Train(epochs=3, batch_size=48, seed=7))
    left.write_bytes(whole[: len(whole) // 2])
    assert not resumes(SETTINGS)
    left.write_bytes(whole.replace(b"first_step", b"farst_step"))
    assert not resumes(SETTINGS)
    left.write_bytes(whole)
    localize(kb, Localize(k=3))
    assert not resumes(SETTINGS)


def test_one_changed_byte_of_a_checkpoint_restarts_training(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed number is found by the checkpoint's own hash; the heads are those of a whole training."""
    kb, left = leave_checkpoint(make_kb, tmp_path, monkeypatch)
    whole, heads = left.read_bytes(), (tmp_path / "heads.safetensors").read_bytes()
    for place in range(len(whole) - 1, len(whole) // 2, -len(whole) // 8):  # behind the header
        left.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        capsys.readouterr()
        train(kb, tmp_path, SETTINGS, every=1e9)
        printed = capsys.readouterr().err
        assert "checkpoint.safetensors is damaged (its checksum differs); starting from" in printed
        assert (tmp_path / "heads.safetensors").read_bytes() == heads


def test_checkpoints_are_made_when_they_are_due(tmp_path: Path) -> None:
    """Not before so many seconds have passed since the last one."""
    assert CheckpointFile(tmp_path / "c", "x", 0.0, ALONE).is_due()
    assert not CheckpointFile(tmp_path / "c", "x", 3600.0, ALONE).is_due()


_TRAIN = """\
import sys, time
from pathlib import Path
from trainer.align.checkpoint import CheckpointFile
from trainer.align.train import train
from trainer.settings import Train
save = CheckpointFile.save

def save_and_wait(*arguments):
    save(*arguments)
    print("saved", flush=True)
    time.sleep(600)

CheckpointFile.save = save_and_wait
train(Path(sys.argv[1]), Path(sys.argv[2]), Train(epochs=60, batch_size=48), every=0)
"""


def test_a_killed_process_resumes(
    make_kb: MakeKb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of training, in a separate process, and the same training again."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    root = Path(training.__file__).parents[2]

    first = subprocess.Popen(
        [sys.executable, "-c", _TRAIN, kb, tmp_path / "killed"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"saved\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    train(kb, tmp_path / "killed", Train(epochs=60, batch_size=48), every=0)
    assert "resuming after epoch" in capsys.readouterr().err
    train(kb, tmp_path / "whole", Train(epochs=60, batch_size=48))
    for file in ("heads.safetensors", "train_log.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


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
    for name in ("loss", "loss_center", "learning_rate", "temperature", "val_top1"):
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
