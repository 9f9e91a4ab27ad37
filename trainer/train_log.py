"""What training tells of itself: the rows of train_log.parquet, and the same for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import TrainingError

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

Row = dict[str, Any]
_CURVES = [name for name in TRAIN_LOG.names if name not in ("epoch", "step")]


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
