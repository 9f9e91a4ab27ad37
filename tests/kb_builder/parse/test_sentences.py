"""Formatting goes, words stay."""

from __future__ import annotations

import pytest

from kb_builder.parse.answers import ParsedAnswer, parse_answer


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("e.g. *Canis lupus* howls at the moon.", "e.g. Canis lupus howls at the moon."),
        ("A **bold** and __bold__ and ***both*** dog _here_.", "A bold and bold and both dog here."),
        ("**A dog with *big* ears** runs home.", "A dog with big ears runs home."),
        ("A dog **barks at night.", "A dog barks at night."),
        ("A ~~cat~~ dog `barks` at night.", "A cat dog barks at night."),
        ("[A dog](https://a.b/c) barks at night.", "A dog barks at night."),
        ("A dog\\* barks \\_here\\_ at night.", "A dog* barks _here_ at night."),
        ("A ==wet== dog has ||four|| legs.", "A wet dog has four legs."),
        ("A dog has $4$ legs and costs $5 or $6 a day.", "A dog has 4 legs and costs $5 or $6 a day."),
        ("A▁dog▁barks▁at▁night.", "A dog barks at night."),
        ("A dog<0x20>barks at a caf<0xC3><0xA9>.", "A dog barks at a café."),
        ("A dog barks at night. Let me know if this is fine.", "A dog barks at night."),
        (
            "A dog barks at night. If you need a guard, it is one.",
            "A dog barks at night. If you need a guard, it is one.",
        ),
        ('It eats meat, bones, etc., "treats" and more.', 'It eats meat, bones, etc., "treats" and more.'),
        ("A dog barks at night.\\n\\n", "A dog barks at night."),
        ("A dog &amp; a cat &lt;3 it, R&amp;D.", "A dog & a cat <3 it, R&D."),
        ("The dog&#39;s nose &#x27;s wet&nbsp;here.", "The dog's nose 's wet here."),
        ("The dog&#39s nose is wet &amp cold.", "The dog's nose is wet & cold."),
        ("The dog&amp;#39;s nose is wet.", "The dog's nose is wet."),
        ("A dog<br>barks<br/>at <i>night</i>.", "A dog barks at night."),
        ("A dog\u2028barks at night.", "A dog barks at night."),
        ("## A dog\n\n- It barks at night.\n- It sleeps by day.", "It barks at night. It sleeps by day."),
        ("**Dog:** It barks at night.", "Dog: It barks at night."),  # the only place that names the subject
        ("**Dog:** A dog barks at night.", "A dog barks at night."),
        ('He says "wow" to a "big" dog.', 'He says "wow" to a "big" dog.'),
        ("A dog runs at 30 km/h.", "A dog runs at 30 km/h."),
        ("It tastes of vitamin C.", "It tastes of vitamin C."),
        ("She lives in Washington D.C. with a dog.", "She lives in Washington D.C. with a dog."),
    ],
)
def test_formatting_goes(content: str, text: str) -> None:
    """Markdown, HTML and entities, in one text."""
    [item] = parse_answer(ParsedAnswer(content, "stop", None, None, None), asked='Write about "dog".')
    assert item.text == text


@pytest.mark.parametrize("finish", ["stop", "end_turn", "STOP", "eos"])
def test_every_name_of_a_natural_end_counts(finish: str) -> None:
    """Endpoints call it differently; the last full stop may lack."""
    [item] = parse_answer(ParsedAnswer("A dog barks at night", finish, None, None, None))
    assert item.text == "A dog barks at night."


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS"])
def test_every_name_of_a_cut_counts(finish: str) -> None:
    """What was cut off loses its torn sentence."""
    [item] = parse_answer(ParsedAnswer("A dog barks at night. It al", finish, None, None, None))
    assert item.text == "A dog barks at night."
