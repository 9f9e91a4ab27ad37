"""Lists of texts in every form that language models give them: the texts, or one refusal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_builder.parse.answers import Item, ParsedAnswer, parse_answer

ASKED = 'Write 3 different texts about "dog". Every text uses the words "dog".'
TITLE = "The many sides of this animal"


def parsed(content: str, *, finish: str = "stop", several: bool = True) -> tuple[Item, ...]:
    return parse_answer(ParsedAnswer(content, finish, None, None, None), several=several, asked=ASKED)


def said(content: str) -> list[str | None]:
    return [item.text for item in parsed(content)]


def _each(form: str, between: str = "") -> Callable[[list[str]], str]:
    """A form of one text, `%d` its number and `%s` the text, repeated for every text."""
    return lambda texts: between.join(
        form.replace("%d", str(n)).replace("%s", text) for n, text in enumerate(texts, 1)
    )


def _json(build: Callable[[list[str]], object], **options: object) -> Callable[[list[str]], str]:
    return lambda texts: json.dumps(build(texts), **options)  # type: ignore[arg-type]


def _around(before: str, shape: Callable[[list[str]], str], after: str) -> Callable[[list[str]], str]:
    return lambda texts: before + shape(texts) + after


def _quoted(before: str, opening: str, closing: str, between: str, after: str) -> Callable[[list[str]], str]:
    return lambda texts: before + between.join(opening + text + closing for text in texts) + after


ASKED_FOR = _json(lambda texts: {"descriptions": texts})
SHAPES: dict[str, Callable[[list[str]], str]] = {
    "as asked for": ASKED_FOR,
    "letters as they are": _json(lambda texts: {"descriptions": texts}, ensure_ascii=False, indent=2),
    "a list": _json(lambda texts: texts),
    "lines of JSON strings": lambda texts: "\n".join(map(json.dumps, texts)),
    "lines of JSON objects": lambda texts: "\n".join(json.dumps({"description": text}) for text in texts),
    "lines of lists": lambda texts: "\n".join(json.dumps([text]) for text in texts),
    "two objects": lambda texts: f"{ASKED_FOR(texts[:1])}\n{ASKED_FOR(texts[1:])}",
    "two objects with prose": _around(
        "", lambda texts: f"First:\n{ASKED_FOR(texts[:1])}\n\nRest:\n{ASKED_FOR(texts[1:])}", ""
    ),
    "nested": _json(lambda texts: {"descriptions": {"descriptions": texts}}),
    "deeper": _json(lambda texts: {"result": {"data": {"descriptions": texts}}}),
    "lists in a list": _json(lambda texts: [[text] for text in texts]),
    "numbered keys": _json(lambda texts: {str(n): text for n, text in enumerate(texts, 1)}),
    "numbered names": _json(lambda texts: {f"description_{n}": text for n, text in enumerate(texts, 1)}),
    "titles": _json(lambda texts: [{"title": TITLE, "description": text} for text in texts]),
    "titles last": _json(lambda texts: {"descriptions": [{"text": t, "title": TITLE} for t in texts]}),
    "ids": _json(lambda texts: [{"id": f"a-{n}", "value": text} for n, text in enumerate(texts)]),
    "an unknown key": _json(lambda texts: [{"satz": text, "nummer": 3} for text in texts]),
    "lists by aspect": _json(lambda texts: {"look": texts[:1], "sound": texts[1:]}),
    "single quotes": _quoted("{'descriptions': ['", "", "", "', '", "']}"),
    "Python": lambda texts: f"descriptions = {texts!r}",
    "numbers beside texts": _json(lambda texts: [[f"{n}.", text] for n, text in enumerate(texts, 1)]),
    "corner brackets": _quoted("[", "「", "」", ", ", "]"),
    "comments of Python": lambda texts: (
        "descriptions = [\n"
        + "\n".join(f'    "{text}"{sign}  # one' for text, sign in zip(texts, ",, ", strict=False))
        + "\n]"
    ),
    "a tuple": _quoted("descriptions = (\n", '    "', '"', ",\n", ",\n)"),
    "JavaScript": _quoted("const descriptions = [\n", "  `", "`", ",\n", "\n];"),
    "names without quotes": _quoted('{descriptions: ["', "", "", '", "', '"]}'),
    "typographic quotes": _quoted("{“descriptions”: [“", "", "", "”, “", "”]}"),
    "encoded twice": lambda texts: json.dumps(ASKED_FOR(texts)),
    "a list in a string": _json(lambda texts: {"descriptions": json.dumps(texts)}),
    "escaped": lambda texts: ASKED_FOR(texts).replace('"', '\\"'),
    "comments": _quoted('{\n  // the texts\n  "descriptions": [\n', '    "', '", // one', "\n", "\n  ]\n}"),
    "forgotten commas": _quoted('["', "", "", '"\n"', '"]'),
    "a comma too many": _quoted('{"descriptions": ["', "", "", '", "', '",],}'),
    "a bracket forgotten": _quoted('{"descriptions": ["', "", "", '", "', '"}'),
    "a brace forgotten": _quoted('{"descriptions": ["', "", "", '", "', '"]'),
    "a key twice": _quoted("{", '"description": "', '"', ", ", "}"),
    "a draft": _around('Draft:\n["A dog is a dog at home."]\n\nThe final version:\n', ASKED_FOR, ""),
    "a better draft": _around(
        '```json\n["One bad text of it."]\n```\nLet me fix that:\n```json\n', ASKED_FOR, "\n```"
    ),
    "a draft inside": _json(lambda texts: {"draft": ["A first dog is here."], "final": texts}),
    "reasoning inside": _json(lambda texts: {"reasoning": "I think of dogs first.", "descriptions": texts}),
    "parts in a string": _json(
        lambda texts: (
            [{"type": "thinking", "text": "I think of dogs first."}]
            + [{"type": "text", "text": text} for text in texts]
        )
    ),
    "the schema, filled in": _json(lambda texts: {"type": "object", "properties": {"descriptions": texts}}),
    "a call in JSON": _json(
        lambda texts: {"name": "answer", "arguments": json.dumps({"descriptions": texts})}
    ),
    "XML": _around("<descriptions>\n", _each("  <description>%s</description>\n"), "</descriptions>"),
    "XML with titles": _around(
        "<list>", _each(f"<entry><title>{TITLE}</title><text>%s</text></entry>\n"), "</list>"
    ),
    "XML in prose": _around(
        "Here you go:\n<texts>", _each('<text id="%d">%s</text>'), "</texts>\nGood luck!"
    ),
    "numbered tags": _each("<description%d>%s</description%d>\n"),
    "HTML": _around("<ul>\n", _each("<li><b>%s</b></li>\n"), "</ul>"),
    "YAML": _around("descriptions:\n", _each("  - %s\n"), ""),
    "YAML with titles": _around("descriptions:\n", _each(f"  - title: {TITLE}\n    description: %s\n"), ""),
    "a table": _around("| # | Description |\n|---|:---:|\n", _each("| %d | %s |\n"), ""),
    "a table with titles": _around("| Title | Text |\n|---|---|\n", _each(f"| {TITLE} | %s |\n"), ""),
    "a table in prose": _around(
        "A table:\n\nNo | Text\n---|---\n", _each("%d | %s\n"), "\nI hope this helps!"
    ),
    "numbers": _each("%d. %s\n"),
    "numbers and prose": _around("Sure! Here are three:\n\n", _each("%d) %s\n\n"), "I hope this helps!"),
    "bold numbers": _each("**%d.** %s\n"),
    "bold labels": lambda texts: "".join(
        f"{n}. **{label}:** {text}\n"
        for n, (label, text) in enumerate(zip(("Shape", "Sound", "Colour"), texts, strict=False), 1)
    ),
    "bold labels with dashes": _each("%d. **Side %d** – %s\n"),
    "titles over lines": _each("%d. The Side\n   %s\n\n"),
    "ideographic commas": _each("%d、%s\n"),
    "figures of full width": lambda texts: "".join(
        f"{figure}． {text}\n" for figure, text in zip("１２３", texts, strict=False)
    ),
    "emoji": lambda texts: "".join(
        f"{sign} {text}\n" for sign, text in zip(("🐕", "✂️", "👩🏽‍🚀"), texts, strict=False)
    ),
    "questions and answers": _each("Q: What is said of it?\nA: %s\n"),
    "a document of YAML": _around("---\n", _each("- %s\n"), "..."),
    "a draft under a heading": _around(
        "**Draft**\n\n1. A first dog is here.\n2. A bad dog is here.\n\n**Final answer**\n\n",
        _each("%d. %s\n"),
        "",
    ),
    "a draft under a rule": _around(
        "## Draft\n\n- A first dog is here.\n\n## Revised version\n\n", _each("- %s\n"), ""
    ),
    "titles above": _each("**%d. Side**\n%s\n\n"),
    "headings above": _each("### Text %d\n%s\n\n"),
    "titles of paragraphs": _each("%d. **Side**\n\n   %s\n\n"),
    "bullets below numbers": _each("%d. **Side %d**\n   - %s\n"),
    "bullets": _each("• %s\n"),
    "keycaps": _each("%d\ufe0f\u20e3 %s\n"),
    "letters": lambda texts: "".join(
        f"{letter}) {text}\n" for letter, text in zip("abc", texts, strict=False)
    ),
    "labels": _each("Text %d: %s\n"),
    "bold names": _each("**Description %d:** %s\n\n"),
    "lines": _around("Here they are:\n", _each("%s\n"), "\nLet me know if you need more."),
    "names above": _each("Text %d:\n%s\n\n"),
    "numbers with dashes": _each("%d - %s\n"),
    "numbers with tabs": _each("%d\t%s\n"),
    "number signs": _each("#%d %s\n"),
    "Roman figures": lambda texts: "".join(
        f"{figure}. {text}\n" for figure, text in zip(("I", "II", "III"), texts, strict=False)
    ),
    "arrows": _each("→ %s\n"),
    "boxes": _each("- [ ] %s\n"),
    "quotations": _each("> %s\n>\n"),
    "rules between": _each("%s\n", "---\n"),
    "breaks between": _each("%s", "<br>\n"),
    "items without an end": _around("<ol>", _each("<li>%s"), "</ol>"),
    "LaTeX": _around("\\begin{itemize}\n", _each("\\item %s\n"), "\\end{itemize}"),
    "lines in a string": _json(lambda texts: {"descriptions": "\n".join(texts)}),
    "a fence": _around("```json\n", ASKED_FOR, "\n```"),
    "tags around": _around("I think.\n<answer>", ASKED_FOR, "</answer>\nDone."),
    "tags around each": _each("<answer>%s</answer>\n"),
    "thoughts before": _around("<think>\n1. A bad text of it.\n</think>\n", ASKED_FOR, "<|im_end|>"),
    "the next turn": _around("", ASKED_FOR, "\nHuman: now about the cat"),
    "channels": _around(
        "<|channel|>analysis<|message|>A plan.<|end|><|start|>assistant<|channel|>final<|message|>",
        ASKED_FOR,
        "",
    ),
}

# Words that look like form in one notation or another.
_WORDS = """
brown small quick loud dog's well-known 3.5 12 (often) soft; AT&T R&D snake_case 3*4 2x C++ A* e.g. wet
cold shiny round long-haired Mr. 5' naïve black/white 10% old, young, white, river meadow garden kitchen
"""
WORDS = st.sampled_from(_WORDS.split())
_SIGNS = """ "big" “big” 'big' {x} [1] a: #1 | \\n <3 **b** => """
TEXTS = st.lists(
    st.lists(WORDS, min_size=3, max_size=9, unique=True).map(
        lambda words: f"A dog has {' '.join(words)} fur."
    ),
    min_size=3,
    max_size=3,
    unique=True,
)
HOSTILE = st.lists(
    st.lists(
        WORDS | st.sampled_from(_SIGNS.split()),
        min_size=3,
        max_size=9,
        unique=True,
    ).map(lambda words: f"A dog has {' '.join(words)} fur."),
    min_size=3,
    max_size=3,
    unique=True,
)


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=25)
@given(texts=TEXTS)
def test_every_shape_gives_its_texts(shape: str, texts: list[str]) -> None:
    """All texts, in order, and nothing that stands beside them."""
    assert said(SHAPES[shape](texts)) == texts


@settings(deadline=None)
@given(shape=st.sampled_from(sorted(SHAPES)), texts=HOSTILE)
def test_no_text_holds_a_piece_of_its_form(shape: str, texts: list[str]) -> None:
    """Whatever signs are in the texts: no JSON, no title, no tag is ever part of one."""
    for item in parsed(SHAPES[shape](texts)):
        assert (item.text is None) == (item.reason is not None)
        if item.text is not None:
            for piece in (
                'description"',
                "descriptions",
                '", "',
                '"]',
                "</",
                TITLE,
                "|---",
                "Draft",
                "hope",
                "```",
            ):
                assert piece not in item.text


@settings(deadline=None)
@given(shape=st.sampled_from(sorted(SHAPES)), texts=TEXTS, cut=st.floats(0.3, 1.0))
def test_a_shape_that_was_cut_off_keeps_whole_texts_only(shape: str, texts: list[str], cut: float) -> None:
    """Cut anywhere: each text that is kept is one of the answer, or its whole first sentences."""
    whole = SHAPES[shape](texts)
    if shape in {
        "a draft under a heading",
        "a draft under a rule",
        "a draft",
        "a better draft",
        "a draft inside",
        "reasoning inside",
        "parts in a string",
    }:
        return  # where the cut leaves the draft alone, the draft is the answer
    if shape in {
        "number signs",
        "numbers with dashes",
        "numbers with tabs",
        "Roman figures",
        "titles over lines",
    }:
        return  # one of them alone is no list: "1 - 3 m long", "#1 in the world", "I. M. Pei"
    for item in parsed(whole[: int(len(whole) * cut)], finish="length"):
        assert (
            item.text is None
            or any(text.startswith(item.text) for text in texts)
            or item.text in {f"{TITLE}.", "Good luck!"}
        ), item


@pytest.mark.parametrize("shape", ["questions and answers", "a document of YAML", "single quotes"])
def test_an_answer_that_is_cut_off_anywhere_keeps_texts_only(shape: str) -> None:
    """Questions, names, dots at the end and words before an apostrophe are no texts, wherever it ends."""
    texts = ["A dog has brown fur.", "It chews the dog's own bone."]
    whole = SHAPES[shape](texts)
    for end in range(whole.index(texts[0]) + len(texts[0]) + 1, len(whole) + 1):
        found = [item.text for item in parsed(whole[:end], finish="length") if item.text]
        assert found == texts[: len(found)] and found, whole[:end]


@pytest.mark.parametrize(
    "content",
    [
        '[\n  0 => "%s",\n  1 => "%s",\n  2 => "%s"\n]',
        "print('%s')\nprint('%s')\nprint('%s')",
        "['%s', '%s\", '%s']",
        '["%s, "%s", "%s"]',
        '%s", "%s", "%s"]',
    ],
)
def test_code_is_never_a_text(content: str) -> None:
    """Damaged lists, and lists in languages that are not read: a text is one of the answer, or refused."""
    texts = ["A dog barks at strangers.", "The dog sleeps all day.", "A dog is a loyal friend."]
    items = parsed(content % tuple(texts))
    assert [item for item in items if item.text is not None and item.text not in texts] == []
    assert all(item.reason for item in items if item.text is None)
