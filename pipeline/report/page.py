"""Write the report: one HTML file with a run's results, their controls, and its mistakes.

It needs no network, no script and no other file; `space.png` is written beside it for the README. Nothing on
the page depends on the clock: the same run gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

from data.files import write_text
from pipeline.html.elements import Html, document, el, join
from pipeline.html.style import STYLE
from pipeline.report.answer import RunData, first_screen
from pipeline.report.balance import balance_section
from pipeline.report.baselines import few_shot_section, probe_section, sweeps_section
from pipeline.report.categories import categories_section
from pipeline.report.descriptions import description_section
from pipeline.report.kb import knowledge_base_section, quarantine_section
from pipeline.report.mistakes import mistakes_section
from pipeline.report.recognition import recognition_section, scorer_of, zero_shot_section
from pipeline.report.results import calibration_section, parameters_section, stages_section
from pipeline.report.retrieval import retrieval_section
from pipeline.report.space import first_map, space_section, write_space_png
from pipeline.report.training import training_section
from pipeline.report.trust import trust_section
from trainer.align.heads import has_heads, load_heads
from trainer.evaluate.maps.space import space_maps
from trainer.inputs import KnowledgeBase, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows

_DEPTH = 10  # of the recall that the heat maps show

_HOW_IT_WORKS = (
    "A language model wrote short texts about each category; the best of them are the category’s embedding "
    "centers. Frozen encoders turn texts and samples into vectors, a trained head per modality maps samples "
    "into the space of the texts, and a sample gets the category of its nearest center (or by another "
    "scorer, where the run sets one). Controls replace these texts by others and change nothing else."
)
# What stands open on the page; everything else is folded.
_OPEN = ("categories", "trust", "mistakes", "retrieval", "knowledge base")


def write_report(
    *,
    title: str,
    run: Path,
    kb: Path,
    data_root: Path,
    metrics: dict[str, Any],
    target: Path,
    use: str = "auto",
) -> Path:
    """Write the report of a run to `target` (and `space.png` beside it) and return `target`.

    `metrics` is the content of metrics.json, `use` that of [predict]. `data_root` is the folder that the
    samples' uris are relative to; a sample that cannot be read is named, not drawn. Raises KnowledgeBaseError
    and TrainingError where the knowledge base or the heads are incomplete.
    """
    base = open_kb(kb)
    space = unified_samples(base, run)
    tested = any(sample["split"] == "test" for sample in base.samples)
    pictures = space_maps(kb, run) if tested else {}
    labels_used = has_heads(run) or load_centers(base).labels_guided
    sections = {
        "categories": categories_section(base, run),
        "mistakes": mistakes_section(
            base,
            data_root,
            space,
            unified_centers(base, run),
            labels_used=labels_used,
            scorer=scorer_of(metrics),
        ),
        "trust": trust_section(metrics, use),
        "retrieval": retrieval_section(metrics, random_recalls(space)),
        "knowledge base": knowledge_base_section(kb),
        "recognition": recognition_section(metrics),
        "descriptions": description_section(metrics),
        "zero-shot": zero_shot_section(metrics),
        "probe": probe_section(metrics),
        "few-shot": few_shot_section(metrics),
        "sweeps": sweeps_section(metrics),
        "space": space_section({name: each for name, each in pictures.items() if name == "before"}),
        "calibration": calibration_section(metrics),
        "balance": balance_section(metrics),
        "training": training_section(run),
        "quarantine": quarantine_section(kb),
        "parameters": parameters_section(metrics),
        "stages": stages_section(metrics),
    }
    parts = {name: part for name, part in sections.items() if part}
    shown = [part if name in _OPEN else folded(part) for name, part in parts.items()]
    links = [el("a", name, href=f"#{name.replace(' ', '-')}") for name in parts]
    header = el(
        "header",
        el("h1", title),
        first_screen(metrics, _asked(base), use),
        first_map(pictures),
        el("details", el("summary", "How it works"), el("p", _HOW_IT_WORKS, class_="note")),
        el("nav", join(links, " ")),
    )
    seed = f" Seed {metrics['seed']}." if "seed" in metrics else ""
    footer = el("footer", f"The numbers of this page are in metrics.json, beside it.{seed}", class_="sub")
    picture = target.parent / "space.png"
    if pictures:
        write_space_png(pictures, picture)
    else:
        picture.unlink(missing_ok=True)  # that of an earlier run would show other samples
    page = document(f"{title}: UniBind", el("body", header, el("main", *shown), footer), style=STYLE)
    write_text(target, page)
    return target


def folded(part: Html) -> Html:
    """A section under its title, which opens it."""
    title = part[part.index("<h2>") + 4 : part.index("</h2>")]
    return el("details", el("summary", Html(title)), part, class_="folded")


def _asked(base: KnowledgeBase) -> RunData:
    """The run's data, as far as the question needs it."""
    seen_C = seen_categories(base)
    return RunData(
        samples=len(base.samples),
        modalities=len({sample["modality"] for sample in base.samples}),
        categories=len(base.names),
        untrained=int((~seen_C).sum()) if seen_C.any() else 0,
    )


def unified_samples(base: KnowledgeBase, run: Path) -> dict[str, SampleSet]:
    """The samples in the text space: through the heads if the run has them, else zero-shot."""
    if has_heads(run):
        heads = load_heads(run)
        sets, _ = load_samples(base, "samples")
        return {
            m: replace(s, vectors_ND=heads.map(m, s.vectors_ND))
            for m, s in sets.items()
            if m in heads.modalities
        }
    if base.encoders.get("zero_shot") is None:
        return {}
    sets, _ = load_samples(base, "zero_shot")
    return {m: replace(s, vectors_ND=unit_rows(s.vectors_ND)) for m, s in sets.items()}


def unified_centers(base: KnowledgeBase, run: Path) -> Centers:
    """The embedding centers in the space of `unified_samples`."""
    centers = load_centers(base)
    return load_heads(run).represent(centers) if has_heads(run) else centers


def random_recalls(space: Mapping[str, SampleSet]) -> dict[tuple[str, str, str], float]:
    """(level, query, gallery) -> recall@10 of a gallery in random order, over the test samples.

    A query with m relevant items among G finds one with 1 - C(G-m, 10) / C(G, 10) (hypergeometric); queries
    without any do not count, as in trainer/evaluate/retrieval.py.
    """
    test = {modality: samples.split("test") for modality, samples in space.items()}
    chances: dict[tuple[str, str, str], float] = {}
    for query, asked in test.items():
        for gallery, found in test.items():
            if query == gallery:
                continue
            for level, of_query_N, of_gallery_M in (
                ("category", asked.category_N, found.category_N),
                ("object", asked.object_N, found.object_N),
            ):
                relevant, total = Counter(of_gallery_M.tolist()), len(of_gallery_M)
                draws = min(_DEPTH, total)
                asking = {
                    label: count
                    for label, count in Counter(of_query_N.tolist()).items()
                    if label >= 0 and relevant[label]
                }
                lucky = sum(
                    count * (1 - comb(total - relevant[label], draws) / comb(total, draws))
                    for label, count in asking.items()
                )
                if asking:
                    chances[level, query, gallery] = lucky / sum(asking.values())
    return chances
