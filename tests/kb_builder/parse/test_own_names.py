"""Whatever a category is called, cleaning leaves its name as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.sample import Category
from kb_builder.ask.request import asked
from kb_builder.describe.prompts import fill_prompt, load_prompts, spoken_name
from kb_builder.parse.answers import ParsedAnswer, parse_answer, read_answer
from kb_builder.parse.own_names import OwnNames

NAMES = [
    "C#", "F#", "A*", "C++", "*NSYNC", "**kwargs", "_why", "__init__", "snake_case", "50 Cent", "3. Liga",
    "1. FC Köln", "1984", "24", "A&W", "R&D", "AT&T", "Rock & Roll", "&amp;", "&lt;", "&#39;", "<script>",
    "<think>", "</s>", "<|im_end|>", "<3", "[INST]", "[name]", "#hashtag", "# 1", "## two", "`ls`", "-",
    "…", "*", "#", "---", "***", "- item", "• bullet", "> quote", "x*y*z", "*emph*", "_it_", "~~no~~",
    "f*ck", "\\boxed{x}", "$x$", "{x}", "|x|", "Human", "User", "System", "Assistant", "Sure", "OK", "OK!",
    "Here", "Note:", "A:", "Answer", "Text", "Description", "analysis", "assistantfinal", "final",
    "Dr. Who", "St. Bernard", "e.g.", "R.", ".NET", "Node.js", "O'Brien", "'Tis", "@home", "100%", "1.",
    "EOS", "EOT", "Canon EOS", "Let me know", "[number]", "a==b", "==", "||", "$4$", "▁▂▃", "a▁b", "「東京」",
    "1、2", "Option 1", "\u3164", "print('x')", "<0x41>", "✂\ufe0f",
    "(a)", "👨\u200d👩\u200d👧", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "İstanbul", "http://a.b/c_d_e", "A - B: C", "“q”",
]  # fmt: skip
FORMS = [
    "The {} is seen in the old town.", "{} is seen in the old town.",
    "In the old town people see {} every day.", "In the old town people talk about {}.",
    "**{}** is seen in the old town.", "- {} is seen in the old town.", '"{} is seen in the old town."',
    "The {} is seen, and a *second* {} too.", "<b>The {}</b> is seen in the old town.<|im_end|>",
    "{}: it is seen in the old town.", "Here is one: The {} is seen in the old town.\nUser: more",
]  # fmt: skip


def question(name: str, *, several: bool) -> str:
    prompts = load_prompts("category", several=several).prompts
    messages, _ = fill_prompt(prompts[0], Category("c", name), count=2)
    return asked(messages)


def text_of(content: str, name: str, *, several: bool = False) -> str:
    body = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": content}}]})
    asked_for = question(name, several=several)
    items = parse_answer(read_answer(body, asked=asked_for), several=several, asked=asked_for)
    return items[0].text or ""


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_stay(name: str) -> None:
    """As often as the answer says the name, the text says it, alone and in a list."""
    name = spoken_name(Category("c", name))
    for form in FORMS:
        if name == "-" and form.startswith("-"):
            continue  # one of the two is a bullet
        said = form.replace("{}", name)
        assert text_of(said, name).count(name) == said.count(name), form
        listed = json.dumps({"descriptions": [said]})
        assert text_of(listed, name, several=True).count(name) == said.count(name), form


_SIGNS = st.text(alphabet="aB1 *_#`-.&<>[](){}|\\/:;,!?'~+=@$%^…“”’äß犬\u200d", min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(name=_SIGNS.map(lambda name: " ".join(name.split())).filter(bool), form=st.sampled_from(FORMS[:4]))
@example(name="_", form=FORMS[0])
@example(name="a_b_", form=FORMS[0])
def test_any_name_stays_or_the_text_is_rejected(name: str, form: str) -> None:
    """No letter of a name is lost from a text that is kept."""
    spoken = spoken_name(Category("c", name))
    if not spoken:
        return
    text = text_of(form.replace("{}", spoken), name)
    assert text == "" or spoken in text


@pytest.mark.parametrize(
    "words",
    [
        "3*4 and 2 * 3 or 5 ** 6", "snake_case and _private and __dunder", "C# and F# and A* and C++",
        "R&D, AT&T and Q&A", "I <3 it, a < b and c > d", "5' 10\" tall", "f*ck and sh*t",
        "1.5 m and 3D and 4x4", "#1 and #tag", "a~b and ~5", "I. M. Pei and J. S. Bach", "A* and B* trees",
        "C:\\new and D:\\", "50% of $5 and $6", "x_1 and y_2", "10:30 or 7:5", "[sic] and (so)",
        "Hawai`i and O`ahu", "e.g. this, i.e. that", "it's and the dogs' noses", "Ünal & Søn", "90° and ½",
    ],
)  # fmt: skip
def test_signs_inside_words_names_and_figures_stay(words: str) -> None:
    """Without any hint from the question, too."""
    text = f"The dog knows {words} in the town."
    [item] = parse_answer(ParsedAnswer(text, "stop", None, None, None))
    assert item.text == text


def test_only_quoted_names_are_hidden() -> None:
    """Plain words are no hostile names: nothing has to be hidden for them."""
    names = OwnNames('Write about "dog". Use the words "golden retriever".')
    assert names.hide("The golden retriever is a dog.") == "The golden retriever is a dog."
    names = OwnNames('Write about "C#".')
    hidden = names.hide("C# and c# are one.")
    assert "#" not in hidden
    assert names.show(hidden) == "C# and c# are one."
