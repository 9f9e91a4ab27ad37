"""From raw answers to sentences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_builder.ask.endpoint.status import check_body
from kb_builder.parse.answers import ParsedAnswer, parse_answer, read_answer


def one_text(content: str, *, opening: str = "", finish: str = "stop") -> str | None:
    """The text of an answer of this content to a question about one text."""
    (item,) = parse_answer(ParsedAnswer(content, finish, None, None, None), opening=opening)
    return item.text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("A dog has a wet nose.", "A dog has a wet nose."),
        ("A dog has a wet nose", "A dog has a wet nose."),
        ("  A dog\n has a   wet nose. ", "A dog has a wet nose."),
        ('"A dog has a wet nose."', "A dog has a wet nose."),
        ("Sure! A dog has a wet nose.", "A dog has a wet nose."),
        ("Here is one sentence about a dog: A dog has a wet nose.", "A dog has a wet nose."),
        ("1. **A dog** has a wet nose.", "A dog has a wet nose."),
        ("- A dog has a wet nose.", "A dog has a wet nose."),
        ("A dog is 0.5 m high, approx. as a chair.", "A dog is 0.5 m high, approx. as a chair."),
        ("A dog barks! Does it bite? It may not. It runs.", "A dog barks! Does it bite? It may not."),
        ("Ein Hund hat eine nasse Nase.", "Ein Hund hat eine nasse Nase."),
        ("犬 は 鼻 が 濡れ て いる.", "犬 は 鼻 が 濡れ て いる."),
    ],
)
def test_sentences_are_found(content: str, text: str) -> None:
    """Quotes, markup, introductions and white space go; at most three sentences stay."""
    assert one_text(content) == text


def test_an_opening_is_put_in_front_once() -> None:
    """Servers that repeat the opening and servers that do not give the same text."""
    opening = "When struck, the dog"
    for content in ("When struck, the dog barks loudly", " barks loudly.", "barks loudly"):
        assert one_text(content, opening=opening) == "When struck, the dog barks loudly."
    text = "When struck, the dog's bark is loud."
    assert one_text("'s bark is loud", opening=opening) == text


def test_an_opening_that_stays_alone_says_nothing() -> None:
    """A model that adds a full stop, or one word, has not described anything."""
    for content in (".", " barks.", "The dog makes a sound.", ""):
        assert one_text(content, opening="The dog makes a sound") is None


def test_a_cut_answer_keeps_its_whole_sentences() -> None:
    """What max_tokens cut off is no sentence; if nothing else is there, there is no text."""
    content = "A dog has a wet nose. It likes to"
    assert one_text(content, finish="length") == "A dog has a wet nose."
    assert one_text("A dog has a wet", finish="length") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "...",
        "Dog.",
        "To the touch, the dog feels like a.",
        "The dog is made of plastic, which is made of plastic, which is made of rubber.",
        "The dog is light, lightweight, lightweight, lightweight, lightweight.",
        "The dog sits on the dog on the dog on the mat.",
    ],
)
def test_what_is_no_sentence(content: str) -> None:
    """Nothing, one word, a broken-off phrase, a loop."""
    assert one_text(content) is None


def test_answers_are_read() -> None:
    """Text, reason, model and token counts of a chat completion."""
    body = {
        "model": "m-2",
        "choices": [{"finish_reason": "length", "message": {"content": "A dog"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    assert read_answer(json.dumps(body)) == ParsedAnswer("A dog", "length", "m-2", 9, 2)


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        (
            {"finish_reason": "stop", "message": {"content": None, "refusal": "No."}},
            ParsedAnswer(None, "refusal", None, None, None, "No."),
        ),
        (
            {"finish_reason": "content_filter", "message": {"content": None}},
            ParsedAnswer(None, "content_filter", None, None, None),
        ),
        ({"message": {}}, ParsedAnswer(None, "unknown", None, None, None)),
        (
            {"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [{"id": "1"}]}},
            ParsedAnswer(None, "tool_calls", None, None, None),
        ),
    ],
)
def test_answers_without_text(choice: dict[str, object], answer: ParsedAnswer) -> None:
    """A refusal, a filtered answer, an empty message, a tool call: read, not crashed on."""
    assert read_answer(json.dumps({"choices": [choice]})) == answer


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>Hm, a dog. It barks.</think>\n\nA dog barks.", "A dog barks."),
        ("<think>Hm.</think><thinking>More.</thinking>A dog barks.", "A dog barks."),
        ("so it is a dog</think>A dog barks.", "A dog barks."),
        ("A dog barks.<think>and now", "A dog barks."),
        ("<think>It goes on and on until the tokens are used up", None),
        ([{"type": "text", "text": "A dog "}, {"type": "text", "text": "barks."}], "A dog barks."),
        ([{"type": "image_url"}, "A dog barks.", None, 7], "A dog barks."),
        ("A dog\ud800 barks.\x00", "A dog\ufffd barks.\x00"),
        (7, None),
        ({"text": "A dog"}, None),
        ("", None),
    ],
)
def test_contents_of_every_form(content: object, text: str | None) -> None:
    """Thoughts go, parts are joined, half characters become U+FFFD, what is no text counts as missing."""
    body = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": content}}]})
    assert read_answer(body).text == text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    message=st.fixed_dictionaries({}, optional={"content": _JSON, "refusal": _JSON, "tool_calls": _JSON}),
    finish=_JSON,
    usage=_JSON | st.fixed_dictionaries({"prompt_tokens": _JSON, "completion_tokens": _JSON}),
    model=_JSON,
)
def test_every_body_that_is_let_through_can_be_read(
    message: dict[str, object], finish: object, usage: object, model: object
) -> None:
    """Whatever stands in the fields: an answer, at least one item, and texts that a file can hold."""
    body = json.dumps(
        {"choices": [{"message": message, "finish_reason": finish}], "usage": usage, "model": model}
    )
    check_body(body, where="test")
    answer = read_answer(body)
    for several in (False, True):
        items = parse_answer(answer, several=several)
        assert items
        for item in items:
            assert (item.text is None) == (item.reason is not None)
            f"{item.text}{item.said}{item.reason}{answer.model}{answer.finish_reason}".encode()
    for count in (answer.prompt_tokens, answer.completion_tokens):
        assert count is None or 0 <= count < 2**31


def said(content: str, *, finish: str = "stop") -> list[str | None]:
    items = parse_answer(ParsedAnswer(content, finish, None, None, None), several=True)
    return [item.text for item in items]


ONE, TWO, THREE = "A dog has a wet nose.", "The dog barks at night.", "One dog sleeps by the fire."
THE_THREE = json.dumps({"descriptions": [ONE, TWO, THREE]})


@pytest.mark.parametrize(
    "content",
    [
        THE_THREE,
        json.dumps({"descriptions": [ONE, TWO, THREE]}, indent=2),
        f"```json\n{THE_THREE}\n```",
        f"Here is the JSON object:\n{THE_THREE}\nI hope this helps!",
        json.dumps([ONE, TWO, THREE]),
        json.dumps({"texts": [ONE, TWO, THREE], "count": 3}),
        json.dumps({"descriptions": [{"text": ONE}, {"description": TWO}, {"id": 3, "text": THREE}]}),
        json.dumps({"1": ONE, "2": TWO, "3": THREE}),
        f'["{ONE}", "{TWO}", "{THREE}",]',
        f'{{"descriptions": ["{ONE}", "{TWO}", "{THREE}"]',
        f"1. {ONE}\n2. {TWO}\n3. {THREE}",
        f"1) {ONE}\n\n2) {TWO}\n\n3) {THREE}",
        f"Here are three:\n\n- {ONE}\n- {TWO}\n- {THREE}",
        f"* **{ONE}**\n* {TWO}\n* {THREE}",
        f"• {ONE}\n• {TWO}\n• {THREE}",
        f"1. {ONE} 2. {TWO} 3. {THREE}",
        f"1. A dog has\n   a wet nose.\n2. {TWO}\n3. {THREE}",
        f"Here you are:\n{ONE}\n{TWO}\n{THREE}",
        f"{ONE} {TWO} {THREE}",
        f'"{ONE}"\n"{TWO}"\n"{THREE}"',
    ],
)
def test_lists_of_every_form(content: str) -> None:
    """JSON as asked for, JSON of another form, numbered and bulleted lists, lines, sentences."""
    assert said(content) == [ONE, TWO, THREE]


def test_a_torn_list_keeps_its_whole_items() -> None:
    """Cut off or broken: what is whole stays, and one item says that the rest was lost."""
    for cut in range(len(THE_THREE)):
        answer = ParsedAnswer(THE_THREE[:cut], "length", None, None, None)
        items = parse_answer(answer, several=True)
        texts = [item.text for item in items if item.text is not None]
        whole = sum(THE_THREE[:cut].count(json.dumps(text)) for text in (ONE, TWO, THREE))
        assert texts == [ONE, TWO, THREE][:whole], THE_THREE[:cut]
        if whole < 3 and cut:
            lost = items[-1]
            assert lost.text is None and lost.reason
            if whole and lost.said:
                assert lost.reason == f"the list was cut off by max_tokens after {whole} whole texts"
    broken = f'{{"descriptions": ["{ONE}", The bad dog, "{TWO}"]}}'
    items = parse_answer(ParsedAnswer(broken, "stop", None, None, None), several=True)
    assert items[0].text == ONE and items[-1].reason == "the list is broken after 1 whole texts"


def test_a_cut_numbered_list_loses_its_last_item() -> None:
    """Without brackets nothing but the answer's end says that the last text is whole."""
    assert said(f"1. {ONE}\n2. {TWO}\n3. One dog sle", finish="length") == [ONE, TWO, None]
    assert said(f"1. {ONE}\n2. {TWO}\n3. {THREE}", finish="length") == [ONE, TWO, THREE]
    assert said(THE_THREE, finish="length") == [ONE, TWO, THREE]


def test_more_and_fewer_items_than_asked_for() -> None:
    """All that are there are kept; a list without any says so."""
    assert said(json.dumps({"descriptions": [ONE] * 30})) == [ONE] * 30
    assert said(json.dumps({"descriptions": [ONE]})) == [ONE]
    for content in ('{"descriptions": []}', "{}", "[]", '{"descriptions": null}', "```json\n```", "   "):
        [item] = parse_answer(ParsedAnswer(content, "stop", None, None, None), several=True)
        assert (item.text, item.said, item.reason) == (None, content.strip(), "holds no description")


def test_one_broken_item_is_no_reason_against_the_others() -> None:
    """Each item is parsed by itself and says what is wrong with it."""
    items = parse_answer(
        ParsedAnswer(json.dumps([ONE, "Dog.", "The dog looks like a"]), "stop", None, None, None),
        several=True,
    )
    assert [item.text for item in items] == [ONE, None, None]
    assert [item.reason for item in items] == [
        None,
        "breaks off inside a sentence",
        "holds no whole sentence",
    ]
    assert items[1].said == "Dog."


def test_what_a_refusal_says_is_kept() -> None:
    """The item of a declined request holds the words by which it was declined."""
    [item] = parse_answer(
        ParsedAnswer(None, "refusal", None, None, None, "I can't help with that."), several=True
    )
    assert item.said == item.reason == "I can't help with that."
    [item] = parse_answer(ParsedAnswer(None, "content_filter", None, None, None))
    assert (item.said, item.reason) == ("", "no text (content_filter)")


def test_what_the_question_repeats_is_no_loop() -> None:
    """A measured sentence may be said back as it is; the same words more often, or unasked, are a loop."""
    facts = "A box with sides 1.0 to 0.7 to 0.7, much warmer than the table and much warmer than the air."
    answer = ParsedAnswer(facts, "stop", None, None, None)
    [item] = parse_answer(answer, asked=f"Say this in other words: {facts}")
    assert item.text == facts
    [item] = parse_answer(answer, asked="What is it?")
    assert item.reason == "goes round in circles"
    more = ParsedAnswer(f"{facts[:-1]} and much warmer than the floor.", "stop", None, None, None)
    [item] = parse_answer(more, asked=facts)
    assert item.reason == "goes round in circles"
