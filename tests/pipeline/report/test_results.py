"""The report's first pages: every number of the metrics, in honest words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.accuracies import SPLIT_TITLES
from pipeline.report.answer import RunData, answer, first_screen, small_table
from pipeline.report.mistakes import worst_confusions
from pipeline.report.page import unified_centers, unified_samples
from pipeline.report.results import calibration_section
from trainer.align.heads import load_heads
from trainer.evaluate.measure import measure
from trainer.inputs import open_kb
from trainer.localize.centers import load_centers
from trainer.settings import Evaluate, Scorer


def test_the_result_table_shows_every_number_of_the_metrics(run: Any, parsed: Any) -> None:
    """Each recognition row's accuracy and interval stands in the row of its modality, under its split."""
    markup = run.target.read_text(encoding="utf-8")
    section = markup[markup.index('id="recognition"') : markup.index('id="zero-shot"')]
    table = section[section.index("<tbody>") : section.index("</tbody>")]
    groups = re.split(r'<tr class="group">', table)[1:]
    splits = ("seen", "unseen", "seen_among_all", "unseen_among_all")
    blocks = dict(zip(splits, groups, strict=True))
    for split, block in blocks.items():
        assert SPLIT_TITLES[split] in block
    for record in run.metrics["recognition"]:
        row = next(r for r in blocks[record["split"]].split("<tr>") if f">{record['modality']}</th>" in r)
        cells = parsed(f"<table><tr>{row.split('<tr ')[0]}</table>").text
        assert (
            f"{100 * record['top1']:.1f} {100 * record['top1_low']:.1f}–{100 * record['top1_high']:.1f}"
            in cells
        )
        assert f" {record['n']}" in cells


def _rows(model: str = "aligned", **top1: float) -> list[dict[str, Any]]:
    """Rows of two modalities and text; centers and names by split: `unseen=0.4, unseen_name=0.5`."""
    return [
        {
            "modality": modality,
            "split": split,
            "anchors": "class_name" if name.endswith("_name") else "llm_centers",
            "k": 5,
            "scorer": "nearest",
            "model": model,
            "top1": share - step,
            "top1_low": share - step - 0.1,
            "top1_high": share - step + 0.1,
            "top5": 1.0,
            "chance": 0.125,
            "n": 30,
        }
        for name, share in top1.items()
        for split in [name.removesuffix("_name")]
        for modality, step in (("image", 0.0), ("audio", 0.1), ("text", 0.2))
    ]


def test_the_answer_is_three_sentences(parsed: Any) -> None:
    """Means over media against chance; what training changed on the same samples; the best control."""
    trust = [
        {
            "modality": "image",
            "split": split,
            "model": model,
            "chosen": model == "aligned",
            "toss_up": False,
            "reason": None,
            "top1": share,
            "top1_low": 0.0,
            "top1_high": 1.0,
            "n": 30,
        }
        for split in ("val", "seen")
        for model, share in (("zero_shot", 0.25), ("aligned", 0.75), ("mean", 0.5))
    ]
    stacking = [
        {
            "modality": modality,
            "model": "aligned",
            "constant": 0.1,
            "seen": 0.9,
            "unseen": 0.1,
            "harmonic": 0.18,
            "seen_stacked": 0.6,
            "unseen_stacked": 0.5,
            "harmonic_stacked_low": 0.4,
            "harmonic_stacked_high": 0.6,
        }
        for modality in ("image", "text")
    ]
    rows = _rows(seen=0.8, unseen=0.4, unseen_name=0.5)
    metrics = {"recognition": rows, "trust": trust, "stacking": stacking}
    assert parsed(answer(metrics)).text == (
        "The right category is found for 75.0% of new samples of trained categories (chance 12.5%) and 35.0%"
        " of the samples of categories without a train sample, with only these to choose from (chance"
        " 12.5%); with all categories to choose from, 60.0% and 50.0%. Training raised the share of image"
        " samples that are recognised (trained categories, the same samples) from 25.0% to 75.0% . The LLM’s"
        " texts did not clearly help: put in their place, the best control, class name, reaches 45.0% where"
        " they reach 35.0% (untrained categories)."
    )
    table = parsed(small_table(metrics)).text
    assert "trained categories 25.0 75.0 75.0 – 12.5" in table
    assert "untrained categories – – 35.0 45.0 class name 12.5" in table


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        (
            {"lead": 0.3, "lead_low": 0.1, "lead_high": 0.5},
            "texts helped: put in their place, the best control, class name, reaches 5.0%",
        ),
        (
            {"lead": -0.3, "lead_low": -0.5, "lead_high": -0.1},
            "texts did harm: put in their place, the best control, class name, reaches",
        ),
        (
            {"lead": 0.3, "lead_low": -0.1, "lead_high": 0.5},
            "texts did not clearly help: put in their place, the best control, class",
        ),
    ],
)
def test_whether_the_texts_helped_goes_by_paired_intervals(
    lead: dict[str, float], words: str, parsed: Any
) -> None:
    """For certain in both modalities, for the worse in both, or not for certain."""
    name = 0.1 if lead["lead"] > 0 else 0.8
    rows = _rows(unseen=0.4, unseen_name=name)
    for row in rows:
        if row["anchors"] == "class_name":
            row |= lead | {"p": 0.01}
    assert words in parsed(answer({"recognition": rows})).text


def test_a_run_without_training_or_without_rows_says_so(parsed: Any) -> None:
    """An untrained encoder is not called trained; nothing measured is said with its reason."""
    words = parsed(answer({"recognition": _rows("zero_shot", unseen=0.4)})).text
    assert words.startswith("Without training, the right category is found for 35.0% of 60 samples")
    assert "Nothing was trained: these are answers of a pretrained encoder." in words
    assert "no control was measured" in words
    reason = {"modality": "audio", "n": 1, "reason": "no head"}
    told = parsed(answer({"recognition": [], "unmeasured": [reason]})).text
    assert told == "Nothing was recognised: audio (1 sample): no head."


@pytest.mark.parametrize("scorer", ["logsumexp", "mean", "medoid"])
def test_the_page_says_by_which_scorer(run: Any, tmp_path: Path, scorer: Scorer, parsed: Any) -> None:
    """The rule names the scorer that was measured, and the mistakes are counted with it."""
    base = open_kb(run.kb)
    settings = Evaluate(bootstrap=10, scorer=scorer, few_shot=(), probe=False, baselines=False, repeats=0)
    found = measure(base, load_centers(base), load_heads(run.root), settings).metrics
    metrics = json.loads(json.dumps(found))
    words = parsed(run.write(tmp_path / "report.html", metrics).read_text(encoding="utf-8")).text
    assert f"({scorer})" in words or f"Rule: {scorer} of" in words
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
    asked = RunData(samples=9, modalities=2, categories=4, untrained=0)
    assert "Transductive" not in parsed(first_screen(run.metrics, asked)).text
    warned = parsed(first_screen({**run.metrics, "transductive": True}, asked)).text
    assert warned.startswith("Transductive: unlabelled samples of every split, the test split too")


def test_the_stages_are_told_with_their_times(page: Any) -> None:
    """Seconds of each stage, and that a skipped one was skipped; only work done now is added up."""
    assert "12.3 seconds of work" in page.text
    assert "localize 0.5 skipped" in page.text
