"""What the stages are: what each calls, what it reads and writes, and on which it stands.

    world → ingest → describe-categories → describe-contrasts → describe-samples
          → encode → localize → train → evaluate → report

How they are run, recognised and skipped is in pipeline/stages.py. The calls import what they need themselves,
so that reading this list costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import NothingToTrainError
from data.files import write_json
from data.manifest import Manifest, read_manifest
from data.paths import resolver
from data.show import visible
from kb_builder.settings import what
from pipeline.project import TABLETOP, Project

# Of `[data]`: what the stages that decode depend on, and ingest, which only hashes, does not.
_BUDGET = {"seconds_per_file", "memory_per_file"}

Completed = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """One stage. `run` returns the counts to report.

    With `shards` it takes the numbers of the shards to make as second argument, and as third a function to
    call with each shard's number and counts once its files are written.
    """

    name: str
    needs: tuple[str, ...]
    code: tuple[str, ...]  # the folders and files whose source is part of the fingerprint
    settings: Callable[[Project], Any]
    run: Callable[..., Any]
    outputs: Callable[[Project], Iterable[Path]]
    reads: Callable[[Project], Any] = lambda project: None  # files from outside, as something to hash
    shards: Callable[[Project], int] | None = None


def _manifest(project: Project) -> Manifest:
    return read_manifest(
        project.manifest,
        categories=project.categories,
        modality=project.data.modality,
        root=project.data_root,
    )


def _world(project: Project) -> dict[str, Any]:
    if project.data.manifest != TABLETOP:
        return {}
    from data.tabletop import build_world

    build_world(project.manifest.parent, project.tabletop)
    return {"samples": len(_manifest(project).samples)}


def _world_outputs(project: Project) -> Iterable[Path]:
    return (path for path in (project.run / "world").rglob("*") if path.is_file())


def _ingest(project: Project) -> dict[str, Any]:
    from kb_builder.ingest import ingest

    manifest = _manifest(project)
    for note in manifest.notes:
        print(f"  note: {visible(note)}", file=sys.stderr)
    return ingest(manifest, project.kb, up=project.data.up_axis)


def _media_stats(project: Project) -> Any:
    """Every sample with its size and time of change: an edited photo is noticed without being read."""
    manifest = _manifest(project)
    locate = resolver(manifest.root)
    stats = []
    # Of a million samples this takes a minute; of few the bar does not show.
    for sample in tqdm(
        manifest.samples, desc="look at files", unit="file", disable=None, delay=2, leave=False
    ):
        path = Path(locate(sample.uri))
        stat = path.stat() if path.exists() else None
        stats.append((sample, stat and (stat.st_size, stat.st_mtime_ns)))
    return [manifest.categories, stats]


def _category_shards(project: Project) -> int:
    from kb_builder.describe_categories import category_shard_count

    return category_shard_count(project.kb, project.describe.categories)


def _describe_categories(project: Project, shards: list[int], complete: Completed) -> None:
    from kb_builder.budget import require_bounds
    from kb_builder.describe_categories import describe_category_shards

    settings = project.describe.categories
    require_bounds(project.kb, project.describe.samples)  # before anything is paid for categories
    describe_category_shards(
        project.kb,
        shards,
        settings,
        run_id=project.name,
        on_shard=complete,
        encoder=project.encode.text,
    )


def _describe_contrasts(project: Project) -> dict[str, Any]:
    from kb_builder.contrast import describe_contrasts

    settings = project.describe.categories
    return describe_contrasts(project.kb, settings, run_id=project.name, encoder=project.encode.text)


def _sample_shards(project: Project) -> int:
    from kb_builder.describe_samples import sample_shard_count

    return sample_shard_count(project.kb, project.describe.samples)


def _describe_samples(project: Project, shards: list[int], complete: Completed) -> None:
    from kb_builder.describe_samples import describe_sample_shards

    describe_sample_shards(
        project.kb,
        project.data_root,
        shards,
        project.describe.samples,
        run_id=project.name,
        on_shard=complete,
        encoder=project.encode.text,
    )


def _encode(project: Project) -> dict[str, Any]:
    from kb_builder.controls import write_controls
    from kb_builder.embed import embed_samples, embed_texts

    controls = write_controls(project.kb, count=project.localize.k, seed=project.seed)
    texts = embed_texts(project.kb, project.encode)
    samples = embed_samples(project.kb, project.data_root, project.encode)
    return {"controls": controls, "texts": texts, "samples": samples}


def _encode_outputs(project: Project) -> Iterable[Path]:
    yield project.kb / "controls.parquet"
    yield from (path for path in (project.kb / "embeddings").rglob("*") if path.is_file())


def _localize(project: Project) -> dict[str, Any]:
    from trainer.centers import localize

    return localize(project.kb, project.localize)


def _train(project: Project) -> dict[str, Any]:
    from trainer.train import train

    try:
        return train(project.kb, project.run, project.train)
    except NothingToTrainError as error:
        # A report without trained heads is worth more than none; heads of earlier data would be wrong.
        for path in _train_outputs(project):
            path.unlink()
        print(f"  note: no heads were trained: {error}", file=sys.stderr)
        return {"not_trained": str(error)}


def _train_outputs(project: Project) -> list[Path]:
    paths = [project.run / "heads.safetensors", project.run / "train_log.parquet"]
    return [path for path in paths if path.exists()]


def _evaluate(project: Project) -> dict[str, Any]:
    from trainer.evaluate import evaluate

    write_json(project.run / "evaluation.json", evaluate(project.kb, project.run, project.evaluate))
    return {}


def _report(project: Project) -> dict[str, Any]:
    from pipeline.report import write_report
    from pipeline.stages import write_metrics

    metrics = write_metrics(project)
    write_report(
        title=project.name,
        run=project.run,
        kb=project.kb,
        data_root=project.data_root,
        metrics=metrics,
        target=project.run / "report.html",
    )
    return {}


def _table_files(project: Project, *parts: str) -> list[Path]:
    return sorted(path for part in parts for path in project.kb.glob(part))


STAGES = (
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
        reads=_media_stats,
    ),
    Stage(
        name="describe-categories",
        needs=("ingest",),
        code=("kb_builder",),
        settings=lambda project: [what(project.describe.categories), project.encode.text],
        run=_describe_categories,
        outputs=lambda project: _table_files(project, "descriptions/category/part-*.parquet"),
        shards=_category_shards,
    ),
    Stage(
        name="describe-contrasts",
        needs=("describe-categories",),
        code=("kb_builder",),
        settings=lambda project: [what(project.describe.categories), project.encode.text],
        run=_describe_contrasts,
        outputs=lambda project: _table_files(project, "descriptions/category/contrast-*.parquet"),
    ),
    Stage(
        name="describe-samples",
        needs=("ingest",),
        code=("data", "kb_builder"),
        settings=lambda project: [what(project.describe.samples), project.encode.text, project.data.budget],
        run=_describe_samples,
        outputs=lambda project: _table_files(
            project, "descriptions/sample/*.parquet", "rejects/describe-*.parquet"
        ),
        shards=_sample_shards,
    ),
    Stage(
        name="encode",
        needs=("describe-categories", "describe-contrasts", "describe-samples"),
        code=("data", "kb_builder"),
        settings=lambda project: [project.encode, project.localize.k, project.seed, project.data.budget],
        run=_encode,
        outputs=_encode_outputs,
    ),
    Stage(
        name="localize",
        needs=("encode",),
        code=("trainer", "kb_builder/schemas.py", "kb_builder/store.py", "kb_builder/shards.py"),
        settings=lambda project: project.localize,
        run=_localize,
        outputs=lambda project: [project.kb / "centers.parquet"],
    ),
    Stage(
        name="train",
        needs=("localize",),
        code=("trainer", "kb_builder/schemas.py", "kb_builder/store.py", "kb_builder/shards.py"),
        settings=lambda project: project.train,
        run=_train,
        outputs=_train_outputs,
    ),
    Stage(
        name="evaluate",
        needs=("train",),
        code=("trainer", "kb_builder/schemas.py", "kb_builder/store.py", "kb_builder/shards.py"),
        settings=lambda project: project.evaluate,
        run=_evaluate,
        outputs=lambda project: [
            project.run / name for name in ("evaluation.json", "named.parquet", "ranks.parquet")
        ],
    ),
    Stage(
        name="report",
        needs=("evaluate",),
        code=("pipeline", "data/render"),
        settings=lambda project: None,
        run=_report,
        outputs=lambda project: [project.run / "report.html", *project.run.glob("space.png")],
    ),
)
