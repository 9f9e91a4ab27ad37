"""The temperatures that turn a project's scores into probabilities: from its own evaluation, or why not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.reads import reading
from pipeline.project import Project
from pipeline.report_html import counted
from pipeline.stages import is_current


@dataclass(frozen=True)
class Temperatures:
    """The rows of an evaluation's `calibration`; or the reason why there are none to go by."""

    rows: Sequence[Mapping[str, Any]] = ()
    missing: str | None = None

    def of(self, modality: str, models: Sequence[str]) -> tuple[float | None, str | None]:
        """A modality's temperature under the first of the models that has one; else None and the reason."""
        if self.missing is not None:
            return None, self.missing
        for model in models:
            for row in self.rows:
                if (row["modality"], row["model"]) != (modality, model):
                    continue
                if row["temperature"] is not None:
                    return float(row["temperature"]), None
                told = f"{counted(row['n_fit'], 'val sample')} of {modality}"
                return (
                    None,
                    f"{told}: all named rightly, or no better than by chance, which fits no temperature",
                )
        return (
            None,
            f"there were no labelled {modality} samples in both val (to fit on) and test (to measure on)",
        )


def load_temperatures(project: Project) -> Temperatures:
    """What the project's last evaluation fitted, if that is still of these centers, heads and settings."""
    path = project.run / "evaluation.json"
    if not reading(path).exists():
        return Temperatures(missing="not calibrated yet; run `unibind evaluate`")
    if not is_current(project, "evaluate"):
        return Temperatures(missing="calibrated on other centers, heads or settings; run `unibind evaluate`")
    return Temperatures(json.loads(reading(path).read_text(encoding="utf-8")).get("calibration", ()))
