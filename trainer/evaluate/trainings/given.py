"""Given: what an evaluation and each of its trainings start from, loaded from a knowledge base and a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from data.errors import TrainingError
from trainer.align.heads import Heads
from trainer.align.train import recipe_of
from trainer.inputs import KnowledgeBase, load_samples
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


def given_of(base: KnowledgeBase, centers: Centers, heads: Heads | None, settings: Evaluate) -> Given:
    """Load the samples. Raises TrainingError where the heads were trained on other encoders."""
    frozen, without_vector = load_samples(base, "samples") if base.encoders.get("samples") else ({}, {})
    spaces: dict[str, dict[str, SampleSet]] = {}
    given = Given(base, centers, heads, frozen, without_vector, spaces, settings)
    if base.encoders.get("zero_shot") is not None:
        sets, _ = load_samples(base, "zero_shot")
        spaces["zero_shot"] = {m: replace(s, vectors_ND=unit_rows(s.vectors_ND)) for m, s in sets.items()}
    if heads is not None:
        _require_same_encoders(base, heads)
        spaces["aligned"] = given.place(heads)
    return given


def _require_same_encoders(base: KnowledgeBase, heads: Heads) -> None:
    for role in ("text", "samples"):
        trained_on, now = heads.metadata["encoders"].get(role), base.encoder(role).name
        if trained_on != now:
            raise TrainingError(
                f"the heads were trained on the {role} encoder {trained_on}, but the knowledge base now has"
                f" {now}; run `unibind train` again"
            )
