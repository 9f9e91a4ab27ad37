"""`unibind reproduce`: import a benchmark of the paper, run it, and compare our number with the paper's.

    <out>/zero-shot.toml, zero-shot.parquet, zero-shot.categories.csv    an ordinary project, to edit and
    <out>/fine-tuned-fold-3.toml, …                                      run again with `unibind run`
    <out>/runs/zero-shot/, …                                             the outputs of its stages
    <out>/prepared/<recipe>/                                             crops and clouds of the files
    <out>/<zero-shot or fine-tuned>.json                                 the result

A run starts from a copy of the newest knowledge base beside it: another fold, or training after zero-shot,
requests no text twice and encodes no sample twice.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data.benchmarks import Imported, Wanted
from data.benchmarks.layout import require_fit, require_root
from data.benchmarks.splits import limit
from data.errors import InputError, ManifestError, SampleError
from data.lock import write_lock
from data.paths import resolver
from data.reads import reading
from data.sample import Reject, Sample
from data.show import visible
from kb_builder.encoders.base import JOIN
from kb_builder.settings import TRAITS
from pipeline.project import ProjectFile
from pipeline.reproduce.order import EMBEDDED, FEATURES, Order, settled, write_project
from pipeline.reproduce.result import Outcome, Result, outcome
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages

_IMAGEBIND = "ImageBind-huge"  # of the paper's three encoders, the one that we support


def reproduce(order: Order) -> Result:
    """Import the benchmark, run every stage, and compare; fold by fold if it has folds.

    Raises ManifestError for what the folder lacks, InputError for options that cannot work (before any
    request is paid), KnowledgeBaseError where another process works in its folder, and the errors of the
    stages; the same order then resumes where it stopped.
    """
    folds = folds_of(order)
    _check_describer(order)
    for path in (order.data, order.out):
        require_fit(path.absolute())
    require_root(order.data)
    encode = encode_section(order)
    outcomes = []
    with write_lock(order.out / "reproduce.lock"):  # another process would replace the manifest
        for fold in folds:
            if len(folds) > 1:
                print(f"▶ fold {fold} of {order.benchmark.folds}", file=sys.stderr, flush=True)
            outcomes.append(_run(order, fold, encode))
    result = Result(
        benchmark=order.benchmark,
        outcomes=tuple(outcomes),
        encoder=order.encoder,
        describer=" ".join(filter(None, (order.describer, order.model))),
        texts=order.texts,
        marks=marks(order, folds),
        apart=apart(order, folds),
    )
    name = "-".join(filter(None, (order.setting, order.variant)))
    result.write(order.out / f"{name}.json")
    return result


def folds_of(order: Order) -> list[int | None]:
    """The folds to run. Default: all with training; without it, the one test set that the rule names."""
    benchmark, asked = order.benchmark, order.fold
    every: list[int | None] = list(range(1, benchmark.folds + 1))
    if order.variant is not None and order.variant not in benchmark.variants:
        known = ", ".join(benchmark.variants)
        raise InputError(
            f"{benchmark.title} has {f'the variants {known}' if known else 'no variants'}; --variant gives"
            f" {order.variant!r}"
        )
    if asked is None:
        return every if every and order.train else [1] if benchmark.fold_needed else [None]
    if not every:
        raise InputError(f"{benchmark.title} has no folds; leave out --fold")
    if asked == "all":
        return every
    if not asked.isdecimal() or int(asked) not in every:
        raise InputError(f"--fold: expected all or a number from 1 to {benchmark.folds}; found {asked!r}")
    return [int(asked)]


def _check_describer(order: Order) -> None:
    if TRAITS[order.describer].endpoint and order.model is None:
        raise InputError("--describer openai needs --model")
    if not TRAITS[order.describer].endpoint and (order.model, order.base_url) != (None, None):
        raise InputError(f"--model and --base-url need --describer openai; it is {order.describer}")


def marks(order: Order, folds: Sequence[int | None]) -> tuple[str, ...]:
    """How the result differs from the whole benchmark's, to print beside every number."""
    found = []
    if order.partial:
        found.append("--partial: missing files and categories were left out")
    if order.per_category is not None:
        found.append(f"--limit-per-category {order.per_category}: a sample by hash, not the whole benchmark")
    if len(folds) == 1 and folds[0] is not None:
        found.append(
            f"fold {folds[0]} of {order.benchmark.folds} only: the benchmark's result is the mean of all"
        )
    if order.variant is not None:
        found.append(f"variant {order.variant}")
    if TRAITS[order.describer].placeholder:
        found.append("describer fake: its texts have no meaning; a test run")
    return tuple(found)


def apart(order: Order, folds: Sequence[int | None]) -> tuple[str, ...]:
    """Why the result must not be compared with the paper's numbers; empty where it may."""
    benchmark = order.benchmark
    found = [benchmark.doubt] if benchmark.doubt else []
    base = benchmark.paper.base
    if base != _IMAGEBIND or {part.partition(":")[0] for part in order.encoder.split(JOIN)} != {"imagebind"}:
        found.append(f"the encoder is {order.encoder}, not the paper's {base}")
    if order.partial or order.per_category is not None:
        found.append("only a part of the benchmark's samples")
    if len(folds) == 1 and folds[0] is not None:
        found.append("only one of its folds")
    if TRAITS[order.describer].placeholder:
        found.append("texts without meaning")
    return tuple(found)


def encode_section(order: Order) -> dict[str, str]:
    """`[encode]` for an encoder: the embedded pair, or one model for texts and samples.

    The model is loaded here, before any request is paid. Raises InputError where it does not take the
    benchmark's modality, or needs training for it and there is none.
    """
    modality = order.benchmark.modality
    if order.encoder.startswith("imported:"):  # vectors computed elsewhere: nothing to load
        return dict.fromkeys(("text", "samples", "zero_shot"), order.encoder)
    if order.encoder not in {EMBEDDED, FEATURES}:
        from kb_builder.encoders import load_encoder

        name = settled(order.encoder)
        taken = load_encoder(name).modalities
        if not {"text", modality} <= taken:
            raise InputError(
                f"{order.benchmark.title} needs an encoder of texts and of {modality}; {order.encoder!r}"
                f" takes {', '.join(sorted(taken))}"
            )
        return dict.fromkeys(("text", "samples", "zero_shot"), name)
    from kb_builder.encoders.conse import PHOTOGRAPHED

    zero_shot = order.encoder == EMBEDDED and modality in PHOTOGRAPHED
    if not zero_shot and not order.train:
        raise InputError(
            f"{order.benchmark.title}: without training the embedded encoder {order.encoder!r} cannot compare"
            f" {modality} with texts; add --train, or name an encoder of texts and {modality} with --encoder"
        )
    return {"text": "minilm", "samples": FEATURES, "zero_shot": EMBEDDED if zero_shot else "off"}


def _run(order: Order, fold: int | None, encode: dict[str, str]) -> Outcome:
    wanted = Wanted(order.train, fold, order.variant, order.partial)
    print(f"▸ read {order.benchmark.title} in {visible(order.data)}", file=sys.stderr, flush=True)
    imported = order.benchmark.read(order.data, wanted)
    _require_once(order.data, imported.samples)
    chosen = list(imported.samples)
    if order.per_category is not None:
        chosen = limit(chosen, order.per_category)
    kept, rejects, root = _prepared(order, imported, chosen)
    for note in imported.notes:
        print(f"  note: {visible(note)}", file=sys.stderr, flush=True)
    project = write_project(order, fold, encode, kept, imported.categories, root)
    inherit(project)
    run_stages(project, plan(project))
    metrics = json.loads(reading(project.run / "metrics.json").read_text(encoding="utf-8"))
    return outcome(
        metrics,
        project,
        chosen,
        rejects,
        modality=order.benchmark.modality,
        fold=fold,
        notes=imported.notes,
    )


def _require_once(root: Path, samples: Sequence[Sample]) -> None:
    """Raise ManifestError for a sample in two splits: it would be trained on and tested."""
    split_of: dict[str, str] = {}
    for sample in samples:
        before = split_of.setdefault(sample.sample_id, sample.split)
        if before != sample.split:
            raise ManifestError(
                f"{root}: {sample.uri} is in the lists of both {before} and {sample.split}; download them"
                " again"
            )


def _prepared(
    order: Order, imported: Imported, chosen: Sequence[Sample]
) -> tuple[list[Sample], list[Reject], Path]:
    """The usable samples, the rejected ones, and the folder of the samples' files."""
    if imported.prepare is None:
        _require_inside(order.data, chosen)
        return list(chosen), [], order.data
    target = order.out / "prepared" / imported.recipe
    kept, rejects = [], []
    for sample in tqdm(chosen, desc="prepare samples", unit="file", disable=None):
        try:
            imported.prepare(sample, target)
            kept.append(sample)
        except SampleError as error:
            rejects.append(Reject(sample.sample_id, "prepare", str(error)))
    if not kept:
        raise InputError(f"none of {len(rejects):,} samples can be used. The first: {rejects[0].reason}")
    return kept, rejects, target


def _require_inside(root: Path, samples: Sequence[Sample]) -> None:
    """Raise one InputError, not one per file, for a benchmark with links to other folders."""
    locate = resolver(root)
    for sample in samples:
        try:
            locate(sample.uri)
        except SampleError:
            raise InputError(
                f"{root / sample.uri} is behind a link that leads outside {root}; give --data the real"
                " folder, or mount the parts below one"
            ) from None


def inherit(project: ProjectFile) -> None:
    """Copy the newest knowledge base beside a run that has none, to reuse its answers and vectors."""
    ledgers = project.run.parent.glob("*/kb/ledger.sqlite")
    others = sorted(ledgers, key=lambda path: (path.stat().st_mtime_ns, str(path)))
    if project.kb.exists() or not others:
        return
    source = others[-1].parent
    half = project.run / "kb.half"
    with write_lock(source.parent / "run.lock"):
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half, ignore=shutil.ignore_patterns("*.lock"))
    half.rename(project.kb)
