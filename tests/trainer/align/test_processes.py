"""Several processes train as one: the same gradients, the same heads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from kb_builder.tables.schemas import read_rows
from trainer.align import processes as ranks_module
from trainer.align.aligner import Aligner
from trainer.align.heads import load_heads
from trainer.align.pairs import make_pairs
from trainer.align.processes import ALONE, Processes
from trainer.align.train import train
from trainer.inputs import load_sample_texts, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
ROOT = Path(ranks_module.__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = {
    "mean centers": Train(epochs=2, batch_size=49),
    "mean centers, all": Train(epochs=2, batch_size=51, center_weight=0.5, head="mlp", hidden=8),
    "one center": Train(epochs=2, batch_size=49, centers="one", center_weight=0.5),
    "all centers": Train(epochs=2, batch_size=50, centers="all", center_weight=0.5),
    "sigmoid": Train(epochs=2, batch_size=48, loss="sigmoid", centers="one", center_weight=0.5),
    "official": Train(epochs=2, batch_size=47, loss="official"),
}


def _gradients(kb: Path, settings: Train, processes: Processes) -> list[torch.Tensor]:
    """The gradients of the first step, summed over the processes; and the loss."""
    base = open_kb(kb)
    centers = load_centers(base)
    pairs, texts_MT, _ = make_pairs(load_samples(base, "samples")[0], load_sample_texts(base)[0], centers)
    aligner = Aligner(pairs, texts_MT, centers.category_N, settings, processes)
    seen: list[torch.Tensor] = []

    def look(tensors: Sequence[torch.Tensor], *_: object, **__: object) -> None:
        if not seen:
            seen.extend(tensor.grad.clone() for tensor in tensors if tensor.grad is not None)

    # Gradients are looked at where they would be clipped.
    torch.nn.utils.clip_grad_norm_, before = look, torch.nn.utils.clip_grad_norm_
    try:
        rows = aligner.epoch()
    finally:
        torch.nn.utils.clip_grad_norm_ = before
    return [*seen, torch.tensor([row["loss"] for row in rows])]


def _one_of_two(rank: int, kb: Path, place: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    found = {name: _gradients(kb, settings, Processes(rank, 2)) for name, settings in SETTINGS.items()}
    torch.save(found, place / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(make_kb: MakeKb, tmp_path: Path) -> None:
    """For every loss, with batches of odd sizes: equal to rounding, and equal bits on both processes."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    mp.start_processes(_one_of_two, args=(kb, tmp_path), nprocs=2, start_method="spawn")
    zero, one = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, settings in SETTINGS.items():
        alone = _gradients(kb, settings, ALONE)
        assert len(alone) > 3
        for mine, theirs, whole in zip(zero[name], one[name], alone, strict=True):
            assert torch.equal(mine, theirs)
            torch.testing.assert_close(mine, whole, rtol=2e-4, atol=2e-6)


def _torchrun(place: Path, what: str, kb: Path, run: Path) -> None:
    """Two processes that do what the command line does with `what` in the place of training."""
    (place / "job.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from trainer.align.processes import is_follower, leave_process_group\n"
        "from trainer.settings import Train\n"
        "from trainer.align.train import train, train_as_follower\n"
        "given = Path(sys.argv[1]), Path(sys.argv[2]), Train(epochs=3, batch_size=48)\n"
        f"{what}\n"
        "is_follower() or leave_process_group()\n"
    )
    done = subprocess.run(
        [*TORCHRUN, place / "job.py", kb, run],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_torchrun_trains_the_heads_of_one_process(make_kb: MakeKb, tmp_path: Path) -> None:
    """`train` under torchrun with two processes writes what one writes, to rounding; rank 0 alone writes."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    _torchrun(tmp_path, "train_as_follower(*given) if is_follower() else train(*given)", kb, tmp_path / "two")
    train(kb, tmp_path / "one", Train(epochs=3, batch_size=48))
    two, one = load_heads(tmp_path / "two"), load_heads(tmp_path / "one")
    for modality, weight in one.weights.items():
        np.testing.assert_allclose(two.weights[modality], weight, rtol=1e-3, atol=1e-4)
    logs = [read_rows(tmp_path / name / "train_log.parquet") for name in ("one", "two")]
    for a, b in zip(*(log[1:] for log in logs), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_the_others_are_let_go_where_there_is_nothing_to_train(tmp_path: Path) -> None:
    """Where rank 0 finds its heads up to date, those that wait for it end too, and touch nothing."""
    _torchrun(tmp_path, "if is_follower(): train_as_follower(*given)", tmp_path / "no-kb", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shares_cover_all_rows_once() -> None:
    """However many rows and processes: stretches in order that differ by one row at most."""
    for n in (0, 1, 5, 8, 1023):
        for size in (1, 2, 3, 7):
            rows = [list(range(n))[Processes(rank, size).share(n)] for rank in range(size)]
            assert [row for share in rows for row in share] == list(range(n))
            assert max(map(len, rows)) - min(map(len, rows)) <= 1
