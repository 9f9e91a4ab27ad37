"""How far training has come, on disk: enough to go on after a kill and end with the same bits.

One safetensors file, replaced as a whole: tensors `now.*` (heads, Adam's moments, averages), `best.*` and
`earlier.*` (finished heads: the best so far, and those of a finished round), `log` (float64 [rows, columns of
train_log.parquet], NaN for none), and one metadata entry with the rest as JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from data.errors import TrainingError, first_line
from data.files import atomic_path, canonical_json
from trainer.align.heads import Heads, from_tensors, to_tensors
from trainer.align.processes import Ranks

FORMAT = "unibind-checkpoint-1"
TRAIN_LOG = pa.schema(
    [
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),  # 0 is the start, before the first step
        pa.field("learning_rate", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("loss_description", pa.float64()),
        pa.field("loss_center", pa.float64()),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("val_top1", pa.float64()),  # at the end of an epoch, where there are val samples
    ]
)
_COLUMNS = TRAIN_LOG.names
_WHOLE_NUMBERS = ("epoch", "step")
Row = dict[str, Any]
_CURVES = [name for name in TRAIN_LOG.names if name not in ("epoch", "step")]


@dataclass(frozen=True)
class Facts:
    """What of a checkpoint is no tensor."""

    round: int  # of the rounds of training, from 0
    epoch: int  # the last that is finished, within the round
    first_epoch: int  # in the log, of the round's epoch 0
    first_step: int
    best_epoch: int  # in the log
    best_top1: float | None
    aligner: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Training at the end of an epoch."""

    facts: Facts
    log: list[Row]
    best: Heads
    earlier: Heads | None
    now: dict[str, Tensor]


class Keeper:
    """Keeps checkpoints at a path, and finds the one of an attempt before."""

    def __init__(self, path: Path, fingerprint: str, every: float, ranks: Ranks) -> None:
        """`fingerprint`: of the inputs and settings. `every`: seconds between checkpoints, at least."""
        self._path, self._fingerprint, self._every = path, fingerprint, every
        self._ranks = ranks
        self._kept = time.monotonic()

    def found(self) -> Checkpoint | None:
        """The checkpoint to go on from, if rank 0 has one of this training."""
        there = _load(self._path, self._fingerprint)
        if not self._ranks.agree(there is not None):
            return None
        if there is None:
            raise TrainingError(
                f"{self._path}: not seen by every process; torchrun on one machine sees one folder"
            )
        if self._ranks.rank == 0:
            print(f"  train: going on after epoch {there.log[-1]['epoch']}", file=sys.stderr, flush=True)
        return there

    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another; of several processes, rank 0 makes them."""
        return self._ranks.rank == 0 and time.monotonic() - self._kept >= self._every

    def keep(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        _save(self._path, checkpoint, self._fingerprint)
        self._kept = time.monotonic()


def _save(path: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    rows = [[math.nan if row[c] is None else float(row[c]) for c in _COLUMNS] for row in checkpoint.log]
    tensors = {f"now.{name}": tensor.cpu() for name, tensor in checkpoint.now.items()}
    tensors["log"] = torch.tensor(rows, dtype=torch.float64)
    told: dict[str, Any] = {"format": FORMAT, "fingerprint": fingerprint, "facts": asdict(checkpoint.facts)}
    for name, heads in (("best", checkpoint.best), ("earlier", checkpoint.earlier)):
        if heads is not None:
            told[name] = heads.metadata
            tensors |= {f"{name}.{n}": torch.from_numpy(t) for n, t in to_tensors(heads).items()}
    tensors = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    told["sha256"] = _sum(told, tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"unibind": canonical_json(told)})


def _sum(told: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The hash of all that a checkpoint holds."""
    sums = hashlib.sha256(canonical_json(told).encode())
    for name, tensor in sorted(tensors.items()):
        sums.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sums.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sums.hexdigest()


def _load(path: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is none, or one of another training, or damaged (said)."""
    if not path.exists():
        return None
    try:
        return _read(path, fingerprint)
    except Exception as error:  # a file of ours that is damaged may lack anything
        told = first_line(error)
        print(f"  train: {path.name} is damaged ({told}); beginning anew", file=sys.stderr, flush=True)
        return None


def _read(path: Path, fingerprint: str) -> Checkpoint | None:
    with safe_open(path, framework="pt") as file:
        told = json.loads((file.metadata() or {}).get("unibind", "{}"))
        if (told.get("format"), told.get("fingerprint")) != (FORMAT, fingerprint):
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if told.pop("sha256", None) != _sum(told, tensors):
        raise ValueError("its checksum does not fit")

    def under(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    def heads(name: str) -> Heads | None:
        if name not in told:
            return None
        return from_tensors({n: t.numpy() for n, t in under(f"{name}.").items()}, told[name])

    best = heads("best")
    if best is None:  # a checkpoint is made at the end of an epoch, the earliest after epoch 0
        raise ValueError("no best heads")
    log = [_row(values) for values in tensors["log"].tolist()]
    return Checkpoint(Facts(**told["facts"]), log, best, heads("earlier"), under("now."))


def _row(values: list[float]) -> Row:
    row: Row = {c: None if math.isnan(v) else v for c, v in zip(_COLUMNS, values, strict=True)}
    return row | {name: int(row[name]) for name in _WHOLE_NUMBERS}


@contextmanager
def curves(folder: Path | None, *, after: int) -> Iterator[Callable[[list[Row]], None]]:
    """A function that adds log rows to a TensorBoard log in `folder`; to nothing where that is None.

    What an earlier attempt wrote after step `after` is hidden. Raises TrainingError where the package is not
    installed.
    """
    if folder is None:
        yield lambda rows: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "train.tensorboard needs the package tensorboard:"
            " .venv/bin/pip install --editable '.[tensorboard]'"
        ) from error
    with SummaryWriter(str(folder), purge_step=after + 1) as writer:

        def tell(rows: list[Row]) -> None:
            for row in rows:
                for name in _CURVES:
                    if row[name] is not None:
                        writer.add_scalar(name, row[name], row["step"])
            writer.flush()

        yield tell
