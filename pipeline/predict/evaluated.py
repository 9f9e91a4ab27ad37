"""What the last evaluation found, for new files: temperatures, constants, and which model to use."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.reads import reading
from pipeline.html.elements import counted
from pipeline.project import ProjectFile
from pipeline.trust import MODEL_OF, MODEL_TITLES, Trusted, trusted


@dataclass(frozen=True)
class Temperatures:
    """The `calibration` rows of an evaluation; or why there are none."""

    rows: Sequence[Mapping[str, Any]] = ()
    missing: str | None = None

    def of(self, modality: str, models: Sequence[str]) -> tuple[float | None, str | None]:
        """A modality's temperature under the first model that has one; else None and the reason."""
        if self.missing is not None:
            return None, self.missing
        for model in models:
            for row in self.rows:
                if (row["modality"], row["model"]) != (modality, model):
                    continue
                if row["temperature"] is not None:
                    return float(row["temperature"]), None
                samples = f"{counted(row['n_fit'], 'val sample')} of {modality}"
                return (
                    None,
                    f"{samples}: all right, or no better than chance, so no temperature can be fitted",
                )
        return (
            None,
            f"there are no labelled {modality} samples in both val (to fit on) and test (to measure on)",
        )


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of the project as it is; without one, `temperatures` says why."""

    temperatures: Temperatures = field(default_factory=Temperatures)
    trusted: Mapping[str, Trusted] = field(default_factory=dict)  # by modality
    constants: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by modality and model
    use: str = "auto"  # of [predict]

    def wanted(self, modality: str, models: Collection[str]) -> str:
        """The model to answer with, of those that place the file: zero_shot, aligned or mean.

        As [predict] `use` says, or as chosen on val; the heads where nothing was evaluated.
        """
        named = MODEL_OF.get(self.use)
        both = {"zero_shot", "aligned"} <= set(models)
        if not both:
            return next(iter(models))
        if named is not None:
            return named
        known = self.trusted.get(modality)
        return known.used if known is not None and len(known.models) > 1 else "aligned"

    def note(self, modality: str, models: Collection[str]) -> str | None:
        """What is used for a modality, why, and what each model reached; None where there is no choice."""
        known = self.trusted.get(modality)
        if known is not None:
            return known.to_text() if modality != "text" or len(known.models) > 1 else None
        if {"zero_shot", "aligned"} <= set(models) and self.temperatures.missing:
            used = MODEL_TITLES[self.wanted(modality, models)]
            return f"{modality}: {used}; not chosen on val ({self.temperatures.missing})"
        return None


def load_evaluated(project: ProjectFile) -> Evaluated:
    """The project's last evaluation, if its centers, heads and settings are unchanged."""
    path, use = project.run / "evaluation.json", project.predict.use
    if not reading(path).exists():
        return Evaluated(Temperatures(missing="not evaluated yet; run `unibind evaluate`"), use=use)
    from pipeline.run.stale import is_current  # with the table of stages, which `retrieve` does not need

    if not is_current(project, "evaluate"):
        missing = "evaluated with other centers, heads or settings; run `unibind evaluate`"
        return Evaluated(Temperatures(missing=missing), use=use)
    found = json.loads(reading(path).read_text(encoding="utf-8"))
    return Evaluated(
        temperatures=Temperatures(found.get("calibration", ())),
        trusted={each.modality: each for each in trusted(found, use)},
        constants={(row["modality"], row["model"]): row["constant"] for row in found.get("stacking", ())},
        use=use,
    )
