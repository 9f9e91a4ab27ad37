"""The main job as a list of stages, each recognised by a fingerprint and skipped when nothing has changed.

    world → ingest → describe-categories → describe-samples → encode → localize → train → evaluate → report

A stage's fingerprint is the hash of its settings, of its code, of the files it reads from outside, and of what
the stages before it put out. A finished stage leaves `<run>/stages/<name>.json` with that fingerprint and the
size and hash of every file it wrote; it is skipped as long as all of these still hold. The describe stages
work in shards (one Prefect task each), recognised in the same way one by one.
"""

from __future__ import annotations

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
from data.manifest import read_manifest, resolve
from pipeline.project import TABLETOP, Project

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class StageResult:
    """What a stage did: seconds of work (of the run that did it, when skipped) and its own counts."""

    name: str
    seconds: float
    skipped: bool
    summary: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage. `run` returns the counts to report; a sharded stage has `shards` and takes one as second argument."""

    name: str
    needs: tuple[str, ...]
    code: tuple[str, ...]  # the folders and files whose source is part of the fingerprint
    settings: Callable[[Project], Any]
    run: Callable[..., dict[str, Any]]
    outputs: Callable[[Project], Iterable[Path]]
    reads: Callable[[Project], Any] = lambda project: None  # files from outside, as something to hash
    shards: Callable[[Project], int] | None = None


# --- what each stage calls; heavy imports stay inside, so that `unibind --help` needs none of them -------------


def _world(project: Project) -> dict[str, Any]:
    if project.data.manifest != TABLETOP:
        return {"made": 0}
    from data.tabletop import build_world

    build_world(project.manifest.parent, project.tabletop)
    return {"made": len(read_manifest(project.manifest, categories=project.categories).samples)}


def _world_outputs(project: Project) -> Iterable[Path]:
    return (path for path in (project.run / "world").rglob("*") if path.is_file())


def _ingest(project: Project) -> dict[str, Any]:
    from kb_builder.ingest import ingest

    return ingest(read_manifest(project.manifest, categories=project.categories), project.kb)


def _media_stats(project: Project) -> Any:
    """Name, size and time of change of every sample, so that an edited photo is noticed without reading it."""
    manifest = read_manifest(project.manifest, categories=project.categories)
    stats = []
    for sample in manifest.samples:
        path = resolve(manifest.root, sample.uri)
        stat = path.stat() if path.exists() else None
        stats.append((sample, stat and (stat.st_size, stat.st_mtime_ns)))
    return [manifest.categories, stats]


def _category_shards(project: Project) -> int:
    from kb_builder.describe_categories import category_shard_count

    return category_shard_count(project.kb, project.describe.categories)


def _describe_categories(project: Project, shard: int) -> dict[str, Any]:
    from kb_builder.describe_categories import describe_category_shard

    return describe_category_shard(project.kb, shard, project.describe.categories, run_id=project.name)


def _sample_shards(project: Project) -> int:
    from kb_builder.describe_samples import sample_shard_count

    return sample_shard_count(project.kb, project.describe.samples)


def _describe_samples(project: Project, shard: int) -> dict[str, Any]:
    from kb_builder.describe_samples import describe_sample_shard

    return describe_sample_shard(
        project.kb, project.manifest.parent, shard, project.describe.samples, run_id=project.name
    )


def _encode(project: Project) -> dict[str, Any]:
    from kb_builder.controls import write_controls
    from kb_builder.embed import embed_samples, embed_texts

    controls = write_controls(project.kb, count=project.localize.k, seed=project.seed)
    texts = embed_texts(project.kb, project.encode)
    samples = embed_samples(project.kb, project.manifest.parent, project.encode)
    return {"controls": controls, "texts": texts, "samples": samples}


def _encode_outputs(project: Project) -> Iterable[Path]:
    yield project.kb / "controls.parquet"
    yield from (path for path in (project.kb / "embeddings").rglob("*") if path.is_file())


def _localize(project: Project) -> dict[str, Any]:
    from trainer.centers import localize

    return localize(project.kb, project.localize)


def _train(project: Project) -> dict[str, Any]:
    from trainer.train import train

    return train(project.kb, project.run, project.train)


def _evaluate(project: Project) -> dict[str, Any]:
    from trainer.evaluate import evaluate

    write_json(project.run / "evaluation.json", evaluate(project.kb, project.run, project.evaluate))
    return {}


def _report(project: Project) -> dict[str, Any]:
    from pipeline.report import write_report

    metrics = write_metrics(project)
    write_report(
        title=project.name,
        run=project.run,
        kb=project.kb,
        data_root=project.manifest.parent,
        metrics=metrics,
        target=project.run / "report.html",
    )
    return {}


def _table_files(project: Project, *parts: str) -> list[Path]:
    return sorted(path for part in parts for path in project.kb.glob(part))


_STAGES = (
    Stage(
        name="world",
        needs=(),
        code=("data/tabletop",),
        settings=lambda project: [project.data.manifest == TABLETOP, project.tabletop],
        run=_world,
        outputs=_world_outputs,
    ),
    Stage(
        name="ingest",
        needs=("world",),
        code=("data", "kb_builder/ingest.py", "kb_builder/schemas.py"),
        settings=lambda project: project.data.model_dump(),
        run=_ingest,
        outputs=lambda project: _table_files(
            project, "categories.parquet", "samples.parquet", "given_descriptions.parquet", "rejects/ingest.parquet"
        ),
        reads=_media_stats,
    ),
    Stage(
        name="describe-categories",
        needs=("ingest",),
        code=("kb_builder",),
        settings=lambda project: project.describe.categories,
        run=_describe_categories,
        outputs=lambda project: _table_files(project, "descriptions/category/*.parquet"),
        shards=_category_shards,
    ),
    Stage(
        name="describe-samples",
        needs=("ingest",),
        code=("data", "kb_builder"),
        settings=lambda project: project.describe.samples,
        run=_describe_samples,
        outputs=lambda project: _table_files(
            project, "descriptions/sample/*.parquet", "rejects/describe-*.parquet"
        ),
        shards=_sample_shards,
    ),
    Stage(
        name="encode",
        needs=("describe-categories", "describe-samples"),
        code=("data", "kb_builder"),
        settings=lambda project: [project.encode, project.localize.k, project.seed],
        run=_encode,
        outputs=_encode_outputs,
    ),
    Stage(
        name="localize",
        needs=("encode",),
        code=("trainer", "kb_builder/store.py"),
        settings=lambda project: project.localize,
        run=_localize,
        outputs=lambda project: [project.kb / "centers.parquet"],
    ),
    Stage(
        name="train",
        needs=("localize",),
        code=("trainer", "kb_builder/store.py"),
        settings=lambda project: project.train,
        run=_train,
        outputs=lambda project: [project.run / "heads.safetensors", project.run / "train_log.parquet"],
    ),
    Stage(
        name="evaluate",
        needs=("train",),
        code=("trainer", "kb_builder/store.py"),
        settings=lambda project: project.evaluate,
        run=_evaluate,
        outputs=lambda project: [project.run / "evaluation.json"],
    ),
    Stage(
        name="report",
        needs=("evaluate",),
        code=("pipeline", "data/render"),
        settings=lambda project: None,
        run=_report,
        outputs=lambda project: [project.run / "report.html"],
    ),
)
_BY_NAME = {stage.name: stage for stage in _STAGES}

STAGES: tuple[str, ...] = tuple(_BY_NAME)


# --- running -----------------------------------------------------------------------------------------------


def run_stage(project: Project, name: str) -> StageResult:
    """Run one stage, or skip it when its fingerprint and its outputs still hold.

    Raises KnowledgeBaseError when a stage before it has not run, and whatever UniBindError the stage raises;
    then nothing is marked as done and the next call goes on where this one stopped.
    """
    stage = _stage(name)
    fingerprint = _fingerprint(project, stage)
    done = _finished(project, name, fingerprint)
    if done is not None:
        return StageResult(name, done["seconds"], True, done["summary"])
    if stage.shards is None:
        summary, seconds = _timed(stage.run, project)
    else:
        parts = [run_shard(project, name, shard) for shard in shards(project, name)]
        _remove_parts_beyond(project, stage, len(parts))
        summary = _add_up(part["summary"] for part in parts)
        seconds = sum(part["seconds"] for part in parts)
    _mark(project, name, fingerprint, seconds, summary, stage.outputs(project))
    return StageResult(name, seconds, False, summary)


def run_stages(project: Project, names: Iterable[str]) -> list[StageResult]:
    """Run stages in order, saying on stderr what was done and what was skipped; then write metrics.json."""
    results = []
    for name in names:
        print(f"▸ {name}", file=sys.stderr, flush=True)
        result = run_stage(project, name)
        told = "skipped: nothing it depends on has changed" if result.skipped else f"{result.seconds:.1f} s"
        counts = ", ".join(f"{key} {value}" for key, value in _flat(result.summary))
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
    stage = _stage(name)
    fingerprint = hash_json([_fingerprint(project, stage), shard])
    key = f"{name}-{shard:05d}"
    done = _finished(project, key, fingerprint)
    if done is None:
        summary, seconds = _timed(stage.run, project, shard)
        written = [path for path in stage.outputs(project) if _part_number(path) == shard]
        done = _mark(project, key, fingerprint, seconds, summary, written)
    return {"seconds": done["seconds"], "summary": done["summary"]}


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
    """The stages of a whole run: all of them, without training where the project has it off and never trained."""
    trains = project.train.enabled or _state(project, "train") is not None
    return [name for name in STAGES if trains or name != "train"]


def _part_number(path: Path) -> int:
    """The shard a part file belongs to: 7 for `part-00007.parquet`."""
    return int(path.stem.rsplit("-", 1)[1])


def _remove_parts_beyond(project: Project, stage: Stage, count: int) -> None:
    """Remove the parts of shards that no longer are, lest a glob reads their rows beside the new ones."""
    for path in stage.outputs(project):
        if _part_number(path) >= count:
            path.unlink()


def _stage(name: str) -> Stage:
    if name not in _BY_NAME:
        raise InputError(f"there is no stage {name!r}; the stages are: {', '.join(STAGES)}")
    return _BY_NAME[name]


def _timed(function: Callable[..., dict[str, Any]], *arguments: Any) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    try:
        summary = function(*arguments)
    except OSError as error:
        raise _disk_error(error) from error
    return summary, round(time.perf_counter() - started, 3)


def _disk_error(error: OSError) -> InputError:
    where = f" ({error.filename})" if error.filename else ""
    return InputError(f"{error.strerror or error}{where}; nothing is lost: mend that and run the same command again")


def _fingerprint(project: Project, stage: Stage) -> str:
    return hash_json(
        {
            "settings": stage.settings(project),
            "code": [_code_hash(place) for place in stage.code],
            "reads": stage.reads(project),
            "needs": [_digest(project, need) for need in _needs(project, stage)],
        }
    )


def _needs(project: Project, stage: Stage) -> list[str]:
    """The stages before this one that count: evaluation without heads is zero-shot and needs no training."""
    if stage.name == "evaluate" and "train" not in plan(project):
        return ["localize"]
    return list(stage.needs)


def _digest(project: Project, name: str) -> str:
    done = _state(project, name)
    if done is None:
        raise KnowledgeBaseError(f"stage {name!r} has not been run for project {project.name!r}; run it first")
    return str(done["digest"])


@cache
def _code_hash(place: str) -> str:
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
    """The record of a finished stage if its fingerprint holds and every file it wrote is still there, unchanged."""
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
    project: Project, key: str, fingerprint: str, seconds: float, summary: dict[str, Any], outputs: Iterable[Path]
) -> dict[str, Any]:
    written = {
        path.relative_to(project.run).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns, hash_file(path))
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
            else:
                total[key] = total[key] + value
    return total


def _flat(summary: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in summary.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        elif not isinstance(value, list) or value:
            yield f"{prefix}{key}", len(value) if isinstance(value, list) else value


