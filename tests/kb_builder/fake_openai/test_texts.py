"""The fake's sentences: English in form, unlike one another, and kept by our own parser and gates."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from random import Random

import pytest

from kb_builder.fake_openai import texts as words
from kb_builder.fake_openai.texts import continuation, repeated, sentence
from kb_builder.gates.names import normalise
from kb_builder.parse.answers import ParsedAnswer, parse_answer


def grams(text: str) -> frozenset[str]:
    """Character 3-grams of the normalised text."""
    plain = normalise(text)
    return frozenset(plain[i : i + 3] for i in range(len(plain) - 2))


def test_sentences_have_the_length_of_sentences() -> None:
    """10 to 18 words about a subject of one word, always with its name, a capital and a full stop."""
    draw = Random(0)
    for _ in range(2_000):
        text = sentence(draw, "sphere")
        assert 10 <= len(text.split()) <= 19
        assert "sphere" in text and text[0].isupper() and text.endswith(".")


def test_a_thousand_sentences_are_no_near_duplicates() -> None:
    """No two of one subject have a Jaccard similarity of 0.7 of their character 3-grams."""
    draw = Random(0)
    sets = [grams(sentence(draw, "Shetland sheepdog")) for _ in range(1_000)]
    likest = max(
        len(one & other) / (len(one) + len(other) - len(one & other)) for one, other in combinations(sets, 2)
    )
    assert likest < 0.7


def test_sentences_pass_the_parser_unchanged() -> None:
    """None breaks off, goes round in circles or looks like a preamble."""
    draw = Random(0)
    for _ in range(3_000):
        text = sentence(draw, "wooden sphere")
        assert parse_answer(ParsedAnswer(text, "stop", None, None, None))[0].text == text


@pytest.mark.parametrize("opening", ["The wooden sphere has", "The wooden sphere is a", "By its"])
def test_continuations_make_whole_sentences(opening: str) -> None:
    """With the opening before it, the rest is a sentence that the parser keeps."""
    draw = Random(0)
    for _ in range(300):
        rest = continuation(draw, opening)
        answer = ParsedAnswer(rest, "stop", None, None, None)
        assert parse_answer(answer, opening=opening)[0].text == opening + rest
        assert not rest.startswith((" a a", " an a")) or not opening.endswith(" a")


def test_duplicates_are_few_and_belong_to_their_subject() -> None:
    """They repeat eight texts per subject, some with a word more."""
    draw = Random(0)
    seen = Counter(repeated(draw, "bell", seed=3) for _ in range(500))
    assert 8 < len(seen) <= 16
    assert all("bell" in text for text in seen)


def test_the_two_lists_of_a_kind_share_no_word() -> None:
    """Else a sentence could say a thing twice, which the parser takes for a small model's loop."""
    for one, other in (("ADJECTIVES_1", "ADJECTIVES_2"), ("NOUNS_1", "NOUNS_2"), ("VERBS_1", "VERBS_2")):
        assert not set(getattr(words, one)) & set(getattr(words, other))
