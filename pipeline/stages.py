"""Run the stages of the main job, each recognised by a fingerprint and skipped when nothing has changed.

A stage's fingerprint is the hash of its settings, its code, the files it reads from outside, and what the
stages before it put out. A finished stage leaves `<run>/stages/<name>.json` with that fingerprint and the
size and hash of every file it wrote; it is skipped as long as all of these still hold. The describe stages
work in shards (one Prefect task each), recognised in the same way one by one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_file, hash_json, write_json
from data.readers import use_budget
from data.show import duration, number, visible
from kb_builder.ledger import open_ledger
from kb_builder.lock import write_lock
from pipeline.jobs import STAGES as _STAGES
from pipeline.jobs import Stage
from pipeline.project import Project

_MOST_COUNTS = 20  # of one kind in a line: there may be a thousand categories
_ROOT = Path(__file__).parent.parent
_BY_NAME = {stage.name: stage for stage in _STAGES}

STAGES: tuple[str, ...] = tuple(_BY_NAME)


@dataclass(frozen=True)
class StageResult:
    """What a stage did: seconds of work (of the run that did it, when skipped) and its own counts."""

    name: str
    seconds: float
    skipped: bool
    summary: dict[str, Any]


def run_stage(project: Project, name: str) -> StageResult:
    """Run one stage, or skip it when its fingerprint and its outputs still hold.

    Raises KnowledgeBaseError when a stage before it has not run or another process works on this project,
    and whatever UniBindError the stage raises; then nothing is marked as done and the next call goes on where
    this one stopped.
    """
    stage = _stage(name)
    fingerprint = _fingerprint(project, stage)
    done = _finished(project, name, fingerprint)
    if done is not None:
        return StageResult(name, done["seconds"], True, done["summary"])
    use_budget(project.data.budget)
    if stage.shards is None:
        with write_lock(project.run / "run.lock"):
            summary, seconds = _timed(stage.run, project)
            _mark(project, name, fingerprint, seconds, summary, stage.outputs(project))
    else:
        parts = _run_shards(project, stage, shards(project, name))
        summary = _add_up(part["summary"] for part in parts)
        seconds = sum(part["seconds"] for part in parts)
        with write_lock(project.run / "run.lock"):
            _mark(project, name, fingerprint, seconds, summary, stage.outputs(project))
    return StageResult(name, seconds, False, summary)


def is_current(project: Project, name: str) -> bool:
    """Whether a stage has run on what those before it last put out, with these settings and this code."""
    stage = _stage(name)
    if any(_state(project, need) is None for need in _needs(project, stage)):
        return False
    return _finished(project, name, _fingerprint(project, stage)) is not None


def run_stages(project: Project, names: Iterable[str]) -> list[StageResult]:
    """Run stages in order, saying on stderr what was done and what was skipped; then write metrics.json."""
    results = []
    for name in names:
        print(f"▸ {name}", file=sys.stderr, flush=True)
        result = run_stage(project, name)
        told = "skipped: nothing it depends on has changed" if result.skipped else duration(result.seconds)
        counts = ", ".join(f"{visible(key)} {number(value)}" for key, value in _flat(result.summary))
        print(f"  {name}: {told}{f'  ({counts})' if counts else ''}", file=sys.stderr, flush=True)
        results.append(result)
    if (project.run / "evaluation.json").exists():
        write_metrics(project, results)
    return results


def shards(project: Project, name: str) -> list[int]:
    """The shards of a stage: [0, 1, …] for the describe stages, [0] for every other."""
    stage = _stage(name)
    return list(range(stage.shards(project))) if stage.shards else [0]


def run_shard(project: Project, name: str, shard: int) -> dict[str, Any]:
    """Run one shard of a describe stage, or skip it when it is done. Returns its seconds and summary."""
    (done,) = _run_shards(project, _stage(name), [shard])
    return {"seconds": done["seconds"], "summary": done["summary"]}


def _run_shards(project: Project, stage: Stage, numbers: list[int]) -> list[dict[str, Any]]:
    """Run those of the shards that are not done, all in one pipeline; each is marked as it is completed.

    A shard's seconds are those since the one before it was completed: they add up to the stage's.
    """
    whole = _fingerprint(project, stage)
    fingerprints = {shard: hash_json([whole, shard]) for shard in numbers}
    done = {shard: _finished(project, f"{stage.name}-{shard:05d}", fingerprints[shard]) for shard in numbers}
    missing = [shard for shard in numbers if done[shard] is None]
    if missing:
        use_budget(project.data.budget)
        with write_lock(project.run / "run.lock"):
            clock = time.perf_counter()

            def complete(shard: int, summary: dict[str, Any]) -> None:
                nonlocal clock
                now = time.perf_counter()
                seconds, clock = round(now - clock, 3), now
                written = [path for path in stage.outputs(project) if _part_number(path) == shard]
                done[shard] = _mark(
                    project, f"{stage.name}-{shard:05d}", fingerprints[shard], seconds, summary, written
                )

            _timed(stage.run, project, missing, complete)
    lacking = [shard for shard in numbers if done[shard] is None]
    if lacking:
        raise RuntimeError(f"{stage.name} returned without completing shards {lacking}")
    return [each for each in done.values() if each is not None]


def forget_failed(project: Project) -> int:
    """Let the describe stages ask again what failed for good in earlier runs; returns how many requests.

    What was answered stays, and is not asked again.
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


def write_metrics(project: Project, results: Iterable[StageResult] = ()) -> dict[str, Any]:
    """Write `<run>/metrics.json`: the evaluation, with the wall time of every stage that has run."""
    skipped = {result.name: result.skipped for result in results}
    stages = [
        {"name": name, "seconds": done["seconds"], "skipped": skipped.get(name, False)}
        for name in STAGES
        if (done := _state(project, name)) is not None
    ]
    evaluation = json.loads((project.run / "evaluation.json").read_text(encoding="utf-8"))
    metrics = {"dataset": project.name, "seed": project.seed, "stages": stages, **evaluation}
    write_json(project.run / "metrics.json", metrics)
    return metrics


def plan(project: Project) -> list[str]:
    """The stages of a whole run: without training where the project has it off and never trained."""
    trains = project.train.enabled or _state(project, "train") is not None
    return [name for name in STAGES if trains or name != "train"]


def _part_number(path: Path) -> int:
    """The shard a part file belongs to: 7 for `part-00007.parquet`."""
    return int(path.stem.rsplit("-", 1)[1])


def _stage(name: str) -> Stage:
    if name not in _BY_NAME:
        raise InputError(f"there is no stage {name!r}; the stages are: {', '.join(STAGES)}")
    return _BY_NAME[name]


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    try:
        summary = function(*arguments)
    except OSError as error:
        raise _disk_error(error) from error
    return summary, round(time.perf_counter() - started, 3)


def _disk_error(error: OSError) -> InputError:
    where = f" ({error.filename})" if error.filename else ""
    return InputError(
        f"{error.strerror or error}{where}; nothing is lost: mend that and run the same command again"
    )


def _fingerprint(project: Project, stage: Stage) -> str:
    return hash_json(
        {
            "settings": stage.settings(project),
            "code": [code_hash(place) for place in stage.code],
            "reads": stage.reads(project),
            "needs": [digest(project, need) for need in _needs(project, stage)],
        }
    )


def _needs(project: Project, stage: Stage) -> list[str]:
    """The stages before this one that count: evaluation without heads is zero-shot and needs no training."""
    if stage.name == "evaluate" and "train" not in plan(project):
        return ["localize"]
    return list(stage.needs)


def digest(project: Project, name: str) -> str:
    """The hash of all that a finished stage wrote. Raises KnowledgeBaseError where it has not run."""
    done = _state(project, name)
    if done is None:
        raise KnowledgeBaseError(
            f"stage {name!r} has not been run for project {project.name!r}; run it first"
        )
    return str(done["digest"])


@cache
def code_hash(place: str) -> str:
    """The hash of the source at a place in this repository: a file or a folder."""
    path = _ROOT / place
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in {".py", ".toml"})
    return hash_json([(file.relative_to(_ROOT).as_posix(), hash_file(file)) for file in files])


def _state(project: Project, key: str) -> dict[str, Any] | None:
    path = project.run / "stages" / f"{key}.json"
    if not path.exists():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def _finished(project: Project, key: str, fingerprint: str) -> dict[str, Any] | None:
    """The record of a finished stage, if its fingerprint holds and every file it wrote is unchanged."""
    done = _state(project, key)
    if done is None or done["fingerprint"] != fingerprint:
        return None
    for name, (size, changed, digest) in done["outputs"].items():
        path = project.run / name
        if not path.exists() or path.stat().st_size != size:
            return None
        if path.stat().st_mtime_ns != changed and hash_file(path) != digest:
            return None
    return done


def _mark(
    project: Project,
    key: str,
    fingerprint: str,
    seconds: float,
    summary: dict[str, Any],
    outputs: Iterable[Path],
) -> dict[str, Any]:
    written = {
        path.relative_to(project.run).as_posix(): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hash_file(path),
        )
        for path in sorted(outputs)
    }
    digest = hash_json([(name, content) for name, (_, _, content) in written.items()])
    done = {
        "fingerprint": fingerprint,
        "seconds": seconds,
        "summary": summary,
        "outputs": written,
        "digest": digest,
    }
    write_json(project.run / "stages" / f"{key}.json", done)
    return done


def _add_up(summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts of several shards as one: numbers are added, lists joined, dicts added key by key."""
    total: dict[str, Any] = {}
    for summary in summaries:
        for key, value in summary.items():
            if key not in total:
                total[key] = value
            elif isinstance(value, dict):
                total[key] = _add_up([total[key], value])
            elif value is None or total[key] is None:  # a cost that is not known makes the sum unknown
                total[key] = None
            else:
                total[key] = total[key] + value
    return total


def _flat(summary: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """A summary's counts with their names; of a list, and of a long dict (of categories), its length."""
    for key, value in summary.items():
        if isinstance(value, dict) and len(value) > _MOST_COUNTS:
            yield f"{prefix}{key}", len(value)
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        elif value is None and key.endswith("_usd"):
            yield f"{prefix}{key}", "unknown"
        elif value is not None and (not isinstance(value, list) or value):
            yield f"{prefix}{key}", len(value) if isinstance(value, list) else value
