"""The stages: what each calls, what it writes, and which stages it needs; and which of them a run has.

    world → ingest → describe-categories → describe-contrasts → describe-samples
          → encode → localize → train → evaluate → report

pipeline/run/runner.py runs them, pipeline/run/stale.py decides which are skipped. Each call imports what it
needs itself, so that importing this list is fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError, NothingToTrainError
from data.files import write_json
from data.reads import reading
from data.seals import seal, unseal
from data.show import visible
from data.work import Carry
from kb_builder.settings import Encode
from kb_builder.weights.known import VARIABLE
from pipeline.project import TABLETOP, ProjectFile
from pipeline.run.marks import read_mark
from pipeline.run.stage import Completed, Stage, StageResult

if TYPE_CHECKING:
    from data.manifest.read import Manifest
    from kb_builder.encode.spread import Spread

# Keys of `[data]` on which the stages that decode depend; ingest, which only hashes, does not.
_BUDGET = {"seconds_per_file", "memory_per_file"}


def _manifest(project: ProjectFile) -> Manifest:
    from data.manifest.read import read_manifest

    return read_manifest(
        project.manifest,
        categories=project.categories,
        modality=project.data.modality,
        root=project.data_root,
    )


@contextmanager
def _carrying(project: ProjectFile) -> Iterator[Carry | None]:
    """What carries out orders elsewhere; None where the project's engine is this process."""
    from pipeline.engines.choose import engine_of

    with engine_of(project.running) as engine:
        yield engine.map if engine.elsewhere else None


def _world(project: ProjectFile) -> dict[str, Any]:
    if project.data.manifest != TABLETOP:
        return {}
    from data.tabletop.world import build_world

    build_world(project.manifest.parent, project.tabletop)
    return {"samples": len(_manifest(project).samples)}


def _world_settings(project: ProjectFile) -> Any:
    return project.tabletop if project.data.manifest == TABLETOP else None


def _world_outputs(project: ProjectFile) -> Iterable[Path]:
    return (path for path in (project.run / "world").rglob("*") if path.is_file())


def _ingest(project: ProjectFile) -> dict[str, Any]:
    from kb_builder.tables.ingest import ingest

    manifest = _manifest(project)
    for note in manifest.notes:
        print(f"  note: {visible(note)}", file=sys.stderr)
    with _carrying(project) as carry:
        return ingest(manifest, project.kb, up=project.data.up_axis, carry=carry, budget=project.data.budget)


def _category_shards(project: ProjectFile) -> int:
    from kb_builder.describe.categories import category_shard_count

    return category_shard_count(project.kb, project.describe.categories)


def _describe_categories(project: ProjectFile, shards: list[int], complete: Completed) -> None:
    from kb_builder.ask.budget import require_bounds
    from kb_builder.describe.categories import describe_category_shards

    settings = project.describe.categories
    require_bounds(project.kb, project.describe.samples)  # before any request for categories is paid
    describe_category_shards(
        project.kb,
        shards,
        settings,
        run_id=project.name,
        on_shard=complete,
        encoder=project.encode.text,
    )


def _describe_contrasts(project: ProjectFile) -> dict[str, Any]:
    from kb_builder.describe.added import describe_added
    from kb_builder.describe.contrasts import describe_contrasts

    settings, encoder = project.describe.categories, project.encode.text
    done = describe_contrasts(project.kb, settings, run_id=project.name, encoder=encoder)
    return done | describe_added(project.kb, settings, run_id=project.name, encoder=encoder)


def _sample_shards(project: ProjectFile) -> int:
    from kb_builder.describe.samples import sample_shard_count

    return sample_shard_count(project.kb, project.describe.samples)


def _describe_samples(project: ProjectFile, shards: list[int], complete: Completed) -> None:
    from kb_builder.describe.samples import describe_sample_shards

    with _carrying(project) as carry:
        describe_sample_shards(
            project.kb,
            project.data_root,
            shards,
            project.describe.samples,
            run_id=project.name,
            on_shard=complete,
            encoder=project.encode.text,
            carry=carry,
            budget=project.data.budget,
        )


def _described(project: ProjectFile, parts: Sequence[Path], before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ledger's answers that descriptions cite, and the descriptions' lines in the manifest of parts."""
    from kb_builder.describe.cited import cited_answers
    from kb_builder.tables.parts import lines_of

    return {
        **cited_answers(project.kb, parts, before),
        "descriptions/manifest.json": lines_of(project.kb, parts),
    }


def _described_what(settings: Any, project: ProjectFile) -> Any:
    from kb_builder.describers.choose import row_settings

    return [row_settings(settings), project.encode.text, os.environ.get(VARIABLE)]


def _encode(project: ProjectFile) -> dict[str, Any]:
    from kb_builder.encode.spread import Spread
    from pipeline.engines.choose import engine_of

    with engine_of(project.running) as engine:
        return encode_all(
            project,
            Spread(
                map=engine.map,
                elsewhere=engine.elsewhere,
                same_hardware=project.running.same_hardware,
                budget=project.data.budget,
            ),
        )


def encode_all(
    project: ProjectFile, spread: Spread, *, before_controls: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Write the controls, and the vectors of all texts and samples. Returns the counts to report.

    `before_controls` is for a share of the parts (`write_controls`).
    """
    from kb_builder.describe.name_free import name_free_texts
    from kb_builder.encode.embed import embed_samples, embed_texts
    from kb_builder.tables.controls import control_count, write_controls

    count = control_count(project.kb, project.localize.k)
    controls = write_controls(
        project.kb,
        count=count,
        seed=project.seed,
        name_free=name_free_texts(project.kb),
        before=before_controls,
    )
    texts = embed_texts(project.kb, project.encode, spread)
    samples = embed_samples(project.kb, project.data_root, project.encode, spread)
    return {"controls": controls, "texts": texts, "samples": samples}


def _encode_settings(project: ProjectFile) -> Any:
    from kb_builder.tables.controls import most_controls

    encode = asdict(project.encode)
    del encode["batch_size"]  # a vector does not depend on the rest of its batch
    for name in ("texts_per_part", "samples_per_part", "part_seconds"):
        if encode[name] == getattr(Encode(), name):  # as before there was such a setting
            del encode[name]
    most = most_controls(project.localize.k)
    return [encode, most, project.seed, project.data.budget, os.environ.get(VARIABLE)]


def _encode_outputs(project: ProjectFile) -> Iterable[Path]:
    """The files of the encoders in use; folders of other encoders stay, for when they are used again."""
    from kb_builder.store.cards import serving_folders

    yield project.kb / "controls.parquet"
    yield project.kb / "rejects" / "encode.parquet"
    yield project.kb / "embeddings" / "encoders.json"
    for folder in serving_folders(project.kb):
        yield from (path for path in folder.rglob("[!.]*") if path.is_file())


def _is_own_vectors(path: Path) -> bool:
    """Whether a file of the embedding store can be computed again; imported vectors cannot."""
    from kb_builder.encoders.imported import is_imported

    return "embeddings" in path.parts and not is_imported(path)


def _localize(project: ProjectFile) -> dict[str, Any]:
    from trainer.localize.choose import localize

    return localize(project.kb, project.localize)


def _train(project: ProjectFile) -> dict[str, Any]:
    from trainer.align.train import train

    try:
        return train(project.kb, project.run, project.train)
    except NothingToTrainError as error:
        # Go on to a report without trained heads; heads of earlier data would be wrong.
        for path in _train_outputs(project):
            path.unlink()
        print(f"  note: no heads were trained: {error}", file=sys.stderr)
        return {"not_trained": str(error)}


def _train_outputs(project: ProjectFile) -> list[Path]:
    paths = [project.run / "heads.safetensors", project.run / "train_log.parquet"]
    return [path for path in paths if path.exists()]


def _evaluate(project: ProjectFile) -> dict[str, Any]:
    from trainer.evaluate.measure import evaluate

    with _carrying(project) as carry:
        metrics = evaluate(project.kb, project.run, project.evaluate, carry)
    write_json(project.run / "evaluation.json", metrics)
    return {}


def _report(project: ProjectFile) -> dict[str, Any]:
    from pipeline.report.page import write_report

    metrics = write_metrics(project)
    write_report(
        title=project.name,
        run=project.run,
        kb=project.kb,
        data_root=project.data_root,
        metrics=metrics,
        target=project.run / "report.html",
        use=project.predict.use,
    )
    return {}


def _table_files(project: ProjectFile, *parts: str) -> list[Path]:
    return sorted(path for part in parts for path in project.kb.glob(part))


STAGES = (
    Stage(
        name="world",
        needs=(),
        settings=_world_settings,
        run=_world,
        outputs=_world_outputs,
    ),
    Stage(
        name="ingest",
        needs=("world",),
        settings=lambda project: project.data.model_dump(exclude=_BUDGET),
        run=_ingest,
        outputs=lambda project: _table_files(
            project,
            "categories.parquet",
            "samples.parquet",
            "modalities.parquet",
            "given_descriptions.parquet",
            "rejects/ingest.parquet",
        ),
    ),
    Stage(
        name="describe-categories",
        needs=("ingest",),
        settings=lambda project: _described_what(
            replace(project.describe.categories, contrast_pairs=0, contrast_texts=1), project
        ),
        run=_describe_categories,
        outputs=lambda project: _table_files(project, "descriptions/category/part-*.parquet"),
        shards=_category_shards,
        facts=_described,
    ),
    Stage(
        name="describe-contrasts",
        needs=("describe-categories",),
        settings=lambda project: _described_what(project.describe.categories, project),
        run=_describe_contrasts,
        outputs=lambda project: _table_files(
            project, "descriptions/category/contrast-*.parquet", "descriptions/category/added-*.parquet"
        ),
        facts=_described,
    ),
    Stage(
        name="describe-samples",
        needs=("ingest",),
        settings=lambda project: [
            *_described_what(project.describe.samples, project),
            project.data.budget,
        ],
        run=_describe_samples,
        outputs=lambda project: _table_files(
            project, "descriptions/sample/*.parquet", "rejects/describe-*.parquet"
        ),
        shards=_sample_shards,
        media=True,
        facts=_described,
    ),
    Stage(
        name="encode",
        needs=("describe-categories", "describe-contrasts", "describe-samples"),
        settings=_encode_settings,
        run=_encode,
        outputs=_encode_outputs,
        media=True,
        folder="embeddings",
        reuses=_is_own_vectors,
    ),
    Stage(
        name="localize",
        needs=("encode",),
        settings=lambda project: project.localize,
        run=_localize,
        outputs=lambda project: [project.kb / "centers.parquet"],
    ),
    Stage(
        name="train",
        needs=("localize",),
        settings=lambda project: project.train,
        run=_train,
        outputs=_train_outputs,
    ),
    Stage(
        name="evaluate",
        needs=("train",),
        settings=lambda project: project.evaluate,
        run=_evaluate,
        outputs=lambda project: [
            project.run / name for name in ("evaluation.json", "named.parquet", "ranks.parquet")
        ],
    ),
    Stage(
        name="report",
        needs=("evaluate",),
        settings=lambda project: [project.name, project.seed, project.predict.use],
        run=_report,
        outputs=lambda project: [project.run / "report.html", *project.run.glob("space.png")],
        media=True,
    ),
)


STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)
INGEST = "ingest"  # the stage that notes the contents of the samples' files
_BY_NAME = {stage.name: stage for stage in STAGES}


def find_stage(name: str) -> Stage:
    """A stage by its name. Raises InputError for an unknown one."""
    if name not in _BY_NAME:
        raise InputError(f"there is no stage {name!r}; the stages are: {', '.join(STAGE_NAMES)}")
    return _BY_NAME[name]


def plan(project: ProjectFile) -> list[str]:
    """The stages of a whole run: without training where the project has it off.

    If `unibind train` was run in a project that has training off, a whole run keeps those heads up to date.
    """
    trains = project.train.enabled or bool((mark := read_mark(project, "train")) and mark.get("asked"))
    return [name for name in STAGE_NAMES if trains or name != "train"]


def needs(project: ProjectFile, stage: Stage) -> list[str]:
    """The stages that must have run before: evaluation without heads is zero-shot and needs no training."""
    if stage.name == "evaluate" and "train" not in plan(project):
        return ["localize"]
    return list(stage.needs)


def shards(project: ProjectFile, name: str) -> list[int]:
    """The shards of a stage: [0, 1, …] for the describe stages, [0] for every other."""
    stage = find_stage(name)
    return list(range(stage.shards(project))) if stage.shards else [0]


def write_metrics(project: ProjectFile, results: Iterable[StageResult] = ()) -> dict[str, Any]:
    """Write `<run>/metrics.json`: the evaluation, and the wall time of every stage that has run."""
    skipped = {result.name: result.skipped for result in results}
    stages = [
        {"name": name, "seconds": done["seconds"], "skipped": skipped.get(name, False)}
        for name in (stage.name for stage in STAGES)
        if (done := read_mark(project, name)) is not None
    ]
    evaluation = json.loads(reading(project.run / "evaluation.json").read_text(encoding="utf-8"))
    metrics = {"dataset": project.name, "seed": project.seed, "stages": stages, **evaluation}
    unseal(project.run, "metrics")
    write_json(project.run / "metrics.json", metrics)
    seal(project.run, [project.run / "metrics.json"], "metrics")
    return metrics
