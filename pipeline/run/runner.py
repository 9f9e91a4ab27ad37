"""Run the stages of the main job, each recognised by what it was made from and skipped while that holds.

A finished stage leaves a mark (pipeline/run/marks.py): the hash of the settings that it uses, of the code
that it can reach (pipeline/run/code.py), of all that it read (data/reads.py) and of every file it wrote. It
is skipped as long as all of these hold. What counts of a file is its content: a stage that runs again and
puts out the same bytes leaves the later ones alone. The describe stages work in shards (one Prefect task
each), recognised in the same way one by one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_json, watched
from data.lock import write_lock
from data.readers import use_budget
from data.reads import Note, recorded
from data.seals import unseal
from data.show import duration, number, visible
from kb_builder.ask.ledger import open_ledger
from pipeline.project import ProjectFile
from pipeline.run.code import code_hash
from pipeline.run.jobs import STAGES, write_metrics
from pipeline.run.marks import altered, read_mark, remove_mark, spoiled, write_mark
from pipeline.run.sealing import drop_damaged, is_sealed, seal_outputs, unseal_outputs
from pipeline.run.stage import Stage, StageResult

_MOST_COUNTS = 20  # of one kind in a line: there may be a thousand categories
_BY_NAME = {stage.name: stage for stage in STAGES}
_INGEST = "ingest"  # the stage that notes the contents of the samples' files
_media: dict[Path, str | None] = {}  # what was found of them, for as long as `_looking_once` says

_LOOKING_ONCE = Path()

STAGE_NAMES: tuple[str, ...] = tuple(_BY_NAME)


def run_stage(project: ProjectFile, name: str) -> StageResult:
    """Run one stage, or skip it when all that it was made from, and its outputs, still hold.

    Raises KnowledgeBaseError when a stage before it has not run or another process works on this project,
    and whatever UniBindError the stage raises; then nothing is marked as done and the next call goes on where
    this one stopped.
    """
    stage = _stage(name)
    drop_damaged(project)
    _require_needs(project, stage)
    if name == "evaluate":
        _set_heads_aside(project)
    why = why_stale(project, name)
    if why is None:
        done = read_mark(project, name)
        assert done is not None  # it is not stale
        if not is_sealed(project, stage):  # of an earlier version, or the list was lost
            with write_lock(project.run / "run.lock"):
                seal_outputs(project, stage)
        return StageResult(name, done["seconds"], True, done["summary"])
    ran_before = read_mark(project, name) is not None
    use_budget(project.data.budget)
    if stage.shards is None:
        with write_lock(project.run / "run.lock") as still_there:
            for path in filter(stage.reuses, spoiled(project, name)):
                path.unlink()
            unseal_outputs(project, stage)
            with recorded() as recorder:
                summary, seconds = _timed(stage.run, project)
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
    """Mark a whole stage as done and write the checksums of its files; the caller holds the run's lock."""
    write_mark(
        project,
        stage.name,
        hashes=_hashes(project, stage),
        seconds=seconds,
        summary=summary,
        outputs=outputs,
        notes=notes,
        facts=facts,
        asked=stage.name == "train" and not project.train.enabled,
    )
    seal_outputs(project, stage)


def is_current(project: ProjectFile, name: str) -> bool:
    """Whether a stage has run on what is there now, with these settings and this code."""
    stage = _stage(name)
    if any(read_mark(project, need) is None for need in _needs(project, stage)):
        return False
    return why_stale(project, name) is None


def why_stale(project: ProjectFile, name: str) -> str | None:
    """Why a stage is to run (again), in a few words: what has changed; None where it is to be skipped."""
    stage = _stage(name)
    if stage.shards is None:
        return _why_stale(project, stage, name) or _why_media_stale(project, stage)
    # Of the whole stage the files count, of each shard what it was made from.
    try:
        numbers = shards(project, name)
    except KnowledgeBaseError as error:
        return str(error)
    whole = altered(project, name, hashes=_hashes(project, stage), facts=lambda _: {"shards": len(numbers)})
    if whole is not None:
        return whole
    for shard in numbers:
        if reason := _why_stale(project, stage, _key(stage, shard), shard):
            return reason
    return _why_media_stale(project, stage)


def require_ground(project: ProjectFile, name: str) -> None:
    """Raise InputError where a stage before `name` would have to run again, saying what changed.

    Whoever trains or evaluates alone goes by what the stages before put out; so it must be of today's files
    and settings. A stage that has not run at all is told by `run_stage`. Where only our code is another, or
    the manifest is not here (a knowledge base may be trained on where its samples are not), that is said on
    stderr and no reason to stop.
    """
    before = [
        each for each in STAGE_NAMES[: STAGE_NAMES.index(name)] if each != "train" or "train" in plan(project)
    ]
    with _looking_once():
        _require_ground(project, before)


def _require_ground(project: ProjectFile, before: Iterable[str]) -> None:
    for each in before:
        if read_mark(project, each) is None:
            continue
        why = why_stale(project, each)
        if why is None:
            continue
        away = not project.manifest.exists()
        if why.endswith("its code changed") or (away and _stage(each).media | (each == _INGEST)):
            told = f"the manifest {project.manifest} is not here" if away else f"{each}: {why}"
            print(f"  note: {told}; going on with what `{each}` put out", file=sys.stderr, flush=True)
            continue
        file = "" if project.path.name == "unibind.toml" else f" --project {project.path.name}"
        raise InputError(f"{why} since `{each}` ran; run `unibind run{file}` to bring the project up to date")


def run_stages(project: ProjectFile, names: Iterable[str]) -> list[StageResult]:
    """Run stages in order, saying on stderr what was done and what was skipped; then write metrics.json.

    Raises InputError where a stage before the first of them is not current (`require_ground`).
    """
    names = list(names)
    require_ground(project, names[0])
    with _looking_once():
        return _run_stages(project, names)


def _run_stages(project: ProjectFile, names: Iterable[str]) -> list[StageResult]:
    results = []
    for name in names:
        print(f"▸ {name}", file=sys.stderr, flush=True)
        result = run_stage(project, name)
        if name == _INGEST:
            _media[project.run] = None  # it has just looked at them
        told = "skipped: nothing it depends on has changed" if result.skipped else duration(result.seconds)
        if result.why:
            told += f"; run again: {visible(result.why)}"
        counts = ", ".join(f"{visible(key)} {number(value)}" for key, value in _flat(result.summary))
        print(f"  {name}: {told}{f'  ({counts})' if counts else ''}", file=sys.stderr, flush=True)
        results.append(result)
    if (project.run / "evaluation.json").exists():
        write_metrics(project, results)
    return results


def shards(project: ProjectFile, name: str) -> list[int]:
    """The shards of a stage: [0, 1, …] for the describe stages, [0] for every other."""
    stage = _stage(name)
    return list(range(stage.shards(project))) if stage.shards else [0]


def run_shard(project: ProjectFile, name: str, shard: int) -> dict[str, Any]:
    """Run one shard of a describe stage, or skip it when it is done. Returns its seconds and summary."""
    stage = _stage(name)
    drop_damaged(project)
    _require_needs(project, stage)
    (done,) = _run_shards(project, stage, [shard])
    return {"seconds": done["seconds"], "summary": done["summary"]}


def _run_shards(project: ProjectFile, stage: Stage, numbers: list[int]) -> list[dict[str, Any]]:
    """Run those of the shards that are not done, all in one pipeline; each is marked as it is completed.

    A shard's seconds are those since the one before it was completed: they add up to the stage's.
    """
    done: dict[int, dict[str, Any] | None] = {}
    same_media = _why_media_stale(project, stage) is None
    for shard in numbers:
        current = same_media and _why_stale(project, stage, _key(stage, shard), shard) is None
        done[shard] = read_mark(project, _key(stage, shard)) if current else None
    missing = [shard for shard in numbers if done[shard] is None]
    if missing:
        use_budget(project.data.budget)
        with write_lock(project.run / "run.lock") as still_there, recorded() as recorder:
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
                    _key(stage, shard),
                    hashes=_hashes(project, stage, shard),
                    seconds=seconds,
                    summary=summary,
                    outputs=written,
                    notes=recorder.notes(own=_own(project, stage, outputs)),
                    facts=stage.facts(project, written, {}) if stage.facts else {},
                )

            _timed(stage.run, project, missing, complete)
    lacking = [shard for shard in numbers if done[shard] is None]
    if lacking:
        raise RuntimeError(f"{stage.name} returned without completing shards {lacking}")
    return [each for each in done.values() if each is not None]


def forget_failed(project: ProjectFile) -> int:
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


def plan(project: ProjectFile) -> list[str]:
    """The stages of a whole run: without training where the project has it off.

    Where `unibind train` was asked for in a project that has it off, a whole run keeps its heads up to date.
    """
    trains = project.train.enabled or bool((read_mark(project, "train") or {}).get("asked"))
    return [name for name in STAGE_NAMES if trains or name != "train"]


def digest(project: ProjectFile, name: str) -> str:
    """The hash of all that a finished stage wrote. Raises KnowledgeBaseError where it has not run."""
    done = read_mark(project, name)
    if done is None:
        raise KnowledgeBaseError(
            f"stage {name!r} has not been run for project {project.name!r}; run it first"
        )
    return str(done.get("digest"))


def _set_heads_aside(project: ProjectFile) -> None:
    """Where training was switched off after the heads were trained, nothing uses them any longer.

    They are kept, for they may have cost hours.
    """
    if "train" in plan(project) or read_mark(project, "train") is None:
        return
    with write_lock(project.run / "run.lock"):
        aside = project.run / "unused"
        unseal(project.run, "train")
        for path in _stage("train").outputs(project):
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


def _key(stage: Stage, shard: int) -> str:
    return f"{stage.name}-{shard:05d}"


def _stage(name: str) -> Stage:
    if name not in _BY_NAME:
        raise InputError(f"there is no stage {name!r}; the stages are: {', '.join(STAGE_NAMES)}")
    return _BY_NAME[name]


def _timed(function: Callable[..., Any], project: ProjectFile, *arguments: Any) -> tuple[Any, float]:
    """What a stage's function returns, and its seconds.

    Raises where the knowledge base was removed meanwhile: a stage that lists what it finds would be marked as
    done with half of its files.
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


def _hashes(project: ProjectFile, stage: Stage, shard: int | None = None) -> dict[str, str]:
    return {
        "settings": hash_json([stage.settings(project), shard]),
        "code": code_hash(stage.run),
    }


def _why_stale(project: ProjectFile, stage: Stage, key: str, shard: int | None = None) -> str | None:
    facts = stage.facts

    def known(before: Mapping[str, Any]) -> Mapping[str, Any]:
        if facts is None:
            return before
        return facts(project, _outputs_of(project, key), before)

    return altered(project, key, hashes=_hashes(project, stage, shard), facts=known)


def _why_media_stale(project: ProjectFile, stage: Stage) -> str | None:
    """What changed of the samples' files since ingest noted them, for a stage that opens them."""
    if not stage.media:
        return None
    if project.run in _media:
        return _media[project.run]
    why = _why_stale(project, _stage(_INGEST), _INGEST)
    if _LOOKING_ONCE in _media:
        _media[project.run] = why
    return why


@contextmanager
def _looking_once() -> Iterator[None]:
    """Look at the samples' files once, however many stages ask: of a million it takes a while."""
    outer = _LOOKING_ONCE in _media
    _media[_LOOKING_ONCE] = None
    try:
        yield
    finally:
        if not outer:
            _media.clear()


def _own(project: ProjectFile, stage: Stage, outputs: Iterable[Path]) -> Callable[[str], bool]:
    """Which paths are of files that a stage writes, and so nothing that it stands on."""
    written = {str(path) for path in outputs}
    folder = f"{project.kb / stage.folder}/" if stage.folder else None
    return lambda path: path in written or (folder is not None and path.startswith(folder))


def _outputs_of(project: ProjectFile, key: str) -> Sequence[Path]:
    mark = read_mark(project, key)
    return [project.run / name for name in mark.get("outputs", ())] if mark else []


def _require_needs(project: ProjectFile, stage: Stage) -> None:
    for need in _needs(project, stage):
        digest(project, need)


def _needs(project: ProjectFile, stage: Stage) -> list[str]:
    """The stages before this one that count: evaluation without heads is zero-shot and needs no training."""
    if stage.name == "evaluate" and "train" not in plan(project):
        return ["localize"]
    return list(stage.needs)


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
