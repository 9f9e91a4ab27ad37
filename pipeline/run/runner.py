"""Run the stages of the main job, and skip those that are finished and not stale (pipeline/run/stale.py).

The describe stages work in shards (one Prefect task each), which are run and skipped one by one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data.errors import InputError, KnowledgeBaseError
from data.files import watched
from data.lock import write_lock
from data.readers import use_budget
from data.reads import Note, recorded
from data.seals import unseal
from data.show import duration, number, visible
from kb_builder.ask.ledger import open_ledger
from pipeline.project import ProjectFile
from pipeline.run.jobs import INGEST, find_stage, needs, plan, shards, write_metrics
from pipeline.run.marks import Mark, altered_outputs, read_mark, remove_mark, write_mark
from pipeline.run.publishing import publishing
from pipeline.run.sealing import drop_damaged, is_sealed, seal_outputs, unseal_outputs
from pipeline.run.stage import Stage, StageResult
from pipeline.run.stale import (
    hashes,
    media_checked_once,
    media_is_current,
    require_current_before,
    shard_key,
    why_media_stale,
    why_part_stale,
    why_stale,
)

_MOST_COUNTS = 20  # of one kind in a line: there may be a thousand categories


def run_stage(project: ProjectFile, name: str) -> StageResult:
    """Run one stage, or skip it when it is not stale.

    Raises KnowledgeBaseError when a stage that it needs has not run or another process works on this project,
    and the UniBindErrors of the stage; the stage is then not marked as done, and the next call resumes it.
    """
    stage = find_stage(name)
    drop_damaged(project)
    require_needs(project, stage)
    if name == "evaluate":
        _set_heads_aside(project)
    why = why_stale(project, name)
    if why is None:
        done = read_mark(project, name)
        assert done is not None  # it is not stale
        if not is_sealed(project, stage):  # run by an earlier version, or the checksum list was lost
            with write_lock(project.run / "run.lock"):
                seal_outputs(project, stage)
        return StageResult(name, done["seconds"], True, done["summary"])
    ran_before = read_mark(project, name) is not None
    use_budget(project.data.budget)
    if stage.shards is None:
        with write_lock(project.run / "run.lock", stage.name) as still_there:
            for path in filter(stage.reuses, altered_outputs(project, name)):
                path.unlink()
            unseal_outputs(project, stage)
            with recorded() as recorder:
                summary, seconds = timed(stage.run, project)
                outputs = list(stage.outputs(project))
                notes = recorder.notes(own=_own(project, stage, outputs))
            facts = stage.facts(project, outputs, {}) if stage.facts else {}
            still_there()
            _complete(project, stage, seconds, summary, outputs, facts, notes)
    else:
        parts = _run_shards(project, stage, shards(project, name))
        summary = _add_up(part["summary"] for part in parts)
        seconds = sum(part["seconds"] for part in parts)
        with write_lock(project.run / "run.lock"):
            _complete(project, stage, seconds, summary, list(stage.outputs(project)), {"shards": len(parts)})
    return StageResult(name, seconds, False, summary, why if ran_before else None)


def _complete(
    project: ProjectFile,
    stage: Stage,
    seconds: float,
    summary: dict[str, Any],
    outputs: list[Path],
    facts: Mapping[str, Any],
    notes: Iterable[Note] = (),
) -> None:
    """Mark a stage as done and write the checksums of its files. The caller holds the run's lock."""
    write_mark(
        project,
        stage.name,
        hashes=hashes(project, stage),
        seconds=seconds,
        summary=summary,
        outputs=outputs,
        notes=notes,
        facts=facts,
        asked=stage.name == "train" and not project.train.enabled,
    )
    seal_outputs(project, stage)


def run_stages(project: ProjectFile, names: Iterable[str]) -> list[StageResult]:
    """Run stages in order, printing on stderr which ran and which were skipped; then write metrics.json.

    Raises InputError where a stage before the first of them is stale (`require_current_before`), and as
    `publishing` does.
    """
    names = list(names)
    require_current_before(project, names[0])
    with media_checked_once(), publishing(project, names) as stage_done:
        return _run_stages(project, names, stage_done)


def _run_stages(
    project: ProjectFile, names: Iterable[str], stage_done: Callable[[], None]
) -> list[StageResult]:
    results = []
    for name in names:
        print(f"▸ {name}", file=sys.stderr, flush=True)
        result = run_stage(project, name)
        if name == INGEST:
            media_is_current(project)
        text = "skipped: nothing it depends on has changed" if result.skipped else duration(result.seconds)
        if result.why:
            text += f"; run again: {visible(result.why)}"
        counts = ", ".join(f"{visible(key)} {number(value)}" for key, value in _flat(result.summary))
        print(f"  {name}: {text}{f'  ({counts})' if counts else ''}", file=sys.stderr, flush=True)
        results.append(result)
        if not result.skipped:
            stage_done()
    if (project.run / "evaluation.json").exists():
        write_metrics(project, results)
    return results


def run_shard(project: ProjectFile, name: str, shard: int) -> dict[str, Any]:
    """Run one shard of a describe stage, or skip it when it is not stale. Returns its seconds and summary."""
    stage = find_stage(name)
    drop_damaged(project)
    require_needs(project, stage)
    (done,) = _run_shards(project, stage, [shard])
    return {"seconds": done["seconds"], "summary": done["summary"]}


def _run_shards(project: ProjectFile, stage: Stage, numbers: list[int]) -> list[Mark]:
    """Run the shards that are stale, all in one pipeline; each is marked when it completes.

    A shard's seconds count from the completion of the one before: they add up to the stage's.
    """
    done: dict[int, Mark | None] = {}
    same_media = why_media_stale(project, stage) is None
    for shard in numbers:
        current = same_media and why_part_stale(project, stage, shard_key(stage, shard), shard) is None
        done[shard] = read_mark(project, shard_key(stage, shard)) if current else None
    missing = [shard for shard in numbers if done[shard] is None]
    if missing:
        use_budget(project.data.budget)
        with write_lock(project.run / "run.lock", stage.name) as still_there, recorded() as recorder:
            unseal_outputs(project, stage)
            clock = time.perf_counter()

            def complete(shard: int, summary: dict[str, Any]) -> None:
                nonlocal clock
                now = time.perf_counter()
                seconds, clock = round(now - clock, 3), now
                outputs = list(stage.outputs(project))
                written = [path for path in outputs if _part_number(path) == shard]
                still_there()
                done[shard] = write_mark(
                    project,
                    shard_key(stage, shard),
                    hashes=hashes(project, stage, shard),
                    seconds=seconds,
                    summary=summary,
                    outputs=written,
                    notes=recorder.notes(own=_own(project, stage, outputs)),
                    facts=stage.facts(project, written, {}) if stage.facts else {},
                )

            timed(stage.run, project, missing, complete)
    lacking = [shard for shard in numbers if done[shard] is None]
    if lacking:
        raise RuntimeError(f"{stage.name} returned without completing shards {lacking}")
    return [each for each in done.values() if each is not None]


def forget_failed(project: ProjectFile) -> int:
    """Let the describe stages repeat requests that failed for good in earlier runs; returns their number.

    Answers stay in the ledger and are not requested again.
    """

    async def forget() -> int:
        async with open_ledger(project.kb) as ledger:
            return await ledger.forget_failed()

    if not (project.kb / "ledger.sqlite").is_file():
        return 0
    with write_lock(project.run / "run.lock"):
        count = asyncio.run(forget())
        for mark in (project.run / "stages").glob("describe-*.json") if count else ():
            mark.unlink()
    return count


def digest(project: ProjectFile, name: str) -> str:
    """The hash of all files that a finished stage wrote. Raises KnowledgeBaseError where it has not run."""
    done = read_mark(project, name)
    if done is None:
        raise KnowledgeBaseError(
            f"stage {name!r} has not been run for project {project.name!r}; run it first"
        )
    return str(done.get("digest"))


def _set_heads_aside(project: ProjectFile) -> None:
    """Move trained heads to `unused/` where training has been switched off since.

    They are kept, as they may have cost hours.
    """
    if "train" in plan(project) or read_mark(project, "train") is None:
        return
    with write_lock(project.run / "run.lock"):
        aside = project.run / "unused"
        unseal(project.run, "train")
        for path in find_stage("train").outputs(project):
            if path.exists():
                aside.mkdir(exist_ok=True)
                path.replace(aside / path.name)
        remove_mark(project, "train")
    print(
        f"  note: [train] enabled = false: the heads that were trained before are kept in {aside}, unused",
        file=sys.stderr,
        flush=True,
    )


def _part_number(path: Path) -> int:
    """The shard a part file belongs to: 7 for `part-00007.parquet`."""
    return int(path.stem.rsplit("-", 1)[1])


def timed(function: Callable[..., Any], project: ProjectFile, *arguments: Any) -> tuple[Any, float]:
    """What a stage's function returns, and its seconds.

    Raises KnowledgeBaseError where the knowledge base was removed meanwhile: a stage that lists its files
    would be marked as done with half of them.
    """
    started = time.perf_counter()
    try:
        with watched(project.kb) as still_there:
            summary = function(project, *arguments)
            if not still_there():
                raise KnowledgeBaseError(
                    f"{project.kb} was removed or replaced while it was written; run again"
                )
    except OSError as error:
        raise _disk_error(error) from error
    return summary, round(time.perf_counter() - started, 3)


def _disk_error(error: OSError) -> InputError:
    where = f" ({error.filename})" if error.filename else ""
    return InputError(
        f"{error.strerror or error}{where}; nothing is lost: fix that and run the same command again"
    )


def _own(project: ProjectFile, stage: Stage, outputs: Iterable[Path]) -> Callable[[str], bool]:
    """Which paths a stage writes itself; its reads of these are no inputs."""
    written = {str(path) for path in outputs}
    folder = f"{project.kb / stage.folder}/" if stage.folder else None
    return lambda path: path in written or (folder is not None and path.startswith(folder))


def require_needs(project: ProjectFile, stage: Stage) -> None:
    """Raise KnowledgeBaseError where a stage that a stage needs has not run."""
    for need in needs(project, stage):
        digest(project, need)


def _add_up(summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The counts of several shards as one: numbers added, lists joined, dicts added key by key."""
    total: dict[str, Any] = {}
    for summary in summaries:
        for key, value in summary.items():
            if key not in total:
                total[key] = value
            elif isinstance(value, dict):
                total[key] = _add_up([total[key], value])
            elif value is None or total[key] is None:  # an unknown cost makes the sum unknown
                total[key] = None
            else:
                total[key] = total[key] + value
    return total


def _flat(summary: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """A summary's counts with their names; for a list or a long dict (of categories), its length."""
    for key, value in summary.items():
        if isinstance(value, dict) and len(value) > _MOST_COUNTS:
            yield f"{prefix}{key}", len(value)
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        elif value is None and key.endswith("_usd"):
            yield f"{prefix}{key}", "unknown"
        elif value is not None and (not isinstance(value, list) or value):
            yield f"{prefix}{key}", len(value) if isinstance(value, list) else value
