"""Files that are the same: byte for byte, or, of pictures, the same picture in another size or format.

Pictures are compared by their difference hash (dHash: whether each place of a 9 × 8 grey thumbnail is darker
than its right neighbour, 64 bits) and, where two hashes are close, by a 16 × 16 colour thumbnail. Both must
agree: a hash alone takes two different shapes on white for one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from data.errors import SampleError
from data.files import hash_file
from data.readers.image import read_image

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]

_HASH_SIDE = 8
_COLOUR_SIDE = 16
# Bits that may differ, and by how many levels (of 255) thumbnails may in the mean: by so large a share of
# what the picture differs from its own mean colour, for a small drawing on white is hardly more than white.
MOST_BITS = 5
MOST_SHARE, LEAST_LEVELS, MOST_LEVELS = 0.12, 0.75, 7.0
_PAIRS_AT_A_TIME = 1 << 23  # 64 MiB of hashes
_COLOURS_AT_A_TIME = 2048
MOST_PICTURES = 100_000  # with more, only equal hashes are compared: the work grows with the square


def same_bytes(paths: Mapping[str, Path]) -> list[list[str]]:
    """Groups of names whose files hold the same bytes; only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name, path in paths.items():
        size = _size(path)
        if size:  # an empty file is turned away later
            by_size[size].append(name)
    suspects = [name for names in by_size.values() if len(names) > 1 for name in names]
    by_hash: dict[str, list[str]] = defaultdict(list)
    with _pool() as pool:
        hashes = pool.map(lambda name: _hash(paths[name]), suspects)
        for name, digest in zip(suspects, _bar(hashes, len(suspects), "compare files"), strict=True):
            if digest is not None:
                by_hash[digest].append(name)
    return [names for names in by_hash.values() if len(names) > 1]


def alike_pictures(paths: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Pairs of names whose files show the same picture; a file that is no readable picture is like none."""
    names = list(paths)
    with _pool() as pool:
        looks = pool.map(lambda name: _look(paths[name]), names)
        seen = list(_bar(looks, len(names), "compare pictures"))
    readable = [(name, look) for name, look in zip(names, seen, strict=True) if look is not None]
    if len(readable) < 2:
        return []
    hash_N = np.array([look[0] for _, look in readable], dtype=np.uint64)
    colours_NX = np.stack([look[1] for _, look in readable])
    return [(readable[one][0], readable[other][0]) for one, other in _close(hash_N, colours_NX)]


def _close(hash_N: npt.NDArray[np.uint64], colours_NX: Bytes) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    shades_N = _shades(colours_NX)
    most_bits = MOST_BITS if len(hash_N) <= MOST_PICTURES else 0
    rows = max(1, _PAIRS_AT_A_TIME // len(hash_N))
    for start in range(0, len(hash_N), rows):
        block_B = hash_N[start : start + rows]
        bits_BN = np.bitwise_count(block_B[:, None] ^ hash_N[None, start:])
        one_P, other_P = np.nonzero(np.triu(bits_BN <= most_bits, k=1))
        for first in range(0, len(one_P), _COLOURS_AT_A_TIME):
            one_Q = start + one_P[first : first + _COLOURS_AT_A_TIME]
            other_Q = start + other_P[first : first + _COLOURS_AT_A_TIME]
            apart_QX = np.abs(colours_NX[one_Q].astype(np.int16) - colours_NX[other_Q])
            allowed_Q = np.minimum(shades_N[one_Q], shades_N[other_Q]) * MOST_SHARE
            same_Q = apart_QX.mean(axis=1) <= np.clip(allowed_Q, LEAST_LEVELS, MOST_LEVELS)
            pairs += zip(one_Q[same_Q].tolist(), other_Q[same_Q].tolist(), strict=True)
    return pairs


def _shades(colours_NX: Bytes) -> npt.NDArray[np.float64]:
    """How far each thumbnail is from its own mean colour, in the mean: float64[N]."""
    pixels_NP3 = colours_NX.reshape(len(colours_NX), -1, 3)
    means_N13 = pixels_NP3.mean(axis=1, keepdims=True)
    shades_N: npt.NDArray[np.float64] = np.abs(pixels_NP3 - means_N13).mean(axis=(1, 2))
    return shades_N


def _look(path: Path) -> tuple[int, Bytes] | None:
    """The picture's difference hash and its colour thumbnail, uint8[16 · 16 · 3]."""
    try:
        picture = Image.fromarray(read_image(path, short_side=64).rgb_HW3)
    except SampleError:
        return None  # its reader says so when the sample is used
    small = picture.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    grey_HW = np.asarray(small).astype(np.int16)
    # An even ground has no direction: a little more than noise must lie between two places.
    darker_HW = grey_HW[:, :-1] + 2 < grey_HW[:, 1:]
    bits = int.from_bytes(np.packbits(darker_HW).tobytes())
    colours = np.asarray(picture.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX))
    return bits, colours.reshape(-1)


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None  # its reader says so when the sample is used


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(32, 2 * (os.cpu_count() or 1)))


def _bar(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(items, total=total, desc=what, unit="file", disable=None, delay=2, leave=False)
    return bar
