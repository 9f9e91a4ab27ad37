"""Sentences about a subject: English in form, random in their words, made in microseconds.

A sentence is a template whose places are filled from the lists of `words`. Two sentences of one template
share its few function words, the subject's name, and little else: among a thousand about one subject
practically no two have character 3-grams with a Jaccard similarity of 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from kb_builder.fake_openai.draws import number
from kb_builder.fake_openai.words import (
    ADJECTIVES_1,
    ADJECTIVES_2,
    CONJUNCTIONS,
    HAPPENINGS,
    MANNERS,
    NOUNS_1,
    NOUNS_2,
    PREPOSITIONS,
    SCENES,
    VERBS_1,
    VERBS_2,
)

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I am unable to describe this.",
    "I cannot provide a description of this subject.",
    "I am sorry, I do not have enough information about it.",
)
_REPEATED = 8  # texts per subject that its duplicates repeat


def _with_article(words: Sequence[str]) -> list[str]:
    return [f"an {word}" if word[0] in "aeiou" else f"a {word}" for word in words]


_PLACES: dict[str, Sequence[str]] = {
    "adj": ADJECTIVES_1,
    "adj-a": [word for word in ADJECTIVES_1 if word[0] not in "aeiou"],
    "adj-an": [word for word in ADJECTIVES_1 if word[0] in "aeiou"],
    "an adj": _with_article(ADJECTIVES_1),
    "adj2": ADJECTIVES_2,
    "an adj2": _with_article(ADJECTIVES_2),
    "noun": NOUNS_1,
    "noun2": NOUNS_2,
    "does": VERBS_1,
    "does2": VERBS_2,
    "beside": PREPOSITIONS,
    "while": CONJUNCTIONS,
    "place": SCENES,
    "happens": HAPPENINGS,
    "how": MANNERS,
}

_SENTENCES = """
The {S} {does} {an adj} {noun} {beside} its {adj2} {noun2} {while} the {place} {happens} {how}.
{An adj} {noun} {beside} its {adj2} {noun2} tells the {S} from the {place} that {happens} {how}.
Its {adj} {noun} and its {adj2} {noun2} mark the {S} {while} the {place} {happens} {how}.
With {an adj} {noun} and {an adj2} {noun2}, the {S} {does} the {place} that {happens} {how}.
This {S} {does} {an adj} {noun}, and {an adj2} {noun2} {does2} the {place} {how}.
One {S} {does} its {adj} {noun} {beside} {an adj2} {noun2} {while} some {place} {happens} {how}.
Every {S} has {an adj} {noun} that {does2} its {adj2} {noun2} {while} the {place} {happens}.
By its {adj} {noun} and its {adj2} {noun2} a stranger knows the {S} {while} the {place} {happens}.
When the {place} {happens} {how}, the {S} {does} {an adj} {noun} and {an adj2} {noun2}.
Where the {place} {happens}, {an adj} {noun} and {an adj2} {noun2} belong {how} to the {S}.
Not all see how the {S} {does} {an adj} {noun} {beside} the {noun2} when the {place} {happens}.
Seen from the {place}, the {S} {does} {an adj} {noun}, which {does2} {an adj2} {noun2} {how}.
There is {an adj} {noun} on the {S}, and the {place} {does2} its {adj2} {noun2} {how}.
Few miss the {adj} {noun} of the {S}, which {does2} {an adj2} {noun2} {while} the {place} {happens}.
Touch the {S}, and {an adj} {noun} {does} its {adj2} {noun2} {while} the {place} {happens} {how}.
Here the {S} {how} {does} {an adj} {noun}, its {adj2} {noun2} {beside} the {place}.
Children find {an adj} {noun} {beside} the {S} {while} its {adj2} {noun2} {happens} {how}.
To the ear the {S} {does} {an adj} {noun} {while} the {noun2} {happens} {beside} the {place}.
Its {adj2} {noun2} {happens} {how}, so the {S} {does} {an adj} {noun} {beside} the {place}.
{How}, the {adj2} {noun2} of the {S} {does2} {an adj} {noun} {beside} the {place}.
""".strip().splitlines()
# Continuations of an opening, which holds the subject.
_CONTINUATIONS = """
{an adj} {noun} {beside} its {adj2} {noun2} {while} the {place} {happens} {how}.
{an adj} {noun} that {does2} {an adj2} {noun2} {while} the {place} {happens}.
{an adj} {noun} and {an adj2} {noun2}, {while} the {place} {happens} {how}.
{an adj} {noun} {beside} the {place}, with {an adj2} {noun2} that {happens} {how}.
{an adj} {noun}, {an adj2} {noun2} and some {place} that {happens} {how}.
""".strip().splitlines()

_Form = tuple[str, tuple[Sequence[str] | None, ...]]  # a %-format, and what fills it (None: the subject)


def _form(line: str) -> _Form:
    places = re.findall(r"\{(.*?)\}", line)
    return re.sub(r"\{.*?\}", "%s", line), tuple(
        None if place == "S" else _PLACES[place.lower()] for place in places
    )


_SENTENCE_FORMS = [_form(line) for line in _SENTENCES]
_CONTINUATION_FORMS = {
    "": [_form(line) for line in _CONTINUATIONS],
    **{
        article: [_form(line.replace("{an adj}", f"{{adj-{article}}}", 1)) for line in _CONTINUATIONS]
        for article in ("a", "an")
    },
    **{
        article: [_form(line.replace("{an adj}", "{adj}", 1)) for line in _CONTINUATIONS]
        for article in ("the", "its", "their", "this", "of its")
    },
}


def sentence(draw: Random, subject: str) -> str:
    """One sentence of 10 to 20 words (a one-word subject: 10 to 18) that names the subject."""
    chance = draw.random
    text = _fill(_SENTENCE_FORMS[int(chance() * len(_SENTENCE_FORMS))], draw, subject)
    return text[0].upper() + text[1:]


def continuation(draw: Random, opening: str) -> str:
    """The rest of a sentence that starts with `opening`, with the space between them."""
    forms = _CONTINUATION_FORMS.get(opening.rsplit(" ", 1)[-1].casefold(), _CONTINUATION_FORMS[""])
    text = _fill(forms[int(draw.random() * len(forms))], draw, "")
    return text if opening.endswith(" ") else f" {text}"


def repeated(draw: Random, subject: str, *, seed: int) -> str:
    """One of the few sentences that a subject's duplicates repeat: verbatim, or with one more word."""
    which = int(draw.random() * _REPEATED)
    text = sentence(Random(number(seed, subject, which)), subject)
    return text if draw.random() < 0.5 else f"{text[:-1]} too."


def _fill(form: _Form, draw: Random, subject: str) -> str:
    chance = draw.random
    pattern, lists = form
    return pattern % tuple(
        [subject if words is None else words[int(chance() * len(words))] for words in lists]
    )
