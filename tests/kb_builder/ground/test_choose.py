"""Choices: what is asked, how answers are read, and when a word counts as known."""

from __future__ import annotations

import json
import math

import pytest

from kb_builder.ground.choose import (
    ChoiceQuestion,
    Expected,
    from_choices,
    known_words,
    plan_choices,
    questions,
    read_expected,
)
from kb_builder.ground.known import Opening
from kb_builder.ground.parts import NamePart

WORDS = ("cold", "soft", "hard")


def _question(**other: object) -> ChoiceQuestion:
    base: dict[str, object] = {
        "id": "touch",
        "aspect": "material",
        "modality": "image",
        "of": ("head", "whole"),
        "task": "How things feel.",
        "lists": ("Ice: cold. Wool: soft.", "Rock: hard. Snow: cold."),
        "words": {word: word for word in WORDS},
        "openings": ("To the touch, the {name}|feels", "The {name}|is"),
        "clause": "feels",
    }
    return ChoiceQuestion(**{**base, **other})  # type: ignore[arg-type]


def _expected(cold: float, soft: float, hard: float, fit: float = 0.0) -> Expected:
    shares = (cold, soft, hard)
    return Expected({word: math.log(share) for word, share in zip(WORDS, shares, strict=True)}, fit)


def _answer(shares: dict[str, float]) -> str:
    listed = [{"token": token, "prob": share} for token, share in shares.items()]
    choice = {"message": {"content": "x"}, "logprobs": {"content": [{"top_probs": listed}]}}
    return json.dumps({"choices": [choice]})


def test_the_questions_can_be_asked() -> None:
    """Two or more lists that end in a full stop, words of one piece, openings that name the thing once."""
    for question in questions():
        assert len(question.lists) > 1
        assert all(each.endswith(".") for each in question.lists)
        assert all(word.isalpha() and word.islower() for word in question.words)
        assert len(question.openings) == 2
        for each in question.openings:
            start, bar, then = each.partition("|")
            assert start.count("{name}") == 1
            assert (bar, bool(then)) == ("|", True)
        shown = " ".join(question.lists)
        assert sum(f": {word}." in shown for word in question.words) >= min(3, len(question.words))
    assert len({question.id for question in questions()}) == len(questions())


def test_every_thing_is_asked_by_every_list_beside_anything() -> None:
    """Thing by thing; what is asked about materials is not asked of the noun; words are lifted and listed."""
    parts = {"glass": [NamePart("glass", "modifier", "glass"), NamePart("wood", "modifier", "glass")]}
    parts["cone"] = [NamePart("cone", "head", "cone")]
    asked = list(plan_choices(parts, [_question(of=("modifier",))], endpoint="e", model="m", seed=0))
    words = ["glass", "wood", "Thing", "Object"]
    assert [(each.list_number, each.word) for each in asked] == [(i, word) for word in words for i in (0, 1)]
    request = asked[0].request
    assert request.messages == (("user", "How things feel."), ("assistant", "Ice: cold. Wool: soft. Glass:"))
    assert request.max_tokens == 1
    assert set(request.extra["logit_bias"]) == {" cold", " soft", " hard"}
    assert request.extra["top_logprobs"] == 6
    whole = {"": [NamePart("car horn", "whole", "")]}
    asked = list(plan_choices(whole, [_question()], endpoint="e", model="m", seed=0))
    assert [each.word for each in asked[::2]] == ["car horn", "Thing", "Object"]
    assert not list(plan_choices(whole, [_question(of=("modifier",))], endpoint="e", model="m", seed=0))
    code = {"": [NamePart("KP-4211", "whole", "")]}
    assert not list(plan_choices(code, [_question()], endpoint="e", model="m", seed=0))


def test_few_lists_are_asked_at_a_time() -> None:
    """So that a server keeps each of them in mind: it reads what follows a beginning that it knows."""
    lists = tuple(f"Ice: cold. Number {number}: soft." for number in range(12))
    parts = {"": [NamePart("car horn", "whole", ""), NamePart("dog", "whole", "")]}
    asked = list(plan_choices(parts, [_question(lists=lists)], endpoint="e", model="m", seed=0))
    order = [(each.list_number, each.word) for each in asked]
    words = ["car horn", "dog", "Thing", "Object"]
    assert order[:32] == [(number, word) for word in words for number in range(8)]
    assert order[32:] == [(number, word) for word in words for number in range(8, 12)]


def test_shares_are_among_the_words_and_the_fit_is_beside_the_likeliest_other() -> None:
    """The lift of 40 nats is taken off again."""
    tiny = math.exp(-40.0)
    found = read_expected(_answer({" soft": 0.6, " hard": 0.2, " like": 0.4 * tiny, " a": 0.1 * tiny}), WORDS)
    assert found is not None
    assert math.exp(found.log_share["soft"]) == pytest.approx(0.75)
    assert math.exp(found.log_share["hard"]) == pytest.approx(0.25)
    assert found.log_share["cold"] < -10
    assert math.exp(found.fit) == pytest.approx(2.0)


@pytest.mark.parametrize("body", ["", "{}", '{"choices": []}', _answer({}), _answer({" like": 0.5}), "[1]"])
def test_without_probabilities_nothing_is_read(body: str) -> None:
    """Other servers do not give them."""
    assert read_expected(body, WORDS) is None


def test_a_word_counts_where_it_is_expected_of_this_thing_more_than_of_others() -> None:
    """Not for being likely of everything, and not where it is unlikely of the thing itself."""
    expected = {
        "ice": [_expected(0.5, 0.3, 0.2)] * 2,
        "wool": [_expected(0.1, 0.7, 0.2)] * 2,
        "Thing": [_expected(0.1, 0.7, 0.2)] * 2,
    }
    assert known_words(_question(), expected, grid=True) == {"ice": "cold"}
    rare = {"ice": [_expected(0.08, 0.72, 0.2)] * 2, "Thing": [_expected(0.01, 0.79, 0.2)] * 2}
    assert known_words(_question(), rare, grid=True) == {}
    lists_disagree = {**expected, "ice": [_expected(0.5, 0.3, 0.2), _expected(0.02, 0.78, 0.2)]}
    assert known_words(_question(), lists_disagree, grid=True) == {}


def test_whole_names_are_judged_more_strictly() -> None:
    """They are of any kind: what is enough among words of one kind is not among them."""
    things = {"ice": [_expected(0.3, 0.5, 0.2)] * 2, "Thing": [_expected(0.08, 0.72, 0.2)] * 2}
    assert known_words(_question(), things, grid=True) == {"ice": "cold"}
    assert known_words(_question(), things, grid=False) == {}
    sure = {**things, "ice": [_expected(0.5, 0.3, 0.2)] * 2}
    assert known_words(_question(), sure, grid=False) == {"ice": "cold"}


def test_a_question_that_does_not_fit_says_nothing() -> None:
    """Where other words are far likelier than all of the question's."""
    others = {"Thing": [_expected(0.1, 0.7, 0.2)] * 2}
    fits = {"rain": [_expected(0.5, 0.3, 0.2, fit=-1.0)] * 2, **others}
    unfit = {"rain": [_expected(0.5, 0.3, 0.2, fit=-3.0)] * 2, **others}
    assert known_words(_question(), fits, grid=True) == {"rain": "cold"}
    assert known_words(_question(), unfit, grid=True) == {}


def test_answers_that_are_missing_leave_a_thing_out() -> None:
    """A killed run has some lists only; a single thing has nothing to be compared with."""
    assert known_words(_question(), {"ice": [_expected(0.5, 0.3, 0.2)]}, grid=True) == {}
    whole = {"ice": [_expected(0.5, 0.3, 0.2)] * 2}
    assert known_words(_question(), whole, grid=True) == {}
    assert known_words(_question(), {**whole, "Thing": [_expected(0.1, 0.7, 0.2)]}, grid=True) == {}


def test_statements_do_not_repeat_the_name() -> None:
    """ "The glass cone is made of glass" is none; the words of the text are those of the question."""
    parts = [NamePart("glass", "modifier", "glass"), NamePart("cone", "head", "cone")]
    made_of = _question(id="stuff", words={"glass": "glass", "metal": "metal"})
    shaped = _question(id="like", of=("head",), words={"ring": "a ring"}, openings=("The {name}|is like",))
    chosen = {("stuff", "glass", "glass"): "glass", ("like", "cone", "cone"): "ring"}
    (known,) = from_choices(parts, chosen, [made_of, shaped])
    assert (known.source, known.id, known.thing, known.says) == ("model", "like", "cone", "a ring")
    assert known.openings == (Opening("The {name}", "is like a ring"),)
