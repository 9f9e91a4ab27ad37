"""Hash the files of samples for `ingest`: on the cores of this machine, or elsewhere by orders of samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.environment import cores
from data.errors import SampleError
from data.paths import resolver
from data.readers import use_budget
from data.readers.axes import Up, turned, up_override
from data.readers.companions import content_hash
from data.readers.sandbox.budget import FileBudget
from data.reads import Note, adopt, hashed, reading, recorded
from data.sample import Reject, Sample
from data.work import Carry, require_folder

STAGE = "ingest"
AT_A_TIME = 1000  # samples of one order: a result of less than a megabyte

Row = dict[str, Any]


@dataclass(frozen=True)
class HashOrder:
    """Some samples to be hashed."""

    number: int
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """The order, for messages."""
        return f"{len(self.samples):,} samples from {self.samples[0].sample_id!r}"


@dataclass(frozen=True)
class Hashed:
    """The rows and rejects of an order's samples, in their order, and what was read for them."""

    number: int
    outcomes: list[Row | Reject]
    notes: list[Note]


@dataclass(frozen=True)
class HashWork:
    """Hashes samples in any process that sees their files."""

    root: Path  # of the manifest
    up: Up | None
    budget: FileBudget

    def __call__(self, orders: Iterable[HashOrder]) -> Iterator[Hashed]:
        """The outcomes of each order. Raises KnowledgeBaseError where this process does not see the root."""
        use_budget(self.budget)
        for order in orders:
            require_folder(self.root, "the samples")
            with recorded() as recorder, closing(hash_here(order.samples, self.root, self.up)) as outcomes:
                found = list(outcomes)
            yield Hashed(order.number, found, recorder.notes())


def hash_here(samples: Sequence[Sample], root: Path, up: Up | None) -> Generator[Row | Reject]:
    """The row or reject of each sample, in order."""
    locate = resolver(root)
    # Hashing releases the interpreter lock; more threads than cores keep a slow disk busy.
    with ThreadPoolExecutor(max_workers=min(32, 2 * cores())) as pool:
        yield from pool.map(partial(hash_one, locate=locate, up=up), samples)


def hash_elsewhere(samples: Sequence[Sample], work: HashWork, carry: Carry) -> Generator[Row | Reject]:
    """The same, carried out by `carry`; what was read is noted here."""
    orders = (
        HashOrder(
            number, tuple(replace(each, description=None) for each in samples[start : start + AT_A_TIME])
        )
        for number, start in enumerate(range(0, len(samples), AT_A_TIME))
    )
    early: dict[int, Hashed] = {}
    upcoming = 0
    with closing(carry(work, orders)) as results:
        for made in results:
            early[made.number] = made
            while upcoming in early:
                done = early.pop(upcoming)
                adopt(done.notes)
                yield from done.outcomes
                upcoming += 1


def hash_one(sample: Sample, *, locate: Callable[[str], Path], up: Up | None) -> Row | Reject:
    """The row of a sample, or why it is rejected; `locate` finds its file."""
    try:
        path = locate(sample.uri)
        if not path.exists():
            reading(path)
            raise SampleError(f"{sample.uri}: no such file")
        if not path.is_file():  # a folder, a pipe or a device: opening one might block forever
            reading(path)
            raise SampleError(f"{sample.uri}: not a plain file")
        size = path.stat().st_size
        if size == 0:
            reading(path)
            raise SampleError(f"{sample.uri}: empty file")
        stated_up = up_override(sample.modality, path, up)
        digest = content_hash(sample.modality, turned(path, stated_up), hash_one=hashed, absent=reading)
    except SampleError as error:
        return Reject(sample.sample_id, STAGE, str(error))
    except OSError as error:
        reading(path)
        return Reject(sample.sample_id, STAGE, f"{sample.uri}: cannot be read: {error.strerror}")
    return {
        "sample_id": sample.sample_id,
        "object_id": sample.object_id,
        "modality": sample.modality,
        "uri": sample.uri,
        "category_id": sample.category_id,
        "split": sample.split,
        "sha256": digest,
        "bytes": size,
        "more_category_ids": list(sample.more_category_ids) or None,
        "up": stated_up,
    }
