"""What a stage is: what it calls, what it writes, and when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.project import ProjectFile

Completed = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """One stage. `run` returns the counts to report.

    With `shards` it takes the numbers of the shards to make as second argument, and as third a function to
    call with each shard's number and counts once its files are written.

    What it reads is not said here but noted while it runs (data/reads.py), its code is found from `run`
    (pipeline/run/code.py). `media` says that it opens the samples' files: their contents are noted once, by
    `ingest`, so such a stage is current only while what ingest read is.
    """

    name: str
    needs: tuple[str, ...]  # the stages that must have run before
    settings: Callable[[ProjectFile], Any]  # only what it uses: a change of these runs it again
    run: Callable[..., Any]
    outputs: Callable[[ProjectFile], Iterable[Path]]
    shards: Callable[[ProjectFile], int] | None = None
    media: bool = False
    # Inside the knowledge base, of this stage alone: also what it wrote and removed.
    folder: str | None = None
    # What else must hold: of the files it wrote and what was known of them before, as something to compare.
    facts: Callable[[ProjectFile, Sequence[Path], Mapping[str, Any]], Mapping[str, Any]] | None = None
    # Files that it would take over as they lie: where one was altered, it is removed before the stage runs.
    reuses: Callable[[Path], bool] = lambda path: False


@dataclass(frozen=True)
class StageResult:
    """What a stage did: seconds of work (of the run that did it, when skipped) and its own counts.

    `why` says in a few words why a stage that had run before ran again.
    """

    name: str
    seconds: float
    skipped: bool
    summary: dict[str, Any]
    why: str | None = None
