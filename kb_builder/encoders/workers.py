"""Encoding on all cores: whole batches side by side, each on one thread.

Decoding of one batch so overlaps the encoding of another. On a CPU this runs faster than giving every batch
all threads in turn (small operations do not split well, and waiting threads burn the other's time), and a
batch's bits do not depend on how many cores there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from kb_builder.encoders.base import Encoder, Floats

_TEXTS_PER_BATCH = 250
_ALIKE_PER_BATCH = 64

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_TOKENS_PER_PASS = 1024  # more overflow the cache of a core, fewer leave it waiting for Python


def map_batches(function: Callable[[_Item], _Result], batches: Iterable[_Item]) -> Generator[_Result]:
    """`map` over batches on as many threads as torch may use, in order, with torch on one thread in each.

    Batches are drawn and results kept only for a window of two per thread: memory stays bounded. The first
    error of `function` is raised here, and batches not yet begun are dropped.
    """
    workers = torch.get_num_threads()
    waiting: deque[Future[_Result]] = deque()
    # Newly started threads take over the number of torch threads that is set when they begin.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(function, batch))
                    if len(waiting) >= 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(workers)


def encode_texts(encoder: Encoder, texts: Sequence[str], *, what: str) -> Floats:
    """Texts as vectors, float32[N, D], in batches on all cores; `what` names them beside the progress."""
    prepared = [encoder.prepare("text", words) for words in texts]
    starts = range(0, len(prepared), _TEXTS_PER_BATCH)
    batches = (prepared[start : start + _TEXTS_PER_BATCH] for start in starts)
    results = map_batches(encoder.encode, batches)
    with tqdm(results, total=len(starts), desc=f"encode {what}", unit=" batches", disable=None) as bar:
        return np.concatenate(list(bar))


def encode_by_length(
    encoder: Encoder, texts: Sequence[str], *, into_ND: Floats | None = None, what: str | None = None
) -> Floats:
    """Texts as vectors, float32[N, D], in batches of 64 texts of similar length, which need little padding.

    The batches depend on the texts alone, so the same texts have the same bits on any number of cores.
    `into_ND` receives the vectors (a memory map, where they are too many for memory). `what` names a progress
    bar; None: no bar is shown.
    """
    vectors_ND = np.zeros((len(texts), encoder.dim), np.float32) if into_ND is None else into_ND
    order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), place))
    places = [order[start : start + _ALIKE_PER_BATCH] for start in range(0, len(order), _ALIKE_PER_BATCH)]
    batches = ([texts[place] for place in batch] for batch in places)
    with tqdm(total=len(texts), desc=what, unit=" texts", disable=True if what is None else None) as bar:
        for batch, vectors_BD in zip(places, map_batches(encoder.encode, batches), strict=True):
            vectors_ND[batch] = vectors_BD
            bar.update(len(batch))
    return vectors_ND


def text_passes(texts: Sequence[tuple[int, str]], tokens: Sequence[int]) -> Iterator[list[tuple[int, str]]]:
    """Texts with their rows, cut into passes of one length in tokens each; in the order of the lengths."""
    by_length: dict[int, list[tuple[int, str]]] = {}
    for text, count in zip(texts, tokens, strict=True):
        by_length.setdefault(count, []).append(text)
    for count, alike in sorted(by_length.items()):
        size = max(1, _TOKENS_PER_PASS // max(1, count))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
