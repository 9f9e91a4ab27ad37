"""Names of WordNet synsets: the classes of ImageNet, and of other benchmarks whose classes are synsets.

Lemmas and glosses are data files of package timm, which is never imported: it needs torchvision. A category
is named by its first lemma. Where two classes share it, each is named by a lemma that no other class has
("Cardigan Welsh corgi"); the one pair without such a lemma (two cranes) is disambiguated by hand. The other
lemmas become aliases, the gloss a note.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import MissingDependencyError
from data.reads import reading
from data.sample import Category

_INSTALL = "the class names are data files of package timm: pip install --no-deps timm"
_DISAMBIGUATED = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}


def imagenet_synsets() -> list[str]:
    """The thousand WordNet ids of ImageNet-1k, in the order of the usual class numbers (sorted).

    This and the functions below raise MissingDependencyError where timm's files are missing.
    """
    return _read("imagenet_synsets.txt").split()


def synset_lemmas() -> dict[str, str]:
    """All names of 21,844 ids, separated by commas: "Shetland sheepdog, Shetland sheep dog, Shetland"."""
    return _table("imagenet_synset_to_lemma.txt")


def synset_glosses() -> dict[str, str]:
    """WordNet's definition of the same ids."""
    return _table("imagenet_synset_to_definition.txt")


def synset_categories(synsets: Sequence[str]) -> list[Category]:
    """The categories of some synsets, in their order, with names that are unique when case is ignored.

    Raises MissingDependencyError without timm's files, KeyError for an id that is not among their 21,844.
    """
    lemmas, glosses = synset_lemmas(), synset_glosses()
    names_of = {synset: [name.strip() for name in lemmas[synset].split(",")] for synset in synsets}
    uses = Counter(name.casefold() for names in names_of.values() for name in dict.fromkeys(names))
    firsts = Counter(names[0].casefold() for names in names_of.values())
    called = {}
    for synset, names in names_of.items():
        name = names[0]
        if firsts[name.casefold()] > 1:
            name = next((own for own in names if uses[own.casefold()] == 1), name)
        called[synset] = _DISAMBIGUATED.get(synset, name)
    taken = {name.casefold() for name in called.values()}
    return [
        Category(
            synset,
            called[synset],
            tuple(other for other in dict.fromkeys(names) if other.casefold() not in taken),
            notes=glosses.get(synset),
        )
        for synset, names in names_of.items()
    ]


def _read(name: str) -> str:
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(_INSTALL)
    try:
        return reading(Path(spec.origin).parent / "data" / "_info" / name).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingDependencyError(f"{error.filename}: missing; {_INSTALL}") from error


def _table(name: str) -> dict[str, str]:
    return {synset: text for synset, _, text in (line.partition("\t") for line in _read(name).splitlines())}


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
