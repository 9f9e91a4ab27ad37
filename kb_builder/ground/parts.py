"""The parts of names: where names form a grid (material × shape), each of their words is a thing itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data.sample import Category
from kb_builder.gates.names import grid_rivals, normalise, stem

Role = Literal["modifier", "head", "whole"]


@dataclass(frozen=True, slots=True)
class NamePart:
    """A word of a grid's names, or a whole name; parts of one `group` stand in the same place of names."""

    word: str  # as it is asked about: "wood" of "wooden"
    role: Role
    group: str


def name_parts(
    categories: Sequence[Category], spoken: Callable[[Category], str]
) -> Mapping[str, list[NamePart]]:
    """For each category_id its parts: the words of its name where each has rivals, else the whole name."""
    names = {each.category_id: tuple(normalise(spoken(each)).split()) for each in categories}
    rivals = grid_rivals(set(names.values()))
    group_of = _groups(rivals)
    found: dict[str, list[NamePart]] = {}
    for category in categories:
        words = names[category.category_id]
        if len(words) > 1 and all(word in group_of for word in words):
            found[category.category_id] = [
                NamePart(_noun(word), "head" if place == len(words) - 1 else "modifier", group_of[word])
                for place, word in enumerate(words)
            ]
        else:
            found[category.category_id] = [NamePart(spoken(category), "whole", "")]
    return found


def _groups(rivals: Mapping[str, set[str]]) -> dict[str, str]:
    """Words that are rivals, by whatever way, have one group: it is called by the first of them."""
    group_of: dict[str, str] = {}
    for word in sorted(rivals):
        if word in group_of:
            continue
        waiting = [word]
        while waiting:
            each = waiting.pop()
            if each not in group_of:
                group_of[each] = word
                waiting += rivals[each]
    return group_of


def _noun(word: str) -> str:
    """The material that an adjective in -en is made from (wooden: wood); other words as they are."""
    return stem(word) if word.endswith("en") and len(stem(word)) == len(word) - 2 else word


def by_group(parts: Mapping[str, Sequence[NamePart]]) -> dict[str, list[NamePart]]:
    """Every part once, by its group, in the order of the words."""
    found: dict[str, set[NamePart]] = defaultdict(set)
    for of_category in parts.values():
        for part in of_category:
            found[part.group].add(part)
    return {group: sorted(found[group], key=lambda part: part.word) for group in sorted(found)}
