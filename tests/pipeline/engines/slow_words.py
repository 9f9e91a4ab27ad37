"""The encoder of examples/own_encoder.py, slowly: so that a test can kill what works. The same vectors.

Where `SLOW_WORDS_LOG` names a file, each batch is a line of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from own_encoder import WordsAndColours  # examples/ is on the path where this is used

from data.errors import SampleError
from kb_builder.encoders.base import Floats
from tests.pipeline.engines.cluster import SLOW_WORDS_LOG

SECONDS = 0.3  # for a batch


class SlowWords(WordsAndColours):
    """The same name, identity and vectors."""

    def encode(self, batch: Sequence[Any]) -> Floats:
        """As the other, later."""
        if log := os.environ.get(SLOW_WORDS_LOG):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{len(batch)}\n")
        time.sleep(SECONDS)
        return super().encode(batch)


def load_words(detail: str = "", *, device: str = "cpu") -> SlowWords:
    """As `own_encoder.load_words`."""
    return SlowWords()


@dataclass(frozen=True)
class Order:
    """An order for `Trouble`."""

    name: str
    number: int


class Trouble:
    """Work that doubles a number, or does what the order's name says."""

    def __call__(self, orders: Iterable[Order]) -> Iterator[int]:
        """The doubled number of each order."""
        for order in orders:
            if order.name == "kills its worker":
                os.kill(os.getpid(), signal.SIGKILL)
            if order.name == "is wrong":
                raise SampleError("the picture is a cake")
            yield 2 * order.number
