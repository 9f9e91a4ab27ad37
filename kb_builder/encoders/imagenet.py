"""The thousand ImageNet classes: names and WordNet glosses, read from the data files of package `timm`.

timm itself is never imported: it needs torchvision, which the core does without.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from data.errors import MissingDependencyError


@dataclass(frozen=True)
class ImageNetClass:
    """One class, in the order of the classifier's outputs."""

    synset: str  # WordNet id, e.g. n02105855
    lemmas: str  # every name, separated by commas: "Shetland sheepdog, Shetland sheep dog, Shetland"
    gloss: str  # WordNet's definition

    @property
    def name(self) -> str:
        """The first name."""
        return self.lemmas.split(",")[0]


def read_classes() -> list[ImageNetClass]:
    """All thousand classes in output order. Raises MissingDependencyError where timm's files are missing."""
    folder = _info_folder()
    try:
        synsets = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        lemmas = _read_table(folder / "imagenet_synset_to_lemma.txt")
        glosses = _read_table(folder / "imagenet_synset_to_definition.txt")
    except OSError as error:
        raise MissingDependencyError(f"{error.filename}: missing; {_INSTALL}") from error
    return [ImageNetClass(synset, lemmas[synset], glosses[synset]) for synset in synsets]


def class_names() -> list[str]:
    """The first name of every class, in output order. Two pairs of classes share one (crane, maillot)."""
    return [imagenet_class.name for imagenet_class in read_classes()]


_INSTALL = "the class names lie in package timm: pip install --no-deps timm"


def _info_folder() -> Path:
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(_INSTALL)
    return Path(spec.origin).parent / "data" / "_info"


def _read_table(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {synset: text for synset, _, text in (line.partition("\t") for line in lines)}
