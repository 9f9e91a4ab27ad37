"""Training in several processes: ranks, each process's share of a batch, and what they exchange.

`torchrun` starts them and sets their number in the environment. Each holds all features and draws the same
batches, works on its share of the rows, and steps with the sum of all gradients: so all heads stay equal, and
equal (up to rounding) to those that one process would have trained.
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

# The others wait for rank 0 as long as its earlier stages take; torchrun, not this, detects dead processes.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and how many train together; one alone outside a `process_group`."""

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """This process's rows of n: contiguous, in the order of the ranks, equal shares to within one row."""
        if self.size == 1:
            return slice(0, n)
        bounds = np.linspace(0, n, self.size + 1).round().astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def logsumexp(self, partial_B: Tensor) -> Tensor:
        """The logarithm of the sum over the processes of exp(partial), element by element."""
        if self.size == 1:
            return partial_B
        highest_B = partial_B.clone()
        dist.all_reduce(highest_B, dist.ReduceOp.MAX)
        highest_B.nan_to_num_(neginf=0.0)  # where no rank has anything
        sum_B = (partial_B - highest_B).exp_()
        dist.all_reduce(sum_B)
        return sum_B.log_() + highest_B

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))

    def broadcast_decision(self, decision: bool) -> bool:
        """The decision of rank 0, for every process."""
        if self.size == 1:
            return decision
        shared = [decision]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]


ALONE = Processes()


def is_follower() -> bool:
    """Whether torchrun started this process to help rank 0, which alone writes files and messages."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def leads_followers() -> bool:
    """Whether this process is rank 0, and torchrun started others that wait for it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) == 0


@contextmanager
def process_group() -> Iterator[Processes]:
    """Join the processes that torchrun started, if any; NCCL between GPUs, Gloo otherwise."""
    if not (is_follower() or leads_followers()):
        yield ALONE
        return
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    yield Processes(dist.get_rank(), dist.get_world_size())


def leave_process_group() -> None:
    """Leave the process group at the end of a run; releases processes that still wait for a training.

    All leave together: a process that left alone, or held its connections until it ended, was sometimes
    aborted.
    """
    if not (is_follower() or leads_followers()):
        return
    joined = dist.is_initialized()
    with process_group() as processes:
        if not joined and processes.rank == 0:
            processes.broadcast_decision(False)
        dist.barrier()
        dist.destroy_process_group()
