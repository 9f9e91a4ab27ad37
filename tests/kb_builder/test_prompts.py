"""The prompt library."""

from __future__ import annotations

from itertools import pairwise

import pytest

from data.sample import Category
from kb_builder.describers import PROMPTS
from kb_builder.prompts import fill, load_prompts, spoken_name, subject

ASPECTS = {"look", "shape", "material", "sound", "heat", "motion"}
PURPOSES = sorted(set(PROMPTS.values()))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_library_covers_the_aspects_in_turn(purpose: str) -> None:
    """The first six prompts ask about six aspects, neighbours differ, and no prompt comes twice."""
    prompts = load_prompts(purpose).prompts
    assert {prompt.aspect for prompt in prompts[:6]} == ASPECTS
    assert all(one.aspect != other.aspect for one, other in pairwise(prompts))
    assert len({(prompt.template_id, prompt.aspect) for prompt in prompts}) == len(prompts) >= 24


@pytest.mark.parametrize("purpose", PURPOSES)
def test_prompts_leak_no_example(purpose: str) -> None:
    """No prompt holds a material or a shape that a small model could copy into its answers."""
    for prompt in load_prompts(purpose).prompts:
        words = f"{prompt.user} {prompt.ask} {prompt.opening}".casefold()
        for leak in (
            "wood",
            "steel",
            "glass",
            "rubber",
            "metal",
            "sphere",
            "cube",
            "cone",
            "torus",
            "dog",
            "cat ",
        ):
            assert leak not in words


@pytest.mark.parametrize("purpose", PURPOSES)
def test_prompts_name_the_category_and_leave_no_blank(purpose: str) -> None:
    """Whatever the name, it is in the prompt as it is, and nothing else in braces is."""
    for prompt in load_prompts(purpose).prompts:
        messages, opening = fill(prompt, Category("x", "Fire {0} truck, fire engine"))
        text = " ".join(content for _, content in messages)
        assert "Fire {0} truck" in messages[-1][1]
        assert "{" not in text.replace("{0}", "")
        assert messages[-1] == (("assistant", opening) if opening else messages[-1])


def test_names_as_they_are_said() -> None:
    """The first synonym, without underscores; notes and parent tell a crane from a crane."""
    assert spoken_name(Category("x", "Shetland sheepdog, Shetland")) == "Shetland sheepdog"
    assert spoken_name(Category("x", "church_bells")) == "church bells"
    assert subject(Category("x", "crane")) == '"crane"'
    assert subject(Category("x", "crane", parent="bird", notes="grey")) == '"crane" (a kind of bird; grey)'
