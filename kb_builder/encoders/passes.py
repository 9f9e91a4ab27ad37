"""Which texts share a forward pass: those of one length, so that a text's vector has the same bits anywhere.

Padding changes the order in which a product adds up, and so the last bits of every row. Without it a row does
not depend on its neighbours (on a CPU, through oneDNN; measured over every encoder by the tests): what is
encoded today beside ten texts and tomorrow beside a thousand is the same vector. It costs nothing, for no
padding is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_TOKENS_PER_PASS = 1024  # more overflow the cache of a core, fewer leave it waiting for Python


def text_passes(texts: Sequence[tuple[int, str]], tokens: Sequence[int]) -> Iterator[list[tuple[int, str]]]:
    """Texts with their rows, cut into passes of one length in tokens each; in the order of the lengths."""
    by_length: dict[int, list[tuple[int, str]]] = {}
    for text, count in zip(texts, tokens, strict=True):
        by_length.setdefault(count, []).append(text)
    for count, alike in sorted(by_length.items()):
        size = max(1, _TOKENS_PER_PASS // max(1, count))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
