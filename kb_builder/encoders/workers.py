"""Encoding on all cores: batches run in parallel, one thread each, and texts of equal length share a pass.

Decoding of one batch overlaps the encoding of another. On a CPU this is faster than giving all threads to one
batch at a time (small operations do not split well, and idle threads spin), and the bits of a batch do not
depend on the number of cores.

`text_passes` forms forward passes without padding. So a text's vector does not depend on the other texts of
its batch, provided that the encoder states the length of each text. An encoder that states none gets passes
of mixed lengths: a SigLIP through sentence-transformers has no attention mask and reads the padding, so there
a text's vector does depend on the longest text of its pass. `clip:MODEL` pads each of its texts to the same
length instead.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from data.environment import cores
from data.modality import Modality
from data.threads import one_thread_each
from kb_builder.encoders.base import Encoder, Floats, Source

_TEXTS_PER_BATCH = 250
_ALIKE_PER_BATCH = 64
_TOKENS_PER_PASS = 1024  # more would overflow a core's cache, fewer would leave it waiting for Python
# Parameters up to which a single sample is encoded on one thread.
_SMALL = 100_000_000
# glibc's names for the free memory that it keeps (mallopt(3)), and how much: of a thread, and in one piece.
_TRIM_THRESHOLD, _KEPT_BYTES = -1, 64 * 2**20
_MMAP_THRESHOLD, _KEPT_PIECE = -3, 32 * 2**20  # the largest that it takes

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_batches(function: Callable[[_Item], _Result], batches: Iterable[_Item]) -> Generator[_Result]:
    """`map` over batches, in order, on as many threads as torch and the process may use, one a product.

    At most two batches per thread are read ahead or wait as results, which bounds the memory. The first error
    of `function` is raised here, and batches that have not started are dropped.
    """
    workers = min(torch.get_num_threads(), cores())
    _keep_memory()
    waiting: deque[Future[_Result]] = deque()
    with (
        one_thread_each(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@cache
def _keep_memory() -> None:
    """Let this process keep up to 64 MB of free memory for each thread.

    Otherwise glibc returns that of a product to the kernel, and gets it again for the next one page by page:
    11,000 page faults for a thousand tokens, a twelfth of MiniLM's time.
    """
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_PIECE)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def encode_one(encoder: Encoder, modality: Modality, source: Source) -> Floats:
    """One sample, float32[1, D]. Raises SampleError for a bad file.

    A small network (MiniLM, EfficientNet-Lite0) runs on one thread: its operations take microseconds, so more
    threads gain little on idle cores, and wait for each other for seconds on busy ones.
    """
    prepared = encoder.prepare(modality, source)
    if encoder.parameters > _SMALL:
        return encoder.encode([prepared])
    with one_thread_each():
        return encoder.encode([prepared])


def encode_texts(encoder: Encoder, texts: Sequence[str], *, what: str) -> Floats:
    """The vectors of texts, float32[N, D], encoded on all cores; `what` names them in the progress bar."""
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
    """Cut (row, text) pairs into forward passes of one length in `tokens` each, shorter texts first."""
    by_length: dict[int, list[tuple[int, str]]] = {}
    for text, count in zip(texts, tokens, strict=True):
        by_length.setdefault(count, []).append(text)
    for count, alike in sorted(by_length.items()):
        size = max(1, _TOKENS_PER_PASS // max(1, count))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
