"""How many inputs share a forward pass, so that a core's cache holds it and Python does not dominate it."""

from __future__ import annotations

from collections.abc import Iterator

_CHARACTERS_PER_PASS = 4096  # about a thousand tokens


def text_passes(texts: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Texts that are sorted by length, cut into forward passes that hold about as many tokens each."""
    start = 0
    for stop in range(1, len(texts) + 1):
        padded = (stop + 1 - start) * len(texts[stop][1]) if stop < len(texts) else _CHARACTERS_PER_PASS + 1
        if padded > _CHARACTERS_PER_PASS:
            yield texts[start:stop]
            start = stop
