"""The prompt library."""

from __future__ import annotations

from itertools import pairwise

import pytest

from data.sample import Category
from kb_builder.ask.request import words
from kb_builder.describe.prompts import fill_prompt, load_prompts, several_texts, spoken_name, subject

MODALITIES = {
    "look": "image",
    "material": "image",
    "sound": "audio",
    "heat": "thermal",
    "shape": "point",
    "motion": "video",
    "use": "text",
}
EVERY = [
    ("category_openings", False),
    ("category", False),
    ("category", True),
    ("contrast", False),
    ("contrast", True),
]


@pytest.mark.parametrize(("purpose", "several"), EVERY[:3])
def test_every_library_covers_the_aspects_in_turn(purpose: str, several: bool) -> None:
    """The first prompts ask about every aspect, neighbours differ, and no prompt comes twice."""
    library = load_prompts(purpose, several=several)
    prompts = library.prompts
    expected = MODALITIES if purpose == "category_openings" else MODALITIES | {"event": "event"}
    assert {prompt.aspect: prompt.modality for prompt in prompts[: library.aspects]} == expected
    assert all(one.aspect != other.aspect for one, other in pairwise(prompts))
    assert len({(prompt.template_id, prompt.aspect) for prompt in prompts}) == len(prompts) >= 24


def test_templates_are_crossed_with_aspects_and_styles() -> None:
    """Every template asks about every aspect in every style, and its id tells which."""
    prompts = load_prompts("category").prompts
    told = {(prompt.template_id, prompt.aspect) for prompt in prompts}
    templates = {template for template, _ in told}
    assert len(told) == len(templates) * 8 == 2 * 6 * 8
    assert {"plain-sentence", "plain-caption", "recognise-comparison", "recognise-conditions"} <= templates


def test_one_and_several_texts_are_asked_for_alike() -> None:
    """The form for several texts has the same prompts in the same order, and asks for so many."""
    one, many = load_prompts("category"), load_prompts("category", several=True)
    assert [(p.template_id, p.aspect) for p in one.prompts] == [
        (p.template_id, p.aspect) for p in many.prompts
    ]
    messages, _ = fill_prompt(many.prompts[0], Category("x", "dog"), count=12)
    assert "12 different texts" in words(messages[-1][1]) and "12 texts" in words(messages[-1][1])
    with pytest.raises(KeyError):
        load_prompts("category_openings", several=True)


def test_the_schema_asks_for_so_many_texts() -> None:
    """Strict, with exactly the wanted number of items and nothing else."""
    form = several_texts(7)["json_schema"]
    assert form["strict"] is True and form["name"] == "descriptions"
    texts = form["schema"]["properties"]["descriptions"]
    assert (texts["minItems"], texts["maxItems"], texts["items"]) == (7, 7, {"type": "string"})
    assert form["schema"]["required"] == ["descriptions"] and form["schema"]["additionalProperties"] is False


def test_a_contrast_names_both_and_asks_about_one() -> None:
    """The rival stands in the question, with the request to leave it out of the answer."""
    for several in (False, True):
        for prompt in load_prompts("contrast", several=several).prompts:
            text = words(fill_prompt(prompt, Category("x", "dog"), count=5, rival="grey wolf")[0][-1][1])
            assert '"dog"' in text and "ention" in text and text.count('"grey wolf"') >= 2


@pytest.mark.parametrize(("purpose", "several"), EVERY)
def test_prompts_leak_no_example(purpose: str, several: bool) -> None:
    """No prompt holds a material or a shape that a small model could copy into its answers."""
    for prompt in load_prompts(purpose, several=several).prompts:
        text = f"{prompt.user} {prompt.ask} {prompt.how} {prompt.opening}".casefold()
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
            assert leak not in text


@pytest.mark.parametrize(("purpose", "several"), EVERY)
def test_prompts_name_the_category_and_leave_no_blank(purpose: str, several: bool) -> None:
    """Whatever the name, it is in the prompt as it is, and nothing else in braces is."""
    for prompt in load_prompts(purpose, several=several).prompts:
        category = Category("x", "Fire {0} truck, fire engine")
        messages, opening = fill_prompt(prompt, category, count=3, rival="hearse")
        text = " ".join(words(content) for _, content in messages)
        assert "Fire {0} truck" in messages[-1][1]
        assert "{" not in text.replace("{0}", "")
        assert messages[-1] == (("assistant", opening) if opening else messages[-1])


def test_names_as_they_are_said() -> None:
    """The first synonym, without underscores; notes and parent tell a crane from a crane."""
    assert spoken_name(Category("x", "Shetland sheepdog, Shetland")) == "Shetland sheepdog"
    assert spoken_name(Category("x", "church_bells")) == "church bells"
    assert subject(Category("x", "crane")) == '"crane"'
    assert subject(Category("x", "crane", parent="bird", notes="grey")) == '"crane" (a kind of bird; grey)'


def aspects(purpose: str, *modalities: str) -> list[str]:
    return [prompt.aspect for prompt in load_prompts(purpose).shown_by(modalities).prompts]


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        (("audio",), {"sound"}),
        (("image",), {"look", "material", "shape"}),
        (("point",), {"shape"}),
        (("thermal",), {"heat", "shape"}),
        (("video",), {"look", "material", "motion", "shape"}),
        (("event",), {"event", "motion", "shape"}),
        (("image", "point"), {"look", "material", "shape"}),
        (("image", "audio"), {"look", "material", "shape", "sound"}),
        (("image", "text"), {"look", "material", "shape", "use"}),
        (("text",), {"look", "material", "shape", "sound", "heat", "motion", "event", "use"}),
    ],
)
def test_aspects_follow_the_modalities(modalities: tuple[str, ...], expected: set[str]) -> None:
    """A project of sounds asks about sounds and not about colours."""
    assert set(aspects("category", *modalities)) == expected
    assert set(aspects("category_openings", *modalities)) == expected - {"event"}


@pytest.mark.parametrize("purpose", ["category", "category_openings"])
def test_each_modality_has_as_many_prompts(purpose: str) -> None:
    """Of photos and sounds every second prompt is about sound; shape is the meshes' where there are some."""
    asked = aspects(purpose, "image", "audio")
    assert asked[0::2] == ["sound"] * (len(asked) // 2)
    assert "sound" not in asked[1::2]
    asked = aspects(purpose, "image", "audio", "point")
    assert asked.count("sound") == asked.count("shape") == asked.count("look") + asked.count("material")


def test_all_modalities_leave_the_library_as_it_is() -> None:
    """Each aspect comes in its turn then, as it always did."""
    library = load_prompts("category_openings")
    assert library.shown_by(("image", "text", "audio", "point", "thermal", "video", "event")) is library
