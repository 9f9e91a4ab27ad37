"""The records of a stage: its definition, and the result of running it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.project import ProjectFile

Completed = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """One stage. `run` takes the project and returns the counts to report.

    With `shards`, `run` also takes the numbers of the shards to make, and a function to call with each
    shard's number and counts once its files are written.

    What a stage reads is not declared but recorded while it runs (data/reads.py); its code is found from
    `run` (pipeline/run/code.py). `media`: it opens the samples' files. `ingest` records their contents once,
    so such a stage is current only while the inputs of ingest are.
    """

    name: str
    needs: tuple[str, ...]  # the stages that must have run before
    settings: Callable[[ProjectFile], Any]  # only those it uses: if they change, it runs again
    run: Callable[..., Any]
    outputs: Callable[[ProjectFile], Iterable[Path]]
    shards: Callable[[ProjectFile], int] | None = None
    media: bool = False
    # A folder of the knowledge base that only this stage writes: reads below it are no inputs.
    folder: str | None = None
    # Further facts that must not change, from its output files and the facts of the last run.
    facts: Callable[[ProjectFile, Sequence[Path], Mapping[str, Any]], Mapping[str, Any]] | None = None
    # Output files that it reuses if they exist: an altered one is removed before the stage runs.
    reuses: Callable[[Path], bool] = lambda path: False


@dataclass(frozen=True)
class StageResult:
    """What a stage did: seconds of work (of the run that did it, if skipped), and its counts.

    `why`: why a stage that had run before ran again.
    """

    name: str
    seconds: float
    skipped: bool
    summary: dict[str, Any]
    why: str | None = None
