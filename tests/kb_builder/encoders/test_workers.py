"""Batches side by side: in order, bounded, and torch is left as it was."""

from __future__ import annotations

import platform
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from kb_builder.encoders import load_encoder
from kb_builder.encoders.workers import encode_by_length, encode_one, map_batches


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_memory_of_a_product_is_used_again() -> None:
    """It is not returned to the kernel, which would hand it out again page by page."""

    minilm = load_encoder("minilm")
    texts = ["word " * 43] * 22

    def faults(number: int) -> int:
        minilm.encode(texts)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        minilm.encode(texts)
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    assert max(map_batches(faults, range(2))) < 5_000  # 11,000 where it is returned


def test_texts_of_similar_length_are_encoded_together() -> None:
    """Batches go by length, rows keep the order of the texts, and a given array receives them."""
    batches: list[list[str]] = []

    class Lengths:
        dim = 2

        def encode(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
            batches.append(texts)
            return np.array([[len(text), text.count("a")] for text in texts], np.float32)

    texts = ["a" * (n % 50) for n in range(150)]
    into_ND = np.zeros((150, 2), np.float32)
    assert encode_by_length(Lengths(), texts, into_ND=into_ND) is into_ND  # type: ignore[arg-type]
    assert into_ND.tolist() == [[n % 50, n % 50] for n in range(150)]
    lengths = [len(text) for batch in sorted(batches, key=lambda batch: len(batch[0])) for text in batch]
    assert sorted(map(len, batches)) == [22, 64, 64] and lengths == sorted(lengths)
    assert encode_by_length(Lengths(), []).shape == (0, 2)  # type: ignore[arg-type]


class _Counting:
    """An encoder that tells on how many threads it runs, and may fail."""

    def __init__(self, parameters: int) -> None:
        self.parameters = parameters

    def prepare(self, modality: str, source: str) -> str:
        return f"{modality} {source}"

    def encode(self, batch: list[str]) -> Any:
        if batch == ["text broken"]:
            raise ValueError("broken")
        assert batch == ["text a dog"]
        return np.full((1, 1), torch.get_num_threads(), np.float32)


@pytest.mark.parametrize(("parameters", "alone"), [(22_000_000, True), (400_000_000, False)])
def test_a_small_encoder_takes_one_thread_for_one_sample(parameters: int, alone: bool) -> None:
    """A large one takes all; torch's own threads are back afterwards, also after an error."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        encoder: Any = _Counting(parameters)
        assert encode_one(encoder, "text", "a dog").tolist() == [[1 if alone else 3]]
        with pytest.raises(ValueError, match="broken"):
            encode_one(encoder, "text", "broken")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
