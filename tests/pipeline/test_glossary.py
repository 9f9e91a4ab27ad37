"""docs/glossary.md has a line for every term that the terminal prints."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from data.modality import MODALITIES
from data.sample import Split
from kb_builder.browse.overview import show, stats
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.explain import _GATES, explain
from pipeline import doctor
from pipeline.accuracies import ANCHOR_TITLES, CONTROLS, SPLIT_TITLES
from pipeline.compare import text as compare_told
from pipeline.models import State
from pipeline.predict.answers import ALIGNED, MEAN, TEXT, ZERO_SHOT
from pipeline.project import load_project
from pipeline.run.jobs import STAGE_NAMES
from pipeline.study.ablation import MEASURES
from trainer.settings import Localize, Scorer

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"

# The functions whose dicts are the summaries of stages: what a small run does not print stands there, too.
SUMMARIES = {
    "kb_builder/tables/ingest.py": ("ingest",),
    "kb_builder/describe/shards.py": ("count_texts",),
    "kb_builder/describe/categories.py": ("describe_category_shards",),
    "kb_builder/describe/samples.py": ("_write",),
    "kb_builder/describe/contrasts.py": ("describe_contrasts", "_write", "_skip"),
    "kb_builder/encode/embed.py": ("embed_texts", "embed_samples"),
    "trainer/localize/choose.py": ("choose_centers",),
    "trainer/align/train.py": ("fit",),
}


def _terms() -> dict[str, tuple[str, str]]:
    """Each term of the page with the other two cells of its line."""
    found: dict[str, tuple[str, str]] = {}
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        assert len(cells) == 3, line
        for term in re.findall(r"`([^`]+)`", cells[0]):
            found[term] = (cells[1], cells[2])
    return found


def _keys(summary: Mapping[str, Any]) -> Iterator[str]:
    for key, value in summary.items():
        yield key
        if isinstance(value, dict) and key not in {"saturated", "fewer_than_k"}:  # keyed by category
            yield from _keys(value)


def test_every_line_says_what_the_term_is() -> None:
    """No term without an explanation, none twice in different words."""
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(lines) > 150
    for term, (_, what) in _terms().items():
        assert len(what) > 3, term


def test_every_key_of_a_stage_has_a_line(hostile: Any) -> None:
    """What a run of all stages printed, and what these stages may print on other data."""
    known = _terms()
    printed: set[str] = set(STAGE_NAMES)
    marks = hostile.root / "runs" / "evil" / "stages"
    for name in STAGE_NAMES:
        printed |= set(_keys(json.loads((marks / f"{name}.json").read_text(encoding="utf-8"))["summary"]))
    printed |= set(_summary_keys())
    assert len(printed) > 55
    assert printed - known.keys() == set()


def _summary_keys() -> Iterator[str]:
    """Keys of every dict display in a return, an assignment to `summary` or `counts[...]` of the functions
    that make summaries."""
    for path, names in SUMMARIES.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = [
            each
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name in names
        ]
        assert functions, path
        for function in functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) or _is_summary(node):
                    yield from _displayed(node)


def _is_summary(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id in {"summary", "counts"} for target in node.targets
    )


def _displayed(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Dict):
            yield from (key.value for key in each.keys if isinstance(key, ast.Constant))


def test_every_table_and_row_title_has_a_line(hostile: Any) -> None:
    """Titles and columns of `kb stats`, `show` and `explain`; anchors, splits, measures, rules, statuses."""
    printed = {
        *(title for title in ANCHOR_TITLES.values()),
        *SPLIT_TITLES.values(),
        *SPLIT_TITLES,
        *CONTROLS,
        *compare_told._MEASURES.values(),
        *(measure.short for measure in MEASURES.values()),
        *MODALITIES,
        *get_args(Split),
        *get_args(State),
        *get_args(Scorer),
        *get_args(get_type_hints(Localize)["rule"]),
        *(status for status, _ in _GATES),
        *{"chance", "n", "difference", "p", "verdict", "balance", "left out", "unfaithful"},
        *{ALIGNED, MEAN, TEXT, ZERO_SHOT, "no probability", "beside it", "favoured", "constant"},
    }
    metrics = json.loads((hostile.root / "runs" / "evil" / "metrics.json").read_text(encoding="utf-8"))
    printed |= {row["measure"] for row in metrics["balance"]}
    row = next(each for each in read_rows(hostile.kb / "descriptions" / "category") if each["status"] == "ok")
    for page in (stats(hostile.kb), show(hostile.kb, row["category_id"]), explain(hostile.kb, row["row_id"])):
        for title, answer in page.sections:
            printed |= {title, *answer.columns}
            if answer.columns == ("name", "value"):
                printed |= {str(name) for name, _ in answer.rows}
    checks = doctor.examine(load_project(hostile.project))
    packages = {*doctor._PACKAGES, *(what for what, *_ in doctor._MODELS)}
    printed |= {check.what for check in checks} - packages
    assert printed - _terms().keys() == set()
