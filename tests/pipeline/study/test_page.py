"""The study's page: every number, honest verdicts in words, forest charts, and nothing that could run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.study.ablation import difference_text, measure_text
from pipeline.study.page import write_study_page
from pipeline.study.text import study_text


@pytest.fixture
def written(study: dict[str, Any], tmp_path: Path) -> str:
    """The page of the study."""
    target = write_study_page(study, tmp_path / "study.html")
    assert target == tmp_path / "study.html"
    return target.read_text(encoding="utf-8")


def _section(markup: str, anchor: str) -> str:
    start = markup.index(f'<section id="{anchor}">')
    return markup[start : markup.index("</section>", start) + len("</section>")]


def test_claims_stand_on_top_with_their_outcome(written: str, parsed: Any) -> None:
    """The first sentence counts them; each stands with holds, does not hold or undecided, and its numbers."""
    text = parsed(written).text
    assert "Of 3 claims about the method, 1 holds, 1 does not, 1 is undecided." in text
    assert "Training helps. holds 77.1% against 35.0%" in text
    assert "does not hold" in text
    assert written.index("Training helps.") < written.index('id="ablation-1"')


def test_verdicts_are_told_in_words(written: str, parsed: Any) -> None:
    """Better and worse with their difference, no difference without; per variant, in order."""
    text = parsed(written).text
    assert "no training : worse in seen (−40.0) ; no difference in modality gap ." in text
    assert "mlp : better in modality gap (−0.100) ; no difference in seen ." in text


def test_each_moved_measure_has_a_chart_with_the_reference_as_a_line(written: str, parsed: Any) -> None:
    """The line stands at the reference's mean; a measure that is the same everywhere is only told."""
    first = _section(written, "ablation-1")
    charts = re.findall(r"<svg.*?</svg>", first)
    titles = [re.search("<title>(.*?)</title>", chart) for chart in charts]
    assert [title.group(1).split(":")[0] for title in titles if title] == [
        "Top-1, seen categories",
        "Modality gap",
    ]
    assert "The same in every variant: Top-1, zero-shot." in parsed(first).text
    tags = parsed(charts[0]).tags
    level = next(a["d"] for tag, a in tags if a.get("class") == "level")
    circles = [float(a["cx"]) for tag, a in tags if tag == "circle"]
    assert float(level[1:].split()[0]) == pytest.approx(circles[0], abs=0.06)
    assert len(circles) == 3
    strokes = [a for tag, a in tags if tag == "line" and a.get("stroke-width") == "0.8"]
    assert len(strokes) == 9, "one for each of three seeds and variants"


def test_every_number_is_in_the_table(study: dict[str, Any], written: str, parsed: Any) -> None:
    """Means, intervals, differences and the numbers of each seed, as their measure is told."""
    text = parsed(written).text
    for ablation in study["ablations"]:
        for variant in ablation["variants"]:
            for name, one in variant["measures"].items():
                ends = "–".join(measure_text(name, one[end]).removesuffix("%") for end in ("low", "high"))
                assert f"{measure_text(name, one['mean'])} {ends}" in text
                assert ", ".join(measure_text(name, value) for value in one["per_seed"]) in text
            for name, one in (variant.get("against_reference") or {}).items():
                low, high = (difference_text(name, one[end]) for end in ("low", "high"))
                assert f"{difference_text(name, one['difference'])} ({low} to {high})" in text
    assert "train.head = mlp" in text


def test_an_unknown_measure_is_in_the_table_alone(written: str, parsed: Any) -> None:
    """It has three decimals, no chart and its own name."""
    second = parsed(_section(written, "ablation-2")).text
    assert "odd measure" in second
    assert "0.125 0.100–0.150" in second
    assert "No measure differs" not in second


def test_hostile_words_are_text(study: dict[str, Any], tmp_path: Path, parsed: Any) -> None:
    """Markup in any name, question, setting, claim or verdict stands on the page as it is."""
    hostile = '"><script>alert(1)</script>'

    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {k if k in study or k in _KEYS else k + hostile: spoilt(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoilt(one) for one in value]
        return value + hostile if isinstance(value, str) else value

    page = parsed(write_study_page(spoilt(study), tmp_path / "s.html").read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(hostile) > 20
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


_KEYS = {
    *("variants", "question", "text", "holds", "numbers", "settings", "is_reference", "measures"),
    *("against_reference", "mean", "low", "high", "per_seed", "difference", "verdict", "seen"),
    *("modality_gap", "zero_shot", "odd_measure"),
}


def test_one_seed_without_intervals_is_a_page(study: dict[str, Any], tmp_path: Path, parsed: Any) -> None:
    """Null intervals and a null mean are left out or dashes, and the page says what one seed is worth."""
    variant = study["ablations"][0]["variants"][1]
    for one in variant["measures"].values():
        one |= {"low": None, "high": None, "per_seed": one["per_seed"][:1]}
    variant["measures"]["zero_shot"] |= {"mean": None, "per_seed": [None]}
    variant["against_reference"] = None
    study |= {"seeds": [0], "claims": []}
    text = parsed(write_study_page(study, tmp_path / "s.html").read_text(encoding="utf-8")).text
    assert "With one seed, the variation between seeds is not known." in text
    assert "No claim was tested." in text
    assert f"{variant['name']} : not compared with the reference." in text


def test_the_same_study_gives_the_same_bytes(study: dict[str, Any], written: str, tmp_path: Path) -> None:
    """Nothing depends on the clock."""
    assert write_study_page(study, tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_variants_whose_centers_hold_the_name_say_so(
    study: dict[str, Any], tmp_path: Path, parsed: Any
) -> None:
    """On the page and in the terminal; the other variants have their name alone."""
    study["ablations"] = study["ablations"][:1]
    for variant in study["ablations"][0]["variants"]:
        variant["with_name"] = variant["name"] == "mlp"
        variant["error"] = None
    page = parsed(write_study_page(study, tmp_path / "s.html").read_text(encoding="utf-8")).text
    for words in (page, study_text(study)):
        assert "mlp [centers + name]" in words
        assert "no training [centers" not in words
