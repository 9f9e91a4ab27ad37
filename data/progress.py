"""Progress of long steps, for a watcher in the same process (a Prefect flow); usually there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class StepProgress(NamedTuple):
    """A step's title, its units done and to be done, and what else there is to say."""

    title: str
    done: int
    total: int
    words: str = ""


Watch = Callable[[StepProgress], None]
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def steps_watched(watch: Watch) -> Iterator[None]:
    """Call `watch` whenever a step that begins in this block moves.

    It is called in the step's own threads, thousands of times: it must be quick, and must not raise.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class Step:
    """Counts the units of a step, beside its progress bar, which counts nothing without a terminal."""

    def __init__(self, title: str, *, total: int, done: int = 0) -> None:
        self._watch = _watch.get()
        self._now = StepProgress(title, done, total)
        self._tell()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return self._watch is not None

    def add(self, count: int) -> None:
        """Count further units."""
        self._now = self._now._replace(done=self._now.done + count)
        self._tell()

    def say(self, words: str) -> None:
        """Tell something else."""
        self._now = self._now._replace(words=words)
        self._tell()

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch(self._now)
