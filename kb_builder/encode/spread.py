"""How the parts of an encoding are made: in this process, or wherever an engine has room for them.

This package knows no engine. It is handed a `Spread`, whose `map` carries out orders, and gives it work that
is complete in itself: an order names a sheet (kb_builder/encode/sheet.py), a result names the file that was
made. pipeline/engines/ has the engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.errors import KnowledgeBaseError
from data.readers import use_budget
from data.readers.sandbox.budget import FileBudget
from data.work import Carry, here
from kb_builder.encode.hardware import hardware_class
from kb_builder.encode.make import MadePart, encode_sheets, write_own, write_part
from kb_builder.encode.sheet import read_sheet
from kb_builder.encoders.base import Encoder
from kb_builder.settings import Encode


@dataclass(frozen=True)
class PartShare:
    """Part jobs: this one makes the parts of share `number` (from 1) of `of`, and completes nothing."""

    number: int
    of: int

    def has(self, index: int) -> bool:
        """Whether the part of this index in its plan is in this share."""
        return index % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Spread:
    """How parts are made. No byte of a file depends on it.

    `map` carries out orders, unordered. `elsewhere`: in other processes, perhaps on other machines, which
    share nothing with this one but the knowledge base and the samples. `share`: only some parts are made.
    """

    map: Carry = here
    elsewhere: bool = False
    share: PartShare | None = None
    same_hardware: bool = False  # refuse a table whose parts were made by several classes of hardware
    budget: FileBudget = field(default_factory=FileBudget)  # of decoding one file, for other processes


@dataclass(frozen=True)
class PartOrder:
    """One part to be made elsewhere."""

    sheet: Path
    whole: bool  # False: only what it encodes itself
    name: str  # for messages
    rejects: dict[str, str]  # contents of other parts that have no vector, with the reasons


def load_same(load: Callable[[], Encoder], identity: str) -> Encoder:
    """The encoder of this identity. Raises KnowledgeBaseError where this process has another one."""
    encoder = load()
    if encoder.identity != identity:
        raise KnowledgeBaseError(
            f"the encoder {encoder.name!r} has the identity {encoder.identity[:12]} here, and"
            f" {identity[:12]} where the run was started: give every machine the same weights"
            " and the same version of this program"
        )
    return encoder


@dataclass(frozen=True)
class PartWork:
    """Makes parts by their orders, in any process: it loads the encoder by name when the first one comes."""

    encoder: Callable[[], Encoder]
    identity: str
    settings: Encode
    budget: FileBudget

    def __call__(self, orders: Iterable[PartOrder]) -> Iterator[MadePart]:
        """The file of each order.

        Raises KnowledgeBaseError where this process has another encoder than the one that planned.
        """
        encoder = load_same(self.encoder, self.identity)
        use_budget(self.budget)
        hardware = hardware_class(encoder.name, self.settings.device)
        for order in orders:
            started = time.perf_counter()
            sheets = encode_sheets(
                [read_sheet(order.sheet)], encoder, self.settings.batch_size, on_batch=lambda _: None
            )
            for sheet, own in sheets:
                made = (
                    write_part(sheet, own, order.rejects, {}, hardware)
                    if order.whole
                    else write_own(sheet, own, hardware)
                )
                yield replace(made, seconds=time.perf_counter() - started)
