"""What the last evaluation says for new files: temperatures, the model that is used, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.files import write_json
from pipeline.predict.evaluated import Evaluated, Temperatures, load_evaluated
from pipeline.project import ProjectFile, load_project
from pipeline.trust import trusted


def _row(modality: str, model: str, temperature: float | None) -> dict[str, Any]:
    return {"modality": modality, "model": model, "split": "seen", "temperature": temperature, "n_fit": 18}


@pytest.fixture
def project(tmp_path: Path) -> ProjectFile:
    path = tmp_path / "unibind.toml"
    path.write_text('name = "x"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    return load_project(path)


def test_the_row_of_the_modality_and_the_model_is_taken() -> None:
    """Each has its own; of two models that may serve, the first that was measured."""
    found = Temperatures(
        [_row("image", "zero_shot", 0.2), _row("image", "aligned", 0.1), _row("text", "zero_shot", 0.3)]
    )
    assert found.of("image", ("aligned",)) == (0.1, None)
    assert found.of("image", ("zero_shot",)) == (0.2, None)
    assert found.of("text", ("aligned", "zero_shot")) == (0.3, None)


def test_what_could_not_be_fitted_says_why() -> None:
    """No row for the modality, or one without a temperature."""
    found = Temperatures([_row("image", "aligned", None)])
    temperature, reason = found.of("audio", ("aligned",))
    assert (temperature, reason) == (
        None,
        "there are no labelled audio samples in both val (to fit on) and test (to measure on)",
    )
    temperature, reason = found.of("image", ("aligned",))
    assert temperature is None
    assert (reason or "").startswith("18 val samples of image: all right, or no better than chance")


def _shares(modality: str, chosen: str, toss_up: bool, **top1: float) -> list[dict[str, Any]]:
    return [
        {
            "modality": modality,
            "split": split,
            "model": model,
            "chosen": model == chosen,
            "toss_up": toss_up,
            "reason": None if len(top1) > 1 else "there is no zero-shot encoder",
            "top1": share,
            "top1_low": 0.0,
            "top1_high": 1.0,
            "n": 12,
        }
        for split in ("val", "seen")
        for model, share in top1.items()
    ]


def test_only_a_current_evaluation_is_used(project: ProjectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """None yet, one of other centers, and one of these."""
    assert load_evaluated(project).temperatures.of("image", ("aligned",)) == (
        None,
        "not evaluated yet; run `unibind evaluate`",
    )
    stacking = [{"modality": "image", "model": "aligned", "constant": 0.2, "harmonic": None}]
    trust = _shares("image", "mean", True, zero_shot=0.5, aligned=0.75, mean=0.7)
    calibration = [_row("image", "aligned", 0.1)]
    write_json(
        project.run / "evaluation.json", {"calibration": calibration, "trust": trust, "stacking": stacking}
    )
    stale = load_evaluated(project)
    assert "other centers, heads or settings" in (stale.temperatures.of("image", ("aligned",))[1] or "")
    assert (stale.trusted, stale.constants) == ({}, {})
    assert "not chosen on val" in (stale.note("image", ("zero_shot", "aligned")) or "")
    monkeypatch.setattr("pipeline.run.stale.is_current", lambda project, name: name == "evaluate")
    found = load_evaluated(project)
    assert found.temperatures.of("image", ("aligned",)) == (0.1, None)
    assert found.constants == {("image", "aligned"): 0.2}
    assert found.wanted("image", ("zero_shot", "aligned")) == "mean"


@pytest.mark.parametrize(
    ("use", "models", "expected"),
    [
        ("auto", ("zero_shot", "aligned"), "zero_shot"),
        ("heads", ("zero_shot", "aligned"), "aligned"),
        ("zero-shot", ("zero_shot", "aligned"), "zero_shot"),
        ("mean", ("zero_shot", "aligned"), "mean"),
        ("zero-shot", ("aligned",), "aligned"),
        ("mean", ("zero_shot",), "zero_shot"),
    ],
)
def test_the_model_that_is_used(use: str, models: tuple[str, ...], expected: str) -> None:
    """As the project says, else as chosen on val; a file that one model alone can place has that one."""
    rows = {"trust": _shares("image", "zero_shot", False, zero_shot=0.9, aligned=0.5, mean=0.8)}
    known = {each.modality: each for each in trusted(rows, use)}
    assert Evaluated(trusted=known, use=use).wanted("image", models) == expected


def test_without_an_evaluation_the_heads_are_used() -> None:
    """As before there was a choice."""
    assert Evaluated().wanted("image", ("zero_shot", "aligned")) == "aligned"


@pytest.mark.parametrize(
    ("chosen", "toss_up", "use", "words"),
    [
        (
            "aligned",
            False,
            "auto",
            "image: heads, chosen on 12 val samples (zero-shot 25.0%, heads 75.0%, mean of both 50.0%). The"
            " same on 12 test samples of seen categories zero-shot 25.0%, heads 75.0%, mean of both 50.0%",
        ),
        (
            "mean",
            True,
            "auto",
            "image: mean of both; on 12 val samples training is a toss-up (zero-shot 25.0%, heads 75.0%).",
        ),
        ("aligned", False, "zero-shot", "image: zero-shot, as [predict] use says. The same on 12 test"),
    ],
)
def test_what_is_used_is_said_with_what_each_reaches(
    chosen: str, toss_up: bool, use: str, words: str
) -> None:
    """Why, and the accuracies on the same samples."""
    rows = _shares("image", chosen, toss_up, zero_shot=0.25, aligned=0.75, mean=0.5)
    (found,) = trusted({"trust": rows}, use)
    assert found.to_text().startswith(words)


def test_one_model_alone_is_said_with_its_reason() -> None:
    """No choice, whatever the project says; text has nothing to say."""
    rows = {"trust": _shares("audio", "aligned", False, aligned=0.5)}
    (found,) = trusted(rows)
    right = "Right: 50.0% of 12 test samples of seen categories"
    assert found.to_text() == f"audio: heads only; there is no zero-shot encoder. {right}"
    (asked,) = trusted(rows, "zero-shot")
    assert asked.to_text() == (
        f"audio: heads only, whatever [predict] use says; there is no zero-shot encoder. {right}"
    )
    of_text = {"trust": _shares("text", "aligned", False, aligned=0.5)}
    known = {each.modality: each for each in trusted(of_text)}
    assert Evaluated(trusted=known).note("text", ("text encoder",)) is None


def test_without_val_the_mean_is_used_and_said() -> None:
    """No val sample to choose by."""
    rows = _shares("image", "mean", True, zero_shot=0.25, aligned=0.75, mean=0.5)
    (found,) = trusted({"trust": [row for row in rows if row["split"] != "val"]})
    assert found.to_text().startswith("image: mean of both; there is no val sample to choose by. The same on")
