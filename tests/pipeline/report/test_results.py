"""The report's first pages: every number of the metrics, in honest words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.mistakes import worst_confusions
from pipeline.report.page import unified_centers, unified_samples
from pipeline.report.results import calibration_section, headline
from trainer.evaluate.measure import evaluate
from trainer.inputs import open_kb
from trainer.settings import Evaluate, Scorer


def test_the_result_table_shows_every_number_of_the_metrics(run: Any, parsed: Any) -> None:
    """Each recognition row's accuracy and interval stands in the row of its modality, under its split."""
    markup = run.target.read_text(encoding="utf-8")
    section = markup[markup.index('id="recognition"') : markup.index('id="zero-shot"')]
    table = section[section.index("<tbody>") : section.index("</tbody>")]
    groups = re.split(r'<tr class="group">', table)[1:]
    titles = ("seen categories", "unseen categories", "unseen samples, all categories as candidates")
    blocks = dict(zip(("seen", "unseen", "unseen_among_all"), groups, strict=True))
    for title, block in zip(titles, groups, strict=True):
        assert title in block
    for record in run.metrics["recognition"]:
        row = next(r for r in blocks[record["split"]].split("<tr>") if f">{record['modality']}</th>" in r)
        cells = parsed(f"<table><tr>{row.split('<tr ')[0]}</table>").text
        assert (
            f"{100 * record['top1']:.1f} {100 * record['top1_low']:.1f}–{100 * record['top1_high']:.1f}"
            in cells
        )
        assert f" {record['n']}" in cells


def test_the_headline_says_the_mean_and_the_best_control(parsed: Any) -> None:
    """The sentence gives the unseen mean over media against chance, and admits a control that is better."""
    rows = [
        {
            "modality": modality,
            "split": "unseen",
            "anchors": anchors,
            "k": 5,
            "scorer": "nearest",
            "model": "aligned",
            "top1": top1,
            "top1_low": top1 - 0.1,
            "top1_high": top1 + 0.1,
            "top5": 1.0,
            "chance": 0.125,
            "n": 30,
        }
        for modality, llm, name in (("image", 0.4, 0.5), ("audio", 0.3, 0.4), ("text", 0.9, 0.1))
        for anchors, top1 in (("llm_centers", llm), ("class_name", name))
    ]
    words = parsed(headline({"recognition": rows})).text
    assert "35.0% of 60 samples (mean of 2 modalities); chance is 12.5%." in words
    assert words.endswith("The best control, class name, reaches 45.0%: the LLM centers do not beat it.")
    better = [dict(row, top1=0.1) if row["anchors"] == "class_name" else row for row in rows]
    assert parsed(headline({"recognition": better})).text.endswith(
        "reaches 10.0%: less than the LLM centers."
    )
    untrained = [dict(row, model="zero_shot") for row in rows]
    assert "labels used only for scoring" in parsed(headline({"recognition": untrained})).text


@pytest.mark.parametrize(
    ("scorer", "subject"),
    [
        ("logsumexp", "the soft maximum over the LLM-written centers gives"),
        ("mean", "the mean of the LLM-written centers gives"),
        ("medoid", "the most central LLM-written center gives"),
    ],
)
def test_the_page_says_by_which_scorer(
    run: Any, tmp_path: Path, scorer: Scorer, subject: str, parsed: Any
) -> None:
    """Headline and rule name the scorer that was measured, and the mistakes are counted with it."""
    metrics = json.loads(json.dumps(evaluate(run.kb, run.root, Evaluate(bootstrap=10, scorer=scorer))))
    words = parsed(run.write(tmp_path / "report.html", metrics).read_text(encoding="utf-8")).text
    assert f"{subject} the right category" in words
    assert f"({scorer})" in words or f"Rule: {scorer} of" in words
    base = open_kb(run.kb)
    _, confusions = worst_confusions(
        base,
        unified_samples(base, run.root),
        unified_centers(base, run.root),
        labels_used=True,
        scorer=scorer,
    )
    rows = [r for r in metrics["recognition"] if (r["split"], r["anchors"]) == ("unseen", "llm_centers")]
    wrong = sum(round(r["n"] * (1 - r["top1"])) for r in rows)
    assert sum(one.count for one in confusions) == wrong > 0
    assert all(m.own_score is not None and m.own_score <= m.score for one in confusions for m in one.examples)


def test_the_calibration_table_shows_every_number(run: Any, page: Any, parsed: Any) -> None:
    """Each row of the metrics, with a dash where no temperature was fitted; without rows, why."""
    rows = run.metrics["calibration"]
    assert {row["temperature"] is None for row in rows} == {True, False}
    words = parsed(calibration_section(run.metrics)).text
    for row in rows:
        fitted = [_told(row["temperature"], 4)]
        fitted += [_told(row[name], 3) for name in ("nll_before", "nll", "ece_before", "ece")]
        assert f"{' '.join(fitted)} {row['n_fit']} {row['n']}" in words
    assert "Calibration" in page.text
    assert "Not measured" in parsed(calibration_section({})).text


def _told(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def test_transductive_results_carry_a_warning(run: Any, parsed: Any) -> None:
    """Before the first number, and only where it is so."""
    assert "Transductive" not in parsed(headline(run.metrics)).text
    warned = parsed(headline({**run.metrics, "transductive": True})).text
    assert warned.startswith("Transductive: unlabelled samples of every split, the test split too")


def test_the_stages_are_told_with_their_times(page: Any) -> None:
    """Seconds of each stage, and that a skipped one was skipped; only work done now is added up."""
    assert "12.3 seconds of work" in page.text
    assert "localize 0.5 skipped" in page.text
