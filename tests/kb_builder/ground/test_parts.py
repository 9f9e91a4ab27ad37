"""The parts of names: words where names form a grid, whole names elsewhere."""

from __future__ import annotations

from data.sample import Category
from kb_builder.ground.parts import NamePart, by_group, name_parts


def _parts(*names: str) -> dict[str, list[NamePart]]:
    categories = [Category(name, name) for name in names]
    return dict(name_parts(categories, lambda category: category.name))


def test_words_of_a_grid_are_things_of_their_own() -> None:
    """Material by material and shape by shape; of "wooden" the noun is asked about."""
    names = [f"{material} {shape}" for material in ("wooden", "steel", "cork") for shape in ("cube", "cone")]
    found = _parts(*names)
    assert found["wooden cone"] == [NamePart("wood", "modifier", "cork"), NamePart("cone", "head", "cone")]
    groups = by_group(found)
    assert {group: [part.word for part in parts] for group, parts in groups.items()} == {
        "cork": ["cork", "steel", "wood"],
        "cone": ["cone", "cube"],
    }


def test_other_names_are_whole() -> None:
    """Names that share a word by chance form no grid."""
    found = _parts("golden retriever", "tabby cat", "car horn", "chicken")
    assert found["golden retriever"] == [NamePart("golden retriever", "whole", "")]
    assert found["chicken"] == [NamePart("chicken", "whole", "")]
    assert len(by_group(found)[""]) == 4
