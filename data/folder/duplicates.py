"""Finds duplicates: files with the same bytes, and near-duplicate pictures (another size or format).

Pictures are compared by their difference hash (dHash: whether each pixel of a 9 × 8 grey thumbnail is darker
than its right neighbour, 64 bits) and, where two hashes are close, by a 16 × 16 colour thumbnail. Both must
agree: by the hash alone, different shapes on white can look the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from data.environment import cores
from data.errors import SampleError
from data.files import hash_file
from data.readers import read_image

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_HASH_SIDE = 8
_COLOUR_SIDE = 16
# Hash bits that may differ; and the mean difference between thumbnails, as a share of the picture's contrast
# (its mean difference from its own mean colour: low for a small drawing on white), bounded in levels of 255.
MOST_BITS = 5
MOST_SHARE, LEAST_LEVELS, MOST_LEVELS = 0.12, 0.75, 7.0
_PAIRS_AT_A_TIME = 1 << 23  # 64 MiB of hashes
MOST_PICTURES = 50_000  # above this, only equal hashes are compared: the work is quadratic


def exact_duplicates(paths: Mapping[str, Path]) -> list[list[str]]:
    """Groups of names whose files have the same bytes; only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name, path in paths.items():
        size = _size(path)
        if size:  # empty files are rejected later
            by_size[size].append(name)
    suspects = [name for names in by_size.values() if len(names) > 1 for name in names]
    by_hash: dict[str, list[str]] = defaultdict(list)
    with _pool() as pool:
        hashes = pool.map(lambda name: _hash(paths[name]), suspects)
        for name, digest in zip(suspects, _bar(hashes, len(suspects), "compare files"), strict=True):
            if digest is not None:
                by_hash[digest].append(name)
    return [names for names in by_hash.values() if len(names) > 1]


def near_duplicates(paths: Mapping[str, Path], group_of: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Pairs of names with near-duplicate pictures: a spanning forest of each set of duplicates.

    Pairs within a group (`group_of`) come first and connect the duplicates of that group. Unreadable pictures
    match nothing. Above `MOST_PICTURES` pictures only those with equal hashes are compared.
    """
    names = list(paths)
    with _pool() as pool:
        fingerprints = pool.map(lambda name: _fingerprint(paths[name]), names)
        seen = list(_bar(fingerprints, len(names), "compare pictures"))
    readable = [(name, found) for name, found in zip(names, seen, strict=True) if found is not None]
    if len(readable) < 2:
        return []
    pictures = _Pictures(
        np.array([found[0] for _, found in readable], dtype=np.uint64),
        np.stack([found[1] for _, found in readable]),
    )
    groups: dict[str | None, list[int]] = defaultdict(list)
    for place, (name, _) in enumerate(readable):
        groups[group_of[name]].append(place)
    for members in (*groups.values(), range(len(readable))):
        pictures.connect(np.array(members, dtype=np.int64))
    return [(readable[one][0], readable[other][0]) for one, other in pictures.pairs]


class _Pictures:
    """Hashes and thumbnails of N pictures, and which of them are connected so far."""

    def __init__(self, hash_N: npt.NDArray[np.uint64], colours_NX: Bytes) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._hash_N = hash_N
        self._colours_NX = colours_NX
        self._contrast_N = _contrast(colours_NX)
        self._root_N = np.arange(len(hash_N))

    def connect(self, members_M: Ints) -> None:
        """Compare some pictures with each other; add a pair wherever two sets turn out to be duplicates."""
        if len(members_M) > MOST_PICTURES:
            ordered_M = members_M[np.argsort(self._hash_N[members_M], kind="stable")]
            ends = np.flatnonzero(np.diff(self._hash_N[ordered_M])) + 1
            for equal in np.split(ordered_M, ends):
                self._connect(equal)
        else:
            self._connect(members_M)

    def _connect(self, members_M: Ints) -> None:
        hash_M = self._hash_N[members_M]
        rows = max(1, _PAIRS_AT_A_TIME // max(1, len(members_M)))
        for start in range(0, len(members_M), rows):
            bits_BM = np.bitwise_count(hash_M[start : start + rows, None] ^ hash_M[None])
            close_BM = np.triu(bits_BM <= MOST_BITS, k=start + 1)
            for row in np.flatnonzero(close_BM.any(axis=1)).tolist():
                self._join(int(members_M[start + row]), members_M[close_BM[row]])

    def _join(self, one: int, others_K: Ints) -> None:
        others_K = others_K[self._root_N[others_K] != self._root_N[one]]
        apart_KX = np.abs(self._colours_NX[others_K].astype(np.int16) - self._colours_NX[one])
        allowed_K = np.minimum(self._contrast_N[others_K], self._contrast_N[one]) * MOST_SHARE
        same_K = apart_KX.mean(axis=1) <= np.clip(allowed_K, LEAST_LEVELS, MOST_LEVELS)
        roots_R, first_R = np.unique(self._root_N[others_K[same_K]], return_index=True)
        self.pairs += [(one, other) for other in others_K[same_K][np.sort(first_R)].tolist()]
        if len(roots_R):
            joined = np.append(roots_R, self._root_N[one])
            self._root_N[np.isin(self._root_N, joined)] = joined.min()


def _contrast(colours_NX: Bytes) -> npt.NDArray[np.float64]:
    """Mean absolute difference of each thumbnail from its own mean colour, float64[N]."""
    pixels_NP3 = colours_NX.reshape(len(colours_NX), -1, 3)
    means_N13 = pixels_NP3.mean(axis=1, keepdims=True)
    contrast_N: npt.NDArray[np.float64] = np.abs(pixels_NP3 - means_N13).mean(axis=(1, 2))
    return contrast_N


def _fingerprint(path: Path) -> tuple[int, Bytes] | None:
    """The picture's difference hash and its colour thumbnail, uint8[16 · 16 · 3]."""
    try:
        picture = Image.fromarray(read_image(path, short_side=64).rgb_HW3)
    except SampleError:
        return None  # its reader reports it when the sample is used
    small = picture.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    grey_HW = np.asarray(small).astype(np.int16)
    # A flat background has no gradient: the difference must exceed noise.
    darker_HW = grey_HW[:, :-1] + 2 < grey_HW[:, 1:]
    bits = int.from_bytes(np.packbits(darker_HW).tobytes())
    colours = np.asarray(picture.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX))
    return bits, colours.reshape(-1)


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None  # its reader reports it when the sample is used


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(32, 2 * cores()))


def _bar(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(items, total=total, desc=what, unit="file", disable=None, delay=2, leave=False)
    return bar
