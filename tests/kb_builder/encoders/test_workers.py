"""Batches side by side: in order, bounded, and torch is left as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from kb_builder.encoders.workers import map_batches


def test_results_come_in_order_from_one_torch_thread_each() -> None:
    """Slow early batches do not let later ones overtake; torch's own threads are back afterwards."""
    before = torch.get_num_threads()

    def work(number: int) -> tuple[int, int]:
        time.sleep(0.002 * (5 - number % 5))
        return number, torch.get_num_threads()

    assert list(map_batches(work, range(20))) == [(number, 1) for number in range(20)]
    assert torch.get_num_threads() == before


def test_no_more_batches_are_drawn_than_the_window_holds() -> None:
    """A slow reader of results does not make the producer run ahead."""
    drawn: list[int] = []

    def produce() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    window = 2 * torch.get_num_threads()
    results = map_batches(lambda number: number, produce())
    assert next(results) == 0
    assert len(drawn) == window
    results.close()


def test_an_error_ends_the_run_and_restores_torch() -> None:
    """The first error comes out, and waiting batches are dropped."""
    before, started, gate = torch.get_num_threads(), [], threading.Lock()

    def work(number: int) -> None:
        with gate:
            started.append(number)
        if number == 1:
            raise ValueError("batch 1")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="batch 1"):
        list(map_batches(work, range(1000)))
    assert len(started) < 1000
    assert torch.get_num_threads() == before
