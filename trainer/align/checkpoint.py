"""Checkpoints and curves of a training: what a killed one resumes from, and what TensorBoard shows.

A resumed training ends with the same bits as one that was never killed. A checkpoint is one safetensors file,
replaced as a whole: tensors `now.*` (heads, Adam's moments, averages), `best.*` and `earlier.*` (finished
heads: the best so far, and those of a finished round), `log` (float64 [rows, columns of train_log.parquet],
NaN for null), and one metadata entry with the rest as JSON. Which epoch of which modality is the best, and
how good, stands in the metadata of these heads.
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
from trainer.align.processes import Processes

FORMAT = "unibind-checkpoint-2"
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
LogRow = dict[str, Any]
_INTEGERS = ("epoch", "step")
_CURVES = [name for name in TRAIN_LOG.names if name not in _INTEGERS]


@dataclass(frozen=True)
class TrainingProgress:
    """How far training has come; the part of a checkpoint that is not a tensor."""

    round: int  # from 0
    epoch: int  # the last finished one, counted within the round
    first_epoch: int  # the number in the log of the round's epoch 0
    first_step: int
    aligner: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of an epoch."""

    progress: TrainingProgress
    log: list[LogRow]
    best: Heads
    earlier: Heads | None
    now: dict[str, Tensor]


class CheckpointFile:
    """Saves the checkpoints of one training to a file, and loads the last one of an earlier attempt."""

    def __init__(self, path: Path, fingerprint: str, every: float, processes: Processes) -> None:
        """`fingerprint`: of the inputs and settings. `every`: seconds between checkpoints, at least."""
        self._path, self._fingerprint, self._every = path, fingerprint, every
        self._processes = processes
        self._saved = time.monotonic()

    def load(self) -> Checkpoint | None:
        """The checkpoint to resume from; None where rank 0 has none of this training.

        Raises TrainingError in a process that does not see the file of rank 0.
        """
        checkpoint = _load(self._path, self._fingerprint)
        if not self._processes.broadcast_decision(checkpoint is not None):
            return None
        if checkpoint is None:
            raise TrainingError(
                f"{self._path}: rank 0 sees this file, another process does not;"
                " give all processes the same folder (torchrun on one machine)"
            )
        if self._processes.rank == 0:
            print(f"  train: resuming after epoch {checkpoint.log[-1]['epoch']}", file=sys.stderr, flush=True)
        return checkpoint

    def is_due(self) -> bool:
        """Whether it is time to save; always False in processes other than rank 0."""
        return self._processes.rank == 0 and time.monotonic() - self._saved >= self._every

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the file by this checkpoint."""
        _save(self._path, checkpoint, self._fingerprint)
        self._saved = time.monotonic()


@contextmanager
def tensorboard_writer(folder: Path | None, *, after: int) -> Iterator[Callable[[list[LogRow]], None]]:
    """A function that writes log rows to a TensorBoard log in `folder`; without a folder it does nothing.

    What an earlier attempt wrote after step `after` is hidden. Raises TrainingError where the package
    tensorboard is not installed.
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

        def write(rows: list[LogRow]) -> None:
            for row in rows:
                for name in _CURVES:
                    if row[name] is not None:
                        writer.add_scalar(name, row[name], row["step"])
            writer.flush()

        yield write


def _save(path: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    rows = [
        [math.nan if row[c] is None else float(row[c]) for c in TRAIN_LOG.names] for row in checkpoint.log
    ]
    tensors = {f"now.{name}": tensor.cpu() for name, tensor in checkpoint.now.items()}
    tensors["log"] = torch.tensor(rows, dtype=torch.float64)
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "facts": asdict(checkpoint.progress),
    }
    for name, heads in (("best", checkpoint.best), ("earlier", checkpoint.earlier)):
        if heads is not None:
            metadata[name] = heads.metadata
            # Copied, because both rounds have the tensors of one shared space.
            tensors |= {f"{name}.{n}": torch.tensor(t) for n, t in to_tensors(heads).items()}
    tensors = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    metadata["sha256"] = _content_hash(metadata, tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"unibind": canonical_json(metadata)})


def _content_hash(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of everything in a checkpoint but the hash itself."""
    sha256 = hashlib.sha256(canonical_json(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha256.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _load(path: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint at `path`; None if it is missing, of another training, or damaged (with a message)."""
    if not path.exists():
        return None
    try:
        return _read(path, fingerprint)
    except Exception as error:  # a damaged file may lack anything
        reason = first_line(error)
        print(
            f"  train: {path.name} is damaged ({reason}); starting from the first epoch",
            file=sys.stderr,
            flush=True,
        )
        return None


def _read(path: Path, fingerprint: str) -> Checkpoint | None:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("unibind", "{}"))
        if (metadata.get("format"), metadata.get("fingerprint")) != (FORMAT, fingerprint):
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if metadata.pop("sha256", None) != _content_hash(metadata, tensors):
        raise ValueError("its checksum differs")

    def under(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    def heads(name: str) -> Heads | None:
        if name not in metadata:
            return None
        return from_tensors({n: t.numpy() for n, t in under(f"{name}.").items()}, metadata[name])

    best = heads("best")
    if best is None:  # checkpoints are made at the end of epochs, the first after epoch 0
        raise ValueError("no best heads")
    log = [_row(values) for values in tensors["log"].tolist()]
    return Checkpoint(TrainingProgress(**metadata["facts"]), log, best, heads("earlier"), under("now."))


def _row(values: list[float]) -> LogRow:
    row: LogRow = {c: None if math.isnan(v) else v for c, v in zip(TRAIN_LOG.names, values, strict=True)}
    return row | {name: int(row[name]) for name in _INTEGERS}
