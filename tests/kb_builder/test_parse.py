"""From raw answers to sentences."""

from __future__ import annotations

import json

import pytest

from kb_builder.parse import Answer, parse_text, read_answer


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
    assert parse_text(content, opening="", finish_reason="stop") == text


def test_an_opening_is_put_in_front_once() -> None:
    """Servers that repeat the opening and servers that do not give the same text."""
    opening = "When struck, the dog"
    for content in ("When struck, the dog barks loudly", " barks loudly.", "barks loudly"):
        assert (
            parse_text(content, opening=opening, finish_reason="stop") == "When struck, the dog barks loudly."
        )
    text = "When struck, the dog's bark is loud."
    assert parse_text("'s bark is loud", opening=opening, finish_reason="stop") == text


def test_an_opening_that_stays_alone_says_nothing() -> None:
    """A model that adds a full stop, or one word, has not described anything."""
    for content in (".", " barks.", "The dog makes a sound.", ""):
        assert parse_text(content, opening="The dog makes a sound", finish_reason="stop") is None


def test_a_cut_answer_keeps_its_whole_sentences() -> None:
    """What max_tokens cut off is no sentence; if nothing else is there, there is no text."""
    content = "A dog has a wet nose. It likes to"
    assert parse_text(content, opening="", finish_reason="length") == "A dog has a wet nose."
    assert parse_text("A dog has a wet", opening="", finish_reason="length") is None


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
    assert parse_text(content, opening="", finish_reason="stop") is None


def test_answers_are_read() -> None:
    """Text, reason, model and token counts of a chat completion."""
    body = {
        "model": "m-2",
        "choices": [{"finish_reason": "length", "message": {"content": "A dog"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    assert read_answer(json.dumps(body)) == Answer("A dog", "length", "m-2", 9, 2)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"finish_reason": "stop", "message": {"content": None, "refusal": "No."}}, "refusal"),
        ({"finish_reason": "content_filter", "message": {"content": None}}, "content_filter"),
        ({"message": {}}, "unknown"),
    ],
)
def test_answers_without_text(choice: dict[str, object], reason: str) -> None:
    """A refusal, a filtered answer, an empty message: read, not crashed on."""
    assert read_answer(json.dumps({"choices": [choice]})) == Answer(None, reason, None, None, None)
