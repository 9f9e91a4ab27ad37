"""The time of parsing and judging grows as the length of an answer, whatever the answer repeats."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import pytest

from data.sample import Category
from kb_builder.gates.faithful import category_phrases, contradiction, invented_name
from kb_builder.gates.gate import Candidate, CategoryGate, Rules
from kb_builder.gates.names import category_names, normalise
from kb_builder.parse.answers import ParsedAnswer, parse_answer, read_answer

PATTERNS = [
    ".", "a. ", "e.g. ", "word ", "Dog. ", "<", "<|", "<b>", "<!--", "{", "[", '{"', '["', "[{", '", "',
    '"a": ', "&", "&amp;", "\\", "\\n", '"', "'", "“", "\n", " ", "**", " *a", "_", " _a", "`", "~",
    "- \n", "\n1. x", "1. ", "|", "| a |\n", "# ", "<think>", "</think>", "<|im_end|>", "<item>x</item>",
    "\\boxed{", "User: ", "\nnote: ", "final answer: ", "Sure! ", "\u0301\u0316", "\u200b", "I'm sorry ",
    "as a ", "/*", "// ", "犬", "🐕",
]  # fmt: skip
SHORT = 4_000
FACTOR = 4
QUESTION = 'Write about "C#". Use the words "C#".'
NAMES = category_names([Category("c", "C#"), Category("d", "big dog"), Category("e", "small cat")])
PHRASES = category_phrases([Category("d", "big dog")])


def parse(content: str) -> None:
    """All that is made of an answer's body, as one text and as several."""
    body = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": content}}]})
    answer = read_answer(body, asked=QUESTION)
    for several in (False, True):
        for item in parse_answer(answer, several=several, asked=QUESTION):
            assert (item.text is None) == (item.reason is not None)


def judge(content: str) -> None:
    """Every gate, by itself: most such answers are no texts, and reach none."""
    text = f"The big dog {content}"
    rules = Rules(token_limit=10**9)
    assert CategoryGate(NAMES["d"], rules).judge([Candidate("1", text)])[0].status != "unparsed"
    contradiction(text, "a loud dog of 3.0 m")
    invented_name(text, "a dog", PHRASES)
    normalise(text)


def seconds(work: Callable[[str], None], content: str) -> float:
    """CPU seconds, the least of several times: what else the machine does only adds to it."""
    taken = []
    for _ in range(2):
        start = time.process_time()
        work(content)
        taken.append(time.process_time() - start)
    return min(taken)


def exponent(work: Callable[[str], None], pattern: str, wrap: str) -> float:
    """k of time ~ length^k, from a length at which the time is more than the clock's noise."""
    repeats = SHORT // len(pattern)
    short = seconds(work, wrap.replace("…", pattern * repeats))
    while short < 0.003 and repeats * len(pattern) < 60_000:
        repeats *= 2
        short = seconds(work, wrap.replace("…", pattern * repeats))
    long = seconds(work, wrap.replace("…", pattern * repeats * FACTOR))
    return math.log(max(long, 1e-4) / max(short, 1e-4), FACTOR)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_time_grows_as_the_length(pattern: str) -> None:
    """Below n^1.3, for the parser alone, in a text and in JSON, and for the gates."""
    for work, wrap in (
        (parse, "…"),
        (parse, "A dog barks. … at night."),
        (parse, '{"descriptions": ["…'),
        (judge, "…"),
    ):
        assert _least(work, pattern, wrap) < 1.3, (work.__name__, wrap)


def _least(work: Callable[[str], None], pattern: str, wrap: str) -> float:
    """Of up to four trials: another process may take the processor's caches in one of them."""
    found = math.inf
    for _ in range(4):
        found = min(found, exponent(work, pattern, wrap))
        if found < 1.3:
            break
    return found


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        json.dumps("[" * 100_000 + "]" * 100_000),
        "[" * 900 + '"A dog barks at night."' + "]" * 900,
        "<a>" * 50_000 + "</a>" * 50_000,
        "<think>" * 50_000 + "A dog barks at night." + "</think>" * 50_000,
    ],
)
def test_nesting_without_end_is_no_text(content: str, several: bool) -> None:
    """One refusal, and no RecursionError."""
    [item] = parse_answer(ParsedAnswer(content, "stop", None, None, None), several=several)
    assert item.text is None and item.reason


def test_whole_texts_before_a_nest_stay() -> None:
    """What was whole before the list went wrong is kept."""
    content = '{"descriptions": ["A dog barks at night.", ' + "[" * 100_000 + "]" * 100_000 + "]}"
    items = parse_answer(ParsedAnswer(content, "stop", None, None, None), several=True)
    assert [item.text for item in items] == ["A dog barks at night.", None]


def test_a_body_that_is_nested_without_end_is_no_answer() -> None:
    """A ledger may hold one from before bodies were bounded."""
    body = '{"choices": [{"message": {"content": "A dog."}}], "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = read_answer(body)
    assert answer.text is None
    [item] = parse_answer(answer)
    assert item.reason == "nested too deep to be read (unknown)"


def test_a_text_without_an_end_is_none() -> None:
    """One sentence of 60,000 letters is no description."""
    [item] = parse_answer(
        ParsedAnswer("A dog is " + "very " * 2 + "x" * 60_000 + ".", "stop", None, None, None)
    )
    assert item.reason == "is 60,020 characters long without a break"
