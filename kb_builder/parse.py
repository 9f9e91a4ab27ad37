"""Raw answers to texts: pure functions over what the ledger holds, to be run again for free."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

# Part of every row's id: raise it when the same answer would give another text or status.
PARSER_VERSION = "2"
MAX_SENTENCES = 3

_PREAMBLE = re.compile(
    r"^(sure|certainly|of course|okay|ok|here(?: is|'s| are))\b[^.!?\n]*[:!]\s*", re.IGNORECASE
)
_MARKUP = re.compile(r"^\s*(?:[-*•>#]+|\d+[.)])\s+|[*_`#]{1,3}")
_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|vs|cf|dr|mr|mrs|st|no|fig|[a-z])\.$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_WORD_OR_FIGURE = re.compile(r"\d+(?:[.,]\d+)*|[\w'’-]+")
_FEWEST_WORDS = 2  # that go on from an opening; fewer say nothing

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|$)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"^.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^\s*```[\w-]*\s*\n?|\n?\s*```\s*$")
_ITEM = re.compile(r"^\s*(?:[-*•–—]|\(?\d{1,3}[.):])\s+")
_NUMBER_INSIDE = re.compile(r"(?:(?<=\s)|^)\(?(\d{1,3})[.)]\s+(?=[\"“A-Z])")
_JSON_START = re.compile(r"[\[{]\s*(?:[\"\[{\]}]|$)")
_LARGEST_COUNT = 2**31 - 1  # of a column of the table

# fmt: off
# A sentence that ends here was broken off, whatever the model says.
_DANGLING = frozenset({
    "a", "an", "the", "of", "and", "or", "but", "with", "to", "in", "on",
    "at", "by", "for", "from", "as", "is", "are", "was", "its", "it's", "their",
    "his", "her", "that", "which", "very", "like", "into", "than", "be", "has", "have",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer's body says. `text` is None where the model declined or said nothing.

    `refusal` is what it said when it declined; `finish_reason` is `refusal` then.
    """

    text: str | None
    finish_reason: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One text of an answer, or what the model said instead (`text` is None, `reason` says why)."""

    text: str | None
    said: str
    reason: str | None = None


def read_answer(body: str) -> Answer:
    """The first choice of a chat completion: any JSON text that `client.check_body` has let through.

    Reasoning (`<think>…</think>`) is no part of the answer. Where a field is not what the protocol says, it
    counts as missing.
    """
    value = json.loads(body)
    choice = value["choices"][0]
    usage = value.get("usage")
    message = choice["message"]
    refusal = _words(message.get("refusal")).strip() or None
    finish = choice.get("finish_reason")
    model = value.get("model")
    text = None if refusal else _without_thoughts(_words(message.get("content")))
    return Answer(
        text=text or None,
        finish_reason="refusal" if refusal else finish if isinstance(finish, str) and finish else "unknown",
        model=_clean(model) if isinstance(model, str) else None,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refusal=refusal,
    )


def parse_answer(
    answer: Answer, *, opening: str = "", several: bool = False, asked: str = ""
) -> tuple[Item, ...]:
    """The texts of an answer, at least one item: where there is none, the item says what came instead.

    `opening` is the start that the model was given to go on from (one text); `several` says that a list of
    texts was asked for, in the JSON schema of `prompts.several` or, from models that ignore a schema, as a
    numbered or bulleted list. `asked` is the question in words: repeating what it repeats is no loop.
    """
    if answer.text is None:
        return (Item(None, answer.refusal or "", answer.refusal or f"no text ({answer.finish_reason})"),)
    content = answer.text
    if not several:
        return (_item(content, opening, answer.finish_reason, asked),)
    found = _split(content)
    cut = answer.finish_reason == "length"
    if not found.texts:
        reason = "was cut off by max_tokens before the first whole text" if cut else "holds no description"
        return (Item(None, content.strip(), reason),)
    items = [_item(text, "", "stop", asked) for text in found.texts]
    if found.open_end and cut:
        items[-1] = _item(found.texts[-1], "", "length", asked)
    if found.rest is not None:
        how = "was cut off by max_tokens" if cut else "is broken"
        items.append(Item(None, found.rest, f"the list {how} after {len(found.texts)} whole texts"))
    return tuple(items)


def parse_text(content: str, *, opening: str, finish_reason: str) -> str | None:
    """The first complete sentences (at most `MAX_SENTENCES`) of an answer, on one line, or None.

    `opening` is the start that the model was given to go on from; servers differ in whether they repeat it.
    An answer that stopped by itself may lack its last full stop, one that was cut off (`length`) loses its
    last, torn sentence. A text that breaks off inside a phrase, adds nothing to the opening, or goes round in
    circles is none.
    """
    return _item(content, opening, finish_reason, "").text


def _item(content: str, opening: str, finish_reason: str, asked: str) -> Item:
    said = content.strip().removeprefix(opening)
    if opening and len(_WORD.findall(said)) < _FEWEST_WORDS:
        return Item(None, content.strip(), "adds nothing to the opening")
    text = f"{opening} {said.strip()}" if opening and not said.startswith("'") else opening + said
    text = " ".join(_MARKUP.sub("", line) for line in text.splitlines())
    text = " ".join(text.split())
    text = _PREAMBLE.sub("", text).strip('"“” ')
    if finish_reason == "stop" and text and not _END.search(text[-3:]):
        text = text.rstrip(" ,;:-–—") + "."
    result = " ".join(_sentences(text)[:MAX_SENTENCES])
    reason = (
        "holds no whole sentence"
        if not result
        else "breaks off inside a sentence"
        if _broken_off(result)
        else "goes round in circles"
        if _circular(result, asked)
        else None
    )
    return Item(None if reason else result, content.strip(), reason)


def _words(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which some are text."""
    if isinstance(content, str):
        return _clean(content)
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return _clean("".join(part for part in parts if isinstance(part, str)))


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can carry and no file can hold, and without NULs."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")


def _without_thoughts(text: str) -> str:
    """A thought that was cut off takes the rest with it; some servers send the closing tag alone."""
    said = _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))
    return said if said == text else said.strip()


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None


@dataclass(frozen=True, slots=True)
class _Found:
    """The texts of an answer that should hold several."""

    texts: Sequence[str]
    rest: str | None = None  # what follows the last whole text where a JSON list is torn
    open_end: bool = False  # nothing but the answer's end says that the last text ends there


def _split(content: str) -> _Found:
    content = _FENCE.sub("", content.strip())
    start = _JSON_START.search(content)
    if start is not None and not _ITEM.match(content):
        found = _read_json(content[start.start() :])
        if found is not None:
            return found
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    marked = [number for number, line in enumerate(lines) if _ITEM.match(line)]
    if len(marked) > 1:
        # Lines without a mark go on from the one above; what stands before the first is an introduction.
        edges = [*marked, len(lines)]
        chunks = [lines[one:other] for one, other in pairwise(edges)]
        return _Found([_ITEM.sub("", " ".join(chunk)) for chunk in chunks], open_end=True)
    inside = _numbered(" ".join(lines))
    if len(inside) > 1:
        return _Found(inside, open_end=True)
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    return _Found(lines if len(lines) > 1 else _sentences(" ".join(lines)) or lines, open_end=True)


def _numbered(text: str) -> list[str]:
    """The texts of `1. … 2. … 3. …` on one line; none where the numbers do not count up from 1."""
    marks = list(_NUMBER_INSIDE.finditer(text))
    if not marks or [int(mark[1]) for mark in marks] != list(range(1, len(marks) + 1)):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]


def _read_json(content: str) -> _Found | None:
    """The texts of a JSON list or object, whole or torn; None for what is no JSON."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(content)
    except (ValueError, RecursionError):
        return _salvage(content)
    texts = list(_texts_in(value))
    return _Found(texts) if texts or not content[end:].strip() else None


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield _clean(value)
    elif isinstance(value, Mapping):
        listed = value.get("descriptions")
        lists = [listed] if isinstance(listed, list) else [v for v in value.values() if isinstance(v, list)]
        texts = [v for v in value.values() if isinstance(v, str)]
        yield from _texts_in(lists[0] if lists else texts)
    elif isinstance(value, Sequence):
        for each in value:
            if isinstance(each, Mapping):  # {"description": "…"}: one text, its other fields are about it
                yield from next(([_clean(v)] for v in each.values() if isinstance(v, str)), [])
            elif isinstance(each, str):
                yield _clean(each)


def _salvage(content: str) -> _Found | None:
    """The whole strings of a torn JSON list, and what follows the last; None where there is no list."""
    at = content.find("[")
    if at < 0:
        return None
    decoder = json.JSONDecoder(strict=False)
    texts: list[str] = []
    at += 1
    while True:
        while at < len(content) and content[at] in " \t\r\n,":
            at += 1
        try:
            value, end = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            break
        if content[end:].lstrip()[:1] not in {"", ",", "]"}:  # a quotation mark inside a text
            break
        texts += _texts_in([value])
        at = end
    rest = content[at:].strip()
    if rest.startswith("]"):  # the list itself is whole: a comma too many, or what is around it is torn
        return _Found(texts)
    return _Found(texts, rest=_clean(rest)) if texts or rest.startswith('"') else None


def _sentences(text: str) -> list[str]:
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        sentence = text[start : match.end()].strip()
        if not _ABBREVIATION.search(sentence):
            found.append(sentence)
            start = match.end()
    return found


def _broken_off(text: str) -> bool:
    words = _WORD.findall(text.casefold())
    return len(words) < 4 or words[-1] in _DANGLING


def _circular(text: str, asked: str) -> bool:
    """Whether three words in a row come twice, or one long word four times: a small model's loop.

    What the question itself repeats ("sides 1.0 to 0.7 to 0.7") may come as often as it does there.
    """
    triples, long = _repetitions(text)
    asked_triples, asked_long = _asked_repetitions(asked)
    return any(count > max(1, asked_triples[each]) for each, count in triples.items()) or any(
        count > max(3, asked_long[each]) for each, count in long.items()
    )


@lru_cache(maxsize=16)
def _asked_repetitions(asked: str) -> tuple[Counter[tuple[str, str, str]], Counter[str]]:
    """`_repetitions` of a question, which is the same for all texts of its answer."""
    return _repetitions(asked)


def _repetitions(text: str) -> tuple[Counter[tuple[str, str, str]], Counter[str]]:
    """How often each three words in a row come, and each word of more than four letters."""
    words = _WORD_OR_FIGURE.findall(text.casefold())
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    return triples, Counter(word for word in words if len(word) > 4)
