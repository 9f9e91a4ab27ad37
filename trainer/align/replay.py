"""Replay a training step as one CUDA graph.

A small step on a GPU waits for Python, which starts a hundred operations one by one; a graph starts them all
at once. The step must then be operations on tensors at the same places, of the same shapes, without a look at
any value: only the vector of whole numbers that says which rows a batch has (`draws.Draws`) differs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import first_line
from trainer.align.draws import StepLayout
from trainer.align.pairs import Pairs
from trainer.align.processes import Processes
from trainer.records import Ints

# From this many rows of a batch on, a GPU's kernels take longer than Python takes to start them.
_LARGE = 4096
_WARM_UP = 3  # steps that run as usual first, so that libraries set up what a graph cannot record

# What a step does on the device; its result is one small tensor.
Step = Callable[[StepLayout, Tensor], Tensor]


def record_cuda_graph(work: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """Record the kernels that some work starts, without running them.

    Returns a function that runs them, and the tensor that then holds the result.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


class Replay:
    """A step that is replayed where its layout is that of the first one, else run operation by operation."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device
        self._layout: StepLayout | None = None
        self._numbers = torch.empty(0)
        self._left = _WARM_UP
        self._repeat: Callable[[], Any] | None = None
        self._result = torch.empty(0)
        self._works = True

    def __call__(self, layout: StepLayout, numbers: Ints) -> Tensor:
        """The result of the step with these numbers; a tensor that no later step changes."""
        if self._layout is None:
            self._layout = layout
            self._numbers = torch.empty(len(numbers), dtype=torch.int64, device=self._device)
        if layout != self._layout or not self._works:
            return self._step(layout, torch.from_numpy(numbers).to(self._device))
        self._numbers.copy_(torch.from_numpy(numbers))
        if self._left > 0:
            self._left -= 1
            return self._warm_up(layout)
        if self._repeat is None:
            try:
                self._repeat, self._result = record_cuda_graph(lambda: self._step(layout, self._numbers))
            except RuntimeError as error:
                self._works = False
                _say(f"steps run operation by operation: they make no CUDA graph ({first_line(error)})")
                return self._step(layout, self._numbers)
        self._repeat()
        return self._result.clone()

    def _warm_up(self, layout: StepLayout) -> Tensor:
        """A step on the other stream that recording will use."""
        if self._device.type != "cuda":
            return self._step(layout, self._numbers)
        stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        now = torch.cuda.current_stream(self._device)
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            result = self._step(layout, self._numbers)
        now.wait_stream(stream)
        return result


def can_replay(
    pairs: dict[str, Pairs], rows: int, device: torch.device, processes: Processes, own: bool = True
) -> bool:
    """Whether to replay steps of so many rows; one line on stderr says why not, where a GPU would gain.

    `own`: whether samples are contrasted with their own texts.
    """
    if device.type != "cuda" or rows >= _LARGE:
        return False
    if processes.size > 1:
        _say("steps run operation by operation: several processes share them")
        return False
    spans = [span for p in pairs.values() for span in ((p.own, p.centers) if own else (p.centers,))]
    if not all(_all_or_none(span.counts_N) for span in spans):
        _say("steps run operation by operation: some samples have no text, so that shapes change")
        return False
    return True


def _all_or_none(counts_N: Ints) -> bool:
    return bool(np.all(counts_N > 0) or not np.any(counts_N))


def _say(note: str) -> None:
    print(f"  train: {note}", file=sys.stderr, flush=True)
