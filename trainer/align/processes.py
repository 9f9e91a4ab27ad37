"""Several processes that train as one: who they are, what each takes of a batch, what they tell each other.

`torchrun` starts them and says by the environment how many they are. Each holds all features and draws the
same batches, works on its share of the rows, and steps with the sum of all gradients: so all heads stay
equal, and equal (but for rounding) to those that one process would have trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# The others wait for rank 0 as long as its stages take; of one that died torchrun knows, not the clock.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone unless `together` says otherwise."""

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """The rows of n that are this process's: equal shares to within a row, in the ranks' order."""
        bounds = np.linspace(0, n, self.size + 1).round().astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def logsumexp(self, partial_B: Tensor) -> Tensor:
        """The logarithm of the sum over the ranks of exp(partial), element by element."""
        if self.size == 1:
            return partial_B
        highest_B = partial_B.clone()
        dist.all_reduce(highest_B, dist.ReduceOp.MAX)
        highest_B.nan_to_num_(neginf=0.0)  # where no rank has anything
        sum_B = (partial_B - highest_B).exp_()
        dist.all_reduce(sum_B)
        return sum_B.log_() + highest_B

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over the ranks into every tensor, in place, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))

    def agree(self, decision: bool) -> bool:
        """What rank 0 decides."""
        if self.size == 1:
            return decision
        said = [decision]
        dist.broadcast_object_list(said, src=0)
        return said[0]


ALONE = Ranks()


def follows() -> bool:
    """Whether torchrun started this process to help another: rank 0 leads and alone writes and speaks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def leads_others() -> bool:
    """Whether torchrun started other processes that wait for this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) == 0


@contextmanager
def together() -> Iterator[Ranks]:
    """Meet the processes that torchrun started, if it did; NCCL between GPUs, Gloo otherwise."""
    if not (follows() or leads_others()):
        yield ALONE
        return
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size())


def part() -> None:
    """At the end of a run all leave together; those that still wait learn that there is nothing to train.

    A process that went away by itself, or kept its connections till it died, was at times aborted.
    """
    if not (follows() or leads_others()):
        return
    met = dist.is_initialized()
    with together() as ranks:
        if not met and ranks.rank == 0:
            ranks.agree(False)
        dist.barrier()
        dist.destroy_process_group()
