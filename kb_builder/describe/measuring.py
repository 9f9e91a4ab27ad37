"""Measure samples before they are described: on the cores of this machine, or elsewhere by orders."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from data.environment import cores
from data.paths import resolver
from data.readers import use_budget
from data.readers.sandbox.budget import FileBudget
from data.work import Carry, require_folder
from kb_builder.describe.sample import Facts, Row, SampleSubject, facts_of

AT_A_TIME = 128  # samples of one order: seconds of work


@dataclass(frozen=True)
class MeasureOrder:
    """Some samples to be measured: their modality, uri and up axis."""

    number: int
    samples: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The order, for messages."""
        first = f" from {self.samples[0]['uri']!r}" if self.samples else ""
        return f"{len(self.samples):,} samples{first}"


@dataclass(frozen=True)
class MeasuredOrder:
    """What was measured of an order's samples, in their order."""

    number: int
    facts: tuple[Facts, ...]


@dataclass(frozen=True)
class MeasureWork:
    """Measures samples in any process that sees their files, on all cores that it has."""

    root: Path  # of the samples
    budget: FileBudget

    def __call__(self, orders: Iterable[MeasureOrder]) -> Iterator[MeasuredOrder]:
        """The facts of each order. Raises KnowledgeBaseError where this process does not see the samples."""
        use_budget(self.budget)
        for order in orders:
            require_folder(self.root, "the samples")
            with ThreadPoolExecutor(cores(), thread_name_prefix="measure") as pool:
                found = pool.map(partial(facts_of, locate=resolver(self.root)), order.samples)
                yield MeasuredOrder(order.number, tuple(found))


def measured(
    subjects: Iterator[SampleSubject], total: int, work: MeasureWork, carry: Carry | None
) -> Generator[SampleSubject]:
    """The `total` subjects in order, measured by `carry`; if that is None, or for few, by this process."""
    if carry is None or total <= AT_A_TIME:
        return _measured_here(subjects)
    return _measured_elsewhere(subjects, work, carry)


def _measured_here(subjects: Iterator[SampleSubject]) -> Generator[SampleSubject]:
    """The subjects in order, those whose facts are needed measured; a few files are read ahead.

    In threads: decoding and array work release the interpreter lock, and at most one decoded sample per
    thread is in memory.
    """
    threads = cores()
    ahead: deque[tuple[SampleSubject, Future[None] | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="measure") as pool:
        try:
            for subject in subjects:
                ahead.append((subject, pool.submit(subject.measure) if subject.needs_facts else None))
                if len(ahead) > 4 * threads:
                    yield _wait_for(*ahead.popleft())
            while ahead:
                yield _wait_for(*ahead.popleft())
        finally:
            for _, measuring in ahead:
                if measuring is not None:
                    measuring.cancel()


def _measured_elsewhere(
    subjects: Iterator[SampleSubject], work: MeasureWork, carry: Carry
) -> Generator[SampleSubject]:
    """The same, measured by `carry`."""
    groups: dict[int, list[SampleSubject]] = {}  # that were taken and not yet given

    def orders() -> Iterator[MeasureOrder]:
        for number, group in enumerate(iter(lambda: list(islice(subjects, AT_A_TIME)), [])):
            groups[number] = group
            samples = tuple(_bare(subject.sample) for subject in group if subject.needs_facts)
            # Without samples too: how much is taken ahead is the engine's, whatever needs to be measured.
            yield MeasureOrder(number, samples)

    early: dict[int, MeasuredOrder] = {}
    upcoming = 0
    with closing(carry(work, orders())) as results:
        for made in results:
            early[made.number] = made
            while upcoming in early:
                group, facts = groups.pop(upcoming), early.pop(upcoming).facts
                needing = [subject for subject in group if subject.needs_facts]
                for subject, found in zip(needing, facts, strict=True):
                    subject.take(found)
                yield from group
                upcoming += 1


def _bare(sample: Row) -> Row:
    return {name: sample.get(name) for name in ("modality", "uri", "up")}


def _wait_for(subject: SampleSubject, measuring: Future[None] | None) -> SampleSubject:
    if measuring is not None:
        measuring.result()
    return subject
