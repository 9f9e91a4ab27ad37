"""Prophesee's event encodings EVT 2.0 and EVT 3.0, a chunk of words at a time, in NumPy.

Source: "Event encoding formats" in the documentation of Prophesee's Metavision SDK. Times are microseconds.
Words of other types (triggers, vendor extensions) are skipped; so are events before the first time mark,
which have no time.

Shape legend: W words of a chunk, N events, K time marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from data.readers.payload import AnyArray, Integers

# x, y, t and polarity of a chunk's events
Columns = tuple[Integers, Integers, Integers, Integers]

# EVT 2.0: the upper 4 of 32 bits
OFF2, ON2, TIME_HIGH2 = 0x0, 0x1, 0x8
HIGH_BITS2, LOW_BITS2 = 28, 6
# EVT 3.0: the upper 4 of 16 bits
ADDR_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, TIME_LOW, TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8
HIGH_BITS3, LOW_BITS3 = 12, 12


class _Clock:
    """The upper part of the time, with its overflows, carried from chunk to chunk."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.known = False
        self.last = 0  # including overflows

    def read(self, mark_W: npt.NDArray[np.bool_], word_W: Integers) -> Integers:
        """The upper part of the time at each word, int64[W]; −1 before the first mark of the recording."""
        before = self.last if self.known else -1
        high_K = word_W[mark_W] & (2**self.bits - 1)
        if len(high_K):
            previous_K = np.concatenate([[self.last if self.known else high_K[0]], high_K[:-1]])
            previous_K &= 2**self.bits - 1
            # A fall by half the range or more is an overflow; a smaller step back is jitter.
            overflows_K = np.cumsum(previous_K - high_K >= 2 ** (self.bits - 1))
            high_K = high_K + ((overflows_K + (self.last >> self.bits)) << self.bits)
            self.last, self.known = int(high_K[-1]), True
        return _latest(mark_W, high_K, before)


def decode_evt2(chunks: Iterable[AnyArray]) -> Iterator[Columns]:
    """Events of 32-bit words: an event carries x, y and the lower 6 bits of its time."""
    clock = _Clock(HIGH_BITS2)
    for chunk_W in chunks:
        word_W = chunk_W.astype(np.int64)
        kind_W = word_W >> 28
        high_W = clock.read(kind_W == TIME_HIGH2, word_W)
        event_W = ((kind_W == OFF2) | (kind_W == ON2)) & (high_W >= 0)
        word_N = word_W[event_W]
        t_N = high_W[event_W] << LOW_BITS2 | word_N >> 22 & 0x3F
        yield word_N >> 11 & 0x7FF, word_N & 0x7FF, t_N, kind_W[event_W]


def decode_evt3(chunks: Iterable[AnyArray]) -> Iterator[Columns]:
    """Events of 16-bit words: separate words set row, time and base column, which stay set.

    A vector word has one bit for each of the next 12 or 8 columns after the base, and advances the base. The
    lower 12 bits of the time are 0 from a change of the upper ones until the next word sets them.
    """
    clock = _Clock(HIGH_BITS3)
    row, low, high, base, base_polarity = 0, 0, -1, 0, 0
    for chunk_W in chunks:
        word_W = chunk_W.astype(np.int64)
        kind_W = word_W >> 12
        high_W = clock.read(kind_W == TIME_HIGH, word_W)
        moved_W = np.diff(high_W, prepend=high) != 0
        low_mark_W = kind_W == TIME_LOW
        low_W = _latest(
            low_mark_W | moved_W, np.where(low_mark_W, word_W & 0xFFF, 0)[low_mark_W | moved_W], low
        )
        row_W = _latest(kind_W == ADDR_Y, word_W[kind_W == ADDR_Y] & 0x7FF, row)
        base_mark_W = kind_W == VECT_BASE_X
        base_word_W = _latest(base_mark_W, word_W[base_mark_W], base_polarity << 11)
        # How far vector words have advanced the base before each word, since it was set.
        width_W = np.where(kind_W == VECT_12, 12, np.where(kind_W == VECT_8, 8, 0))
        moved_on_W = np.cumsum(width_W) - width_W
        start_W = _latest(base_mark_W, (word_W & 0x7FF)[base_mark_W] - moved_on_W[base_mark_W], base)
        base_W = start_W + moved_on_W

        event_W = ((kind_W == ADDR_X) | (width_W > 0)) & (high_W >= 0)
        single_N = kind_W[event_W] == ADDR_X
        word_N = word_W[event_W]
        bits_N = np.where(single_N, 1, word_N & (1 << np.maximum(width_W[event_W], 1)) - 1)
        column_N = np.where(single_N, word_N & 0x7FF, base_W[event_W])
        polarity_N = np.where(single_N, word_N, base_word_W[event_W]) >> 11 & 1
        t_N = high_W[event_W] << LOW_BITS3 | low_W[event_W]
        which, bit = np.nonzero(bits_N[:, None] >> np.arange(12) & 1)
        yield column_N[which] + bit, row_W[event_W][which], t_N[which], polarity_N[which]
        if len(word_W):
            row, low, high = int(row_W[-1]), int(low_W[-1]), int(high_W[-1])
            base, base_polarity = int(base_W[-1] + width_W[-1]), int(base_word_W[-1] >> 11 & 1)


def _latest(mark_W: npt.NDArray[np.bool_], value_K: Integers, before: int) -> Integers:
    """At each word, the value of the last marked word up to it; `before` if none came yet."""
    return np.concatenate([[before], value_K])[np.cumsum(mark_W)]
