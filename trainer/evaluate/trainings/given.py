"""Given: what an evaluation and each of its trainings start from, loaded from a knowledge base and a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from data.errors import TrainingError
from data.threads import side_by_side
from trainer.align.heads import Heads
from trainer.align.train import recipe_of
from trainer.inputs import KnowledgeBase, load_controls, load_samples
from trainer.localize.centers import load_centers
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Evaluate

# Vectors of up to this many numbers make problems that want one thread each. Their trainings run side by
# side, each with a copy of the features: 32 MB.
_SMALL = 2**23


@dataclass(frozen=True)
class Given:
    """The samples' features, and the samples in the text space: as zero-shot and as the heads map them."""

    base: KnowledgeBase
    centers: Centers
    controls: dict[str, Centers]
    heads: Heads | None  # None: the zero-shot encoder alone
    frozen: dict[str, SampleSet]  # the features
    without_vector: dict[str, int]
    spaces: dict[str, dict[str, SampleSet]]  # by model and modality
    settings: Evaluate

    @property
    def together(self) -> bool:
        """Whether independent parts run side by side, one thread each."""
        sets = (each for each in (self.frozen, *self.spaces.values()))
        numbers = sum(samples.vectors_ND.size for each in sets for samples in each.values())
        # Another precision is set for the whole process, by each training for itself.
        precise = self.heads is None or recipe_of(self.heads).precision == "highest"
        return numbers <= _SMALL and precise

    @property
    def resampling(self) -> dict[str, Any]:
        """The arguments of intervals."""
        return {"resamples": self.settings.bootstrap, "seed": self.settings.seed}

    def place(self, heads: Heads) -> dict[str, SampleSet]:
        """The features as other heads map them."""
        return {
            modality: replace(samples, vectors_ND=heads.map(modality, samples.vectors_ND))
            for modality, samples in self.frozen.items()
            if modality in heads.modalities
        }


def given_of(base: KnowledgeBase, centers: Centers | None, heads: Heads | None, settings: Evaluate) -> Given:
    """Load samples, controls and, where they are not given, the localized centers, side by side.

    Raises TrainingError where the heads were trained on other encoders, and what loading raises.
    """
    loaded: list[Any] = side_by_side(
        [
            lambda: load_centers(base) if centers is None else centers,
            partial(_load_zero_shot, base),
            partial(load_controls, base),
            partial(load_samples, base, "samples") if base.encoders.get("samples") else lambda: ({}, {}),
        ]
    )
    known, zero_shot, controls, (frozen, without_vector) = loaded
    spaces: dict[str, dict[str, SampleSet]] = {}
    given = Given(base, known, controls, heads, frozen, without_vector, spaces, settings)
    if zero_shot is not None:
        spaces["zero_shot"] = zero_shot
    if heads is not None:
        _require_same_encoders(base, heads)
        spaces["aligned"] = given.place(heads)
    return given


def _load_zero_shot(base: KnowledgeBase) -> dict[str, SampleSet] | None:
    if base.encoders.get("zero_shot") is None:
        return None
    sets, _ = load_samples(base, "zero_shot")
    return {m: replace(s, vectors_ND=unit_rows(s.vectors_ND)) for m, s in sets.items()}


def _require_same_encoders(base: KnowledgeBase, heads: Heads) -> None:
    for role in ("text", "samples"):
        trained_on, now = heads.metadata["encoders"].get(role), base.encoder(role).name
        if trained_on != now:
            raise TrainingError(
                f"the heads were trained on the {role} encoder {trained_on}, but the knowledge base now has"
                f" {now}; run `unibind train` again"
            )
