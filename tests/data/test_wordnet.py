"""Names of synsets are unique, and other names of a class do not belong to another."""

from __future__ import annotations

import importlib.util

import pytest

from data.benchmarks.shapenet import SYNSETS
from data.errors import MissingDependencyError
from data.wordnet import imagenet_synsets, synset_categories


def test_the_thousand_names_of_imagenet_are_unique_in_any_case() -> None:
    """Cardigan is a dog and a jacket, crane a bird and a machine, maillot two things to wear."""
    categories = synset_categories(imagenet_synsets())
    names = {category.category_id: category.name for category in categories}
    assert len({name.casefold() for name in names.values()}) == 1000
    assert names["n02105855"] == "Shetland sheepdog"
    assert names["n02113186"] == "Cardigan Welsh corgi"
    assert names["n02963159"] == "cardigan"
    assert names["n03710721"] == "tank suit"
    taken = {name.casefold() for name in names.values()}
    assert not any(alias.casefold() in taken for category in categories for alias in category.aliases)
    assert all(category.notes for category in categories)


def test_shapenets_numbers_are_synsets() -> None:
    """All 55 have a name, and none twice."""
    names = [category.name for category in synset_categories([f"n{synset}" for synset in SYNSETS])]
    assert len(set(names)) == 55
    assert names[0] == "airplane"


def test_without_timm_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are data of a package that may be missing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps timm"):
        imagenet_synsets()
