"""Training goes on after a kill and ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.align import train as training
from trainer.align.checkpoint import Keeper
from trainer.align.processes import ALONE
from trainer.align.train import train
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"ema": 0.9, "head": "mlp", "hidden": 16},
    "image-centred": {"align": "image"},
    "all centers": {"centers": "all", "start": "ridge", "patience": 6},
    "sigmoid": {"loss": "sigmoid", "head": "low-rank", "start": "ridge", "rank": 4},
}


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
    keep = Keeper.keep

    def keep_and_die(self: Keeper, checkpoint: Any) -> None:
        nonlocal left
        keep(self, checkpoint)
        left -= 1
        if left == 0:
            raise _Killed

    monkeypatch.setattr(Keeper, "keep", keep_and_die)
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


def test_a_checkpoint_of_another_training_is_not_used(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings, or other centers, start from the beginning; a damaged checkpoint does too."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    settings = Train(epochs=3, batch_size=48)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    train(kb, tmp_path, settings, every=0)
    monkeypatch.undo()
    left = tmp_path / "checkpoint.safetensors"
    whole = left.read_bytes()

    def goes_on(given: Train) -> bool:
        capsys.readouterr()
        train(kb, tmp_path, given, every=1e9)
        return "going on after epoch 2" in capsys.readouterr().err

    assert goes_on(settings)
    left.write_bytes(whole)
    assert not goes_on(Train(epochs=3, batch_size=48, seed=7))
    left.write_bytes(whole[: len(whole) // 2])
    assert not goes_on(settings)
    left.write_bytes(
        whole.replace(b'"best_epoch"', b'"bost_epoch"').replace(b'\\"best_epoch\\"', b'\\"bost_epoch\\"')
    )
    assert not goes_on(settings)
    left.write_bytes(whole)
    localize(kb, Localize(k=3))
    assert not goes_on(settings)


def test_one_byte_of_a_checkpoint_begins_anew(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed number is found by the checkpoint's own hash; the heads are those of a whole training."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    settings = Train(epochs=3, batch_size=48)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    train(kb, tmp_path, settings, every=0)
    monkeypatch.undo()
    left, heads = tmp_path / "checkpoint.safetensors", (tmp_path / "heads.safetensors").read_bytes()
    whole = left.read_bytes()
    for place in range(len(whole) - 1, len(whole) // 2, -len(whole) // 8):  # behind the header
        left.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        capsys.readouterr()
        train(kb, tmp_path, settings, every=1e9)
        told = capsys.readouterr().err
        assert "checkpoint.safetensors is damaged (its checksum does not fit); beginning anew" in told
        assert (tmp_path / "heads.safetensors").read_bytes() == heads


def test_checkpoints_are_made_when_they_are_due(tmp_path: Path) -> None:
    """Not before so many seconds have passed since the last one."""
    assert Keeper(tmp_path / "c", "x", 0.0, ALONE).is_due()
    assert not Keeper(tmp_path / "c", "x", 3600.0, ALONE).is_due()


def test_a_process_killed_outright_goes_on(make_kb: MakeKb, tmp_path: Path) -> None:
    """SIGKILL in the middle of training, in a process of its own, and the same command again."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    code = (
        "import sys; from pathlib import Path\n"
        "from trainer.train import train; from trainer.settings import Train\n"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), Train(epochs=60, batch_size=48), every=0)"
    )
    root = Path(training.__file__).parents[2]

    def command(run: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", code, kb, tmp_path / run],
            cwd=root,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    first = command("killed")
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint.safetensors").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = command("killed")
    _, told = again.communicate()
    assert again.returncode == 0
    assert b"going on after epoch" in told
    train(kb, tmp_path / "whole", Train(epochs=60, batch_size=48))
    for file in ("heads.safetensors", "train_log.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
