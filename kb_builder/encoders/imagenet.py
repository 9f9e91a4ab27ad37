"""The thousand ImageNet classes: names and WordNet glosses, in the order of a classifier's outputs."""

from __future__ import annotations

from dataclasses import dataclass

from data.wordnet import imagenet_synsets, synset_glosses, synset_lemmas


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
    lemmas, glosses = synset_lemmas(), synset_glosses()
    return [ImageNetClass(synset, lemmas[synset], glosses[synset]) for synset in imagenet_synsets()]


def class_names() -> list[str]:
    """The first name of every class, in output order. Two pairs of classes share one (crane, maillot)."""
    return [imagenet_class.name for imagenet_class in read_classes()]
