"""Damage files at random and reproducibly: the same seed gives the same mutants.

Each mutant is a seed file with one to four mutations: bits flipped, bytes set to values that are hard to
parse, numbers overwritten in either byte order, numbers of a text replaced, runs of bytes cut, repeated or
taken from another file of the same format, and the file truncated.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator, Sequence

WOUNDS_AT_MOST = 4
HEADER_BYTES = 512  # where half of the mutations are: headers hold counts and sizes

_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x20)
_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x10000,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
)
_TEXTS = (
    *(b"0 -1 1 3 99999999999999999999 4294967296 2147483648 1e308 1e-308 nan inf -inf".split()),
    *(b"0x10 1,5 1_0 +-3 --".split()),
    "٣".encode(),
    b"",
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutants(seeds: Sequence[bytes], *, count: int, seed: int) -> Iterator[bytes]:
    """`count` mutants, each of one of `seeds`: files of one format, whose bytes may be mixed."""
    for number in range(count):
        yield mutant(seeds, seed=seed, number=number)


def mutant(seeds: Sequence[bytes], *, seed: int, number: int) -> bytes:
    """The mutant of that number, without making those before it."""
    rng = random.Random(f"{seed}/{number}")
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, WOUNDS_AT_MOST)):
        if content:
            rng.choice(_WOUNDS)(rng, content, seeds)
    return bytes(content)


def _place(rng: random.Random, content: bytearray) -> int:
    end = min(len(content), HEADER_BYTES) if rng.random() < 0.5 else len(content)
    return rng.randrange(end)


def _flip(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[_place(rng, content)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, content)
    for place in range(at, min(at + rng.choice((1, 1, 2, 4)), len(content))):
        content[place] = rng.choice((*_BYTES, rng.randrange(256)))


def _number(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    """Overwrite 2, 4 or 8 bytes by a number, such as the file's size."""
    width, code = rng.choice(((2, "H"), (4, "I"), (4, "I"), (8, "Q")))
    if len(content) < width:
        return
    at = min(_place(rng, content), len(content) - width)
    value = rng.choice((*_NUMBERS, len(content), len(content) - at, at, rng.getrandbits(8 * width)))
    content[at : at + width] = struct.pack(rng.choice("<>") + code, value & (256**width - 1))


def _text(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    """Replace a number in digits."""
    found = list(_NUMBER.finditer(content, 0, 4096))
    if found:
        start, end = rng.choice(found).span()
        content[start:end] = rng.choice(_TEXTS)


def _cut(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, content)
    del content[at : at + rng.choice((1, 2, 4, rng.randint(1, 64), rng.randint(1, 4096)))]


def _repeat(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, content)
    some = bytes(content[at : at + rng.choice((1, 4, rng.randint(1, 64), rng.randint(1, 1024)))])
    content[at:at] = some * rng.choice((1, 2, 50))


def _splice(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    if other:
        at, start = _place(rng, content), rng.randrange(len(other))
        some = other[start : start + rng.randint(1, 1024)]
        content[at : at + rng.choice((0, len(some)))] = some


def _shorten(rng: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    del content[rng.randrange(len(content)) :]


_WOUNDS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _set, _set, _number, _number, _number, _text, _text),
    *(_cut, _repeat, _splice, _shorten),
)
