"""Answers for files: predictions and hits, and what every way to make them shares."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError, SampleError
from data.modality import MODALITIES, Modality, guess_modality
from data.show import shorten, visible

ALIGNED, ZERO_SHOT, TEXT, MEAN = "aligned heads", "zero-shot", "text encoder", "mean of both"
_WHY_CHARS = 90


@dataclass(frozen=True)
class NamedCategory:
    """One category for a file: its score by the project's scorer, and the text of its nearest center (`why`).

    A constant that the evaluation takes off trained categories is off the score. `probability`, among all
    categories of the project, is None without a calibration.
    """

    category: str
    score: float
    why: str
    probability: float | None = None
    category_id: str | None = None  # None for bare names


@dataclass(frozen=True)
class OtherAnswer:
    """The best category of a model that is not used, with its score."""

    model: str
    category: str
    score: float
    category_id: str


@dataclass(frozen=True)
class Favoured:
    """The trained category that would be the answer if `constant` were not taken off trained ones' scores."""

    category: str
    category_id: str
    constant: float


@dataclass(frozen=True)
class Prediction:
    """The answers for a file, best first; or why it could not be read."""

    file: str
    modality: str
    model: str
    answers: tuple[NamedCategory, ...] = ()
    error: str | None = None
    uncalibrated: str | None = None  # why the answers have no probability
    others: tuple[OtherAnswer, ...] = ()  # of the models that are not used
    favoured: Favoured | None = None  # where the best answer is an untrained category thanks to the constant

    def to_text(self) -> str:
        """The prediction as lines for the terminal."""
        if self.error is not None:
            return f"{visible(self.file)}: error: {visible(self.error)}"
        names = [visible(answer.category) for answer in self.answers]
        width = max(map(len, names), default=0)
        lines = [f"{visible(self.file)}  ({self.modality}, {self.model})"]
        for rank, (name, answer) in enumerate(zip(names, self.answers, strict=True), start=1):
            share = "" if answer.probability is None else f"  {answer.probability:>6.1%}"
            why = visible(shorten(answer.why, _WHY_CHARS))
            line = f"  {rank}  {name:<{width}}  {answer.score:.3f}{share}  {why}"
            lines.append(line.rstrip())
        if self.others:
            told = (f"{each.model} {visible(each.category)} {each.score:.3f}" for each in self.others)
            lines.append(f"  beside it: {'; '.join(told)}")
        if self.favoured is not None:
            lines.append(
                f"  favoured: {names[0]} has no train sample, so {self.favoured.constant:.3f} is taken off"
                f" trained categories; else {visible(self.favoured.category)}"
            )
        if self.uncalibrated is not None:
            lines.append(f"  no probability: {self.uncalibrated}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Hit:
    """One sample found by retrieval."""

    sample_id: str
    modality: str
    category: str | None
    score: float
    category_id: str | None = None
    uri: str | None = None  # its file, relative to the project's data folder

    def to_text(self) -> str:
        """The hit as a line for the terminal."""
        return f"{self.score:.3f}  {self.modality:<8} {visible(self.sample_id)}" + (
            f"  ({visible(self.category)})" if self.category else ""
        )


def say_on_stderr(note: str) -> None:
    """Print a note on stderr, apart from the answers."""
    print(f"note: {visible(note)}", file=sys.stderr, flush=True)


def modality_of(path: Path, given: str | None, reason: str | None) -> Modality:
    """A file's modality: as given, else by its name. Raises SampleError with the `reason`, if any."""
    if given is not None and given not in MODALITIES:
        raise InputError(f"--modality {given}: unknown; the modalities are {', '.join(MODALITIES)}")
    if reason is not None:
        raise SampleError(reason)
    known = next((name for name in MODALITIES if name == given), None) or guess_modality(path)
    if known is None:
        raise SampleError("its ending does not show its modality; give --modality")
    return known


def failed(path: Path, modality: str | None, error: Exception) -> Prediction:
    """The prediction of a file that cannot be read; a reader's message may begin with its name already."""
    reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
    return Prediction(str(path), modality or "unknown", "", error=reason)
