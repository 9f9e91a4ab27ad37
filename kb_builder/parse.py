"""Raw answers to texts: pure functions over what the ledger holds, to be run again for free."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

PARSER_VERSION = (
    "1"  # part of every row's id: raise it when the same answer would give another text or status
)
MAX_SENTENCES = 3

_PREAMBLE = re.compile(
    r"^(sure|certainly|of course|okay|ok|here(?: is|'s| are))\b[^.!?\n]*[:!]\s*", re.IGNORECASE
)
_MARKUP = re.compile(r"^\s*(?:[-*•>#]+|\d+[.)])\s+|[*_`#]{1,3}")
_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|vs|cf|dr|mr|mrs|st|no|fig|[a-z])\.$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_FEWEST_WORDS = 2  # that go on from an opening; fewer say nothing

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
    """What one answer's body says. `text` is None where the model declined or said nothing."""

    text: str | None
    finish_reason: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def read_answer(body: str) -> Answer:
    """The first choice of a chat completion (JSON text that `client.check_body` has let through)."""
    value = json.loads(body)
    choice, usage = value["choices"][0], value.get("usage") or {}
    message = choice["message"]
    finish = "refusal" if message.get("refusal") else str(choice.get("finish_reason") or "unknown")
    return Answer(
        text=message.get("content") if finish != "refusal" else None,
        finish_reason=finish,
        model=value.get("model"),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )


def parse_text(content: str, *, opening: str, finish_reason: str) -> str | None:
    """The first complete sentences (at most `MAX_SENTENCES`) of an answer, on one line, or None.

    `opening` is the start that the model was given to go on from; servers differ in whether they repeat it.
    An answer that stopped by itself may lack its last full stop, one that was cut off (`length`) loses its
    last, torn sentence. A text that breaks off inside a phrase, adds nothing to the opening, or goes round in
    circles is none.
    """
    said = content.strip().removeprefix(opening)
    if opening and len(_WORD.findall(said)) < _FEWEST_WORDS:
        return None
    text = f"{opening} {said.strip()}" if opening and not said.startswith("'") else opening + said
    text = " ".join(_MARKUP.sub("", line) for line in text.splitlines())
    text = " ".join(text.split())
    text = _PREAMBLE.sub("", text).strip('"“” ')
    if finish_reason == "stop" and text and not _END.search(text[-3:]):
        text = text.rstrip(" ,;:-–—") + "."
    sentences = _sentences(text)[:MAX_SENTENCES]
    result = " ".join(sentences)
    return result if result and not _broken_off(result) and not _circular(result) else None


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


def _circular(text: str) -> bool:
    """Whether three words in a row come twice, or one long word more than twice: a small model's loop."""
    words = re.findall(r"[\w'’-]+", text.casefold())
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    longer = Counter(word for word in words if len(word) > 4)
    return max(triples.values(), default=0) > 1 or max(longer.values(), default=0) > 3
