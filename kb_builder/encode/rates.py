"""The size of parts by seconds of work: how long a content takes is measured once, and kept in the store.

    <encoder's folder>/rate-texts.json          of descriptions and controls
    <encoder's folder>/rate-<modality>.json     of samples
      {"nanoseconds": of one content, "contents": that were measured, "hardware": the class that did}

With `part_seconds`, a part has as many rows as take so long at the kept rate. So every later run, part job
and engine divides the rows into the same files, whatever its own speed; nothing else depends on a rate. The
first process that has measured one keeps it: its file appears whole, by one link, and all others read that
one. Where the file is deleted the next run measures again, and says so.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from data.environment import cores
from data.errors import KnowledgeBaseError
from data.files import write_new
from data.readers import use_budget
from data.readers.axes import turned
from data.readers.sandbox.budget import FileBudget
from data.reads import reading
from data.work import Carry
from kb_builder.encode.hardware import hardware_class
from kb_builder.encode.make import batches_of, encode_batch
from kb_builder.encode.rows import StoredTexts, WantedVectors
from kb_builder.encode.sheet import SheetItem, keys_of
from kb_builder.encode.spread import load_same
from kb_builder.encoders.base import Encoder
from kb_builder.encoders.workers import map_batches
from kb_builder.settings import Encode

TEXTS = "texts"  # the kind of descriptions and controls; that of samples is their modality
MOST_ROWS = 65_536  # of a part, whose vectors are in a worker's memory
_SECONDS = 3.0  # of measuring, or as long as a part takes, if that is less
_CONTENTS = 2048  # that are drawn of each kind
_FIRST = 4  # contents of the first batches


@dataclass(frozen=True)
class Rate:
    """How long a content of a kind takes, in a process whose cores all encode others of its kind."""

    nanoseconds: int
    contents: int
    hardware: str

    def rows(self, seconds: float) -> int:
        """How many take so long: at least 1, at most `MOST_ROWS`."""
        return min(MOST_ROWS, max(1, int(seconds * 1e9) // self.nanoseconds))


@dataclass(frozen=True)
class RateOrder:
    """Some contents of a kind, by which its rate is to be measured."""

    kind: str
    items: tuple[SheetItem, ...]

    @property
    def name(self) -> str:
        """The order, for messages."""
        return f"the rate of {self.kind}"


@dataclass(frozen=True)
class RateWork:
    """Measures rates where parts are made."""

    encoder: Callable[[], Encoder]
    identity: str
    settings: Encode
    budget: FileBudget

    def __call__(self, orders: Iterable[RateOrder]) -> Iterator[tuple[str, Rate]]:
        """The kind of each order, and its rate. Raises KnowledgeBaseError as `PartWork` does."""
        encoder = load_same(self.encoder, self.identity)
        use_budget(self.budget)
        hardware = hardware_class(encoder.name, self.settings.device)
        for order in orders:
            contents, seconds = _measure(encoder, order.items, self.settings)
            yield order.kind, Rate(max(1, round(1e9 * seconds / contents)), contents, hardware)


def rows_by_seconds(
    folder: Path,
    kinds: Set[str],
    wanted: Callable[[], Iterable[WantedVectors]],
    work: RateWork,
    carry: Carry,
) -> tuple[dict[str, int], str]:
    """How many rows of each kind take `part_seconds` by the rates in an encoder's folder, and what to tell.

    Kinds without a rate get one: `carry` measures it, with some of the rows of `wanted()`. Kinds that have no
    rows are left out. Raises KnowledgeBaseError for a damaged rate.
    """
    seconds = work.settings.part_seconds
    assert seconds is not None
    rates = {kind: rate for kind in sorted(kinds) if (rate := _kept(folder, kind)) is not None}
    measured = []
    if missing := kinds - rates.keys():
        orders = [RateOrder(kind, items) for kind, items in _drawn(wanted(), missing).items()]
        with closing(carry(work, orders)) as results:
            for kind, rate in results:
                path, content = _path(folder, kind), json.dumps(asdict(rate), sort_keys=True) + "\n"
                if write_new(path, content.encode()):
                    measured.append(kind)
                kept = _kept(folder, kind)  # of several processes, the first one's
                if kept is None:
                    raise KnowledgeBaseError(
                        f"{path}: removed while this started; run the same command again"
                    )
                rates[kind] = kept
    return {kind: rate.rows(seconds) for kind, rate in rates.items()}, _told(rates, sorted(measured), seconds)


def _told(rates: Mapping[str, Rate], measured: Collection[str], seconds: float) -> str:
    rows = {kind: rate.rows(seconds) for kind, rate in sorted(rates.items())}
    sizes = ", ".join(
        f"{count:,}{' (the most)' if count == MOST_ROWS else ''} {kind}" for kind, count in rows.items()
    )
    how = f"measured now: {', '.join(measured)}" if measured else "by the rates that are kept"
    return f"parts of {seconds:g} s hold {sizes or 'nothing'} ({how}; rate-*.json)"


def _path(folder: Path, kind: str) -> Path:
    return folder / f"rate-{kind}.json"


def _kept(folder: Path, kind: str) -> Rate | None:
    path = _path(folder, kind)
    if not os.path.lexists(path):
        return None
    try:
        rate = Rate(**json.loads(reading(path).read_text(encoding="utf-8")))
        if rate.nanoseconds < 1:
            raise ValueError
    except (OSError, ValueError, TypeError) as error:
        raise KnowledgeBaseError(
            f"{path}: damaged; delete it, and the next run measures it again, which may divide the rows into"
            " other files, or bring it back from a backup"
        ) from error
    return rate


def _drawn(wanted: Iterable[WantedVectors], kinds: Set[str]) -> dict[str, tuple[SheetItem, ...]]:
    """Some contents of each of these kinds that has rows: those with the smallest hashes, in their order."""
    found: dict[str, dict[int, SheetItem]] = {}
    for rows in wanted:
        hash_N = rows.digests()[:, 0]
        group_N = np.array(rows.groups.to_pylist() if rows.files else [TEXTS] * len(rows), object)
        for kind in kinds & set(group_N.tolist()):
            known = found.setdefault(kind, {})
            bound = max(known) if len(known) >= _CONTENTS else math.inf
            own = np.flatnonzero((group_N == kind) & (hash_N < bound))
            own = own[np.unique(hash_N[own], return_index=True)[1][:_CONTENTS]]
            known |= dict(zip(hash_N[own].tolist(), _items(rows, own.tolist()), strict=True))
            found[kind] = dict(islice(sorted(known.items()), _CONTENTS))
    return {kind: tuple(items.values()) for kind, items in sorted(found.items())}


def _items(rows: WantedVectors, places: list[int]) -> Iterator[SheetItem]:
    if isinstance(rows.sources, StoredTexts):
        for text in rows.sources.take(places).to_pylist():
            yield SheetItem(text, "text", text, "")
        return
    for place in places:
        source = rows.sources[place].as_py()
        if not rows.files:
            yield SheetItem(source, "text", source, "")
            continue
        up = None if rows.ups is None else rows.ups[place].as_py()
        modality = rows.groups[place].as_py()
        (key,) = keys_of([modality], [rows.contents[place].as_py()], files=True)
        yield SheetItem(key, modality, turned(Path(source), up), source)


def _measure(encoder: Encoder, items: Collection[SheetItem], settings: Encode) -> tuple[int, float]:
    """How many contents were encoded in how many seconds, on all cores.

    Every round gives each core a batch. Batches of contents that take long are smaller: a round of them would
    take minutes.
    """
    least_s = min(_SECONDS, settings.part_seconds or _SECONDS)
    for _ in range(2):  # the first loads what is loaded when it is needed
        first = list(islice(cycle(items), _FIRST))
        started = time.perf_counter()
        encode_batch(encoder, first)
    each_s = max(1e-9, time.perf_counter() - started) / _FIRST
    size = min(settings.batch_size, max(1, int(least_s / each_s)))
    batches = list(batches_of(items, size))
    random.Random(0).shuffle(batches)  # texts are sorted by length
    endless, contents = cycle(batches), 0
    started = time.perf_counter()
    while (seconds := time.perf_counter() - started) < least_s or not contents:
        batches = list(islice(endless, min(torch.get_num_threads(), cores())))
        for _ in map_batches(partial(encode_batch, encoder), batches):
            pass
        contents += sum(map(len, batches))
    return contents, seconds
