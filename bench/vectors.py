"""Vectors and texts to measure with, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np

DIM = 384
_BLOCK = 4_096

_WORDS = (
    "a the and with of in on its from under over near small large round square long thin thick smooth rough"
    " wooden metal glass paper plastic red blue green yellow dark bright pale shiny dull old new soft hard"
    " surface handle edge corner frame lid wheel leg wing leaf stem petal fur tail ear paw window door roof"
    " wall table floor shelf box bottle cup plate knife rope wire light shadow pattern stripe dot line curve"
    " shape stands lies hangs rests shows reflects casts holds covers catches turns opens carries"
)


def unit(n: int, *, dim: int = DIM, seed: int = 0) -> Any:
    """Random unit rows, float32[n, dim]."""
    draw = np.random.default_rng(seed)
    x_ND = np.empty((n, dim), np.float32)
    for start in range(0, n, _BLOCK):
        block_ND = x_ND[start : start + _BLOCK]
        draw.standard_normal(out=block_ND, dtype=np.float32)
        block_ND /= np.linalg.norm(block_ND, axis=1, keepdims=True)
    return x_ND


def names(n: int, groups: int) -> tuple[list[str], list[str]]:
    """Ids like row ids (16 hex digits), and sorted group names of equal size."""
    draw = np.random.default_rng(1)
    ids = [f"{value:016x}" for value in np.sort(draw.integers(0, 2**62, n)).tolist()]
    return ids, [f"category-{row * groups // n:04d}" for row in range(n)]


def texts(n: int, *, seed: int = 0) -> list[str]:
    """Descriptions of 15 to 30 words, all different."""
    draw = np.random.default_rng(seed)
    words = _WORDS.split()
    found: dict[str, None] = {}
    while len(found) < n:
        picked = draw.integers(0, len(words), int(draw.integers(15, 31)))
        found[" ".join(words[word] for word in picked).capitalize() + "."] = None
    return list(found)
