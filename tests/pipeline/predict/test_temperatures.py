"""Where a probability's temperature comes from, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.files import write_json
from pipeline.predict.recognise import Temperatures, load_temperatures
from pipeline.project import ProjectFile, load_project


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


def test_only_a_current_evaluation_is_used(project: ProjectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """None yet, one of other centers, and one of these."""
    assert load_temperatures(project).of("image", ("aligned",)) == (
        None,
        "not calibrated yet; run `unibind evaluate`",
    )
    write_json(project.run / "evaluation.json", {"calibration": [_row("image", "aligned", 0.1)]})
    _, reason = load_temperatures(project).of("image", ("aligned",))
    assert "other centers, heads or settings" in (reason or "")
    monkeypatch.setattr("pipeline.run.stale.is_current", lambda project, name: name == "evaluate")
    assert load_temperatures(project).of("image", ("aligned",)) == (0.1, None)
