"""Raw answers to texts: pure functions over what the ledger holds, to be run again for free.

The way of an answer: `read_answer` takes the content out of the body, `marks` takes off what models write
beside it, `shapes` finds its texts, `sentences` takes formatting away and keeps whole sentences, and
`own_names` keeps the subject's name out of all that. Every step is linear in the length of the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kb_builder.parse.letters import control_reason, escaped, without_halves, without_invisible
from kb_builder.parse.marks import take_off, without_thoughts
from kb_builder.parse.own_names import OwnNames
from kb_builder.parse.sentences import (
    fault,
    has_words,
    is_plain,
    left_over,
    plain,
    task_talk,
    unquoted,
    whole_sentences,
    without_comment,
)
from kb_builder.parse.shapes import Found, find_all, read_strict, structured

# Part of every row's id: raise it when the same answer would give another text or status.
PARSER_VERSION = "3"

_FEWEST_WORDS = 2  # that go on from an opening; fewer say nothing
_LARGEST_COUNT = 2**31 - 1  # of a column of the table
_LONGEST = 4_000  # characters of a text; encoders read a few hundred words at most
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "incomplete"})
_SAID = frozenset({"text", "output_text"})  # the kinds of parts that are the answer, not the way to it


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What one answer's body says. `text` is None where the model declined or said nothing.

    `refusal` is what it said when it declined; `finish_reason` is `refusal` then. `note` says why there is no
    text where the body shows it.
    """

    text: str | None
    finish_reason: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    refusal: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One text of an answer, or what the model said instead (`text` is None, `reason` says why)."""

    text: str | None
    said: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    text: str
    refusal: str = ""
    thought: bool = False  # something that is no text was there


def read_answer(body: str, *, asked: str = "") -> ParsedAnswer:
    """The first choice of a chat completion: any JSON text that `client.check_body` has let through.

    Reasoning (`<think>…</think>`, parts of kind `thinking`) is no part of the answer. Where a field is not
    what the protocol says, it counts as missing. `asked` as in `parse_answer`.
    """
    try:
        value = json.loads(body)
    except RecursionError:  # from a ledger that an earlier version wrote
        return ParsedAnswer(None, "unknown", None, None, None, note="nested too deep to be read")
    choice = value["choices"][0]
    usage = value.get("usage")
    message = choice["message"]
    content = _content(message.get("content"))
    refusal = _content(message.get("refusal")).text.strip() or (content.refusal if not content.text else "")
    finish = choice.get("finish_reason")
    model = value.get("model")
    text = content.text
    # JSON is looked into as it is: a mark in one of its strings concerns that text alone.
    if text.lstrip()[:1] not in {"{", "["}:
        names = OwnNames(asked)
        text = names.show(without_thoughts(names.hide(text)))
    thought = content.thought or bool(content.text) or _has_reasoning(message)
    return ParsedAnswer(
        text=None if refusal else text or None,
        finish_reason="refusal" if refusal else finish if isinstance(finish, str) and finish else "unknown",
        model=escaped(without_halves(model)) if isinstance(model, str) else None,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refusal=refusal or None,
        note=None if refusal or text or not thought else "holds reasoning, and no text",
    )


def parse_answer(
    answer: ParsedAnswer, *, opening: str = "", several: bool = False, asked: str = ""
) -> tuple[Item, ...]:
    """The texts of an answer, at least one item: where there is none, the item says what came instead.

    `opening` is the start that the model was given to go on from (one text); `several` says that a list of
    texts was asked for, in the JSON schema of `prompts.several` or, from models that ignore a schema, in any
    other form. `asked` is the question in words: the names that it quotes keep their signs, and repeating
    what it repeats is no loop.
    """
    if answer.text is None:
        said = escaped(answer.refusal or "")
        why = f"{answer.note or 'no text'} ({answer.finish_reason})"
        return (Item(None, said, said or why),)
    names = OwnNames(asked)
    if several:
        return _several(answer.text, answer.finish_reason, asked, names)
    return (_one(answer.text, opening, answer.finish_reason, asked, names),)


def parse_text(content: str, *, opening: str, finish_reason: str) -> str | None:
    """The first complete sentences (at most `MAX_SENTENCES`) of an answer, on one line, or None.

    `opening` is the start that the model was given to go on from; servers differ in whether they repeat it.
    An answer that stopped by itself may lack its last full stop, one that was cut off (`length`) loses its
    last, torn sentence. A text that breaks off inside a phrase, adds nothing to the opening, or goes round in
    circles is none.
    """
    return _one(content, opening, finish_reason, "", OwnNames("")).text


def _several(content: str, finish: str, asked: str, names: OwnNames) -> tuple[Item, ...]:
    found = read_strict(content)
    if found is None:
        bare = take_off(names.hide(content), several=True)
        if bare.text is None:
            return (_none(content, bare.reason, names),)
        finish = "stop" if bare.ended and _is_cut(finish) else finish
        found = find_all(bare.text)
    cut = _is_cut(finish)
    how = "was cut off by max_tokens" if cut else "is broken"
    if not found.texts:
        reason = f"{how} before the first whole text" if cut or found.rest else "holds no description"
        return (_none(content, f"the list {reason}" if found.rest and not cut else reason, names),)
    items = [_item(text, "", "stop", asked, names) for text in found.texts]
    if found.open_end and cut:
        items[-1] = _item(found.texts[-1], "", finish, asked, names)
    if found.rest is not None:
        items.append(_none(found.rest, f"the list {how} after {len(found.texts)} whole texts", names))
    return tuple(items)


def _one(content: str, opening: str, finish: str, asked: str, names: OwnNames) -> Item:
    """The text of an answer that should hold one."""
    said = content.strip()
    rest = said.removeprefix(opening)
    if opening and not has_words(rest, _FEWEST_WORDS):
        return _none(content, "adds nothing to the opening", names)
    hidden = names.hide(rest)
    if is_plain(hidden):
        return _item(rest, opening, finish, asked, names, said=said)
    bare = take_off(hidden)
    if bare.text is None:
        return _none(content, bare.reason, names)
    finish = "stop" if bare.ended and _is_cut(finish) else finish
    found = None if opening else structured(bare.text, html=False)
    if found is None:
        return _item(bare.text, opening, finish, asked, names, said=said)
    reason = _why_not_one(found, finish)
    return (
        _none(content, reason, names)
        if reason
        else _item(found.texts[0], "", "stop", asked, names, said=said)
    )


def _why_not_one(found: Found, finish: str) -> str | None:
    if found.rest is not None:
        return f"holds {found.form} that {'was cut off by max_tokens' if _is_cut(finish) else 'is broken'}"
    if not found.texts:
        return f"holds {found.form} without a description"
    return f"holds {len(found.texts)} texts where one was asked for" if len(found.texts) > 1 else None


def _item(
    content: str, opening: str, finish: str, asked: str, names: OwnNames, *, said: str | None = None
) -> Item:
    said = content.strip() if said is None else said
    text = names.hide(content.strip())
    if not is_plain(text):
        bare = take_off(text)
        if bare.text is None:
            return _none(said, bare.reason, names)
        finish = "stop" if bare.ended and _is_cut(finish) else finish
        text = without_invisible(bare.text)
        if reason := control_reason(text):
            return _none(said, reason, names)
        text = without_invisible(plain(text, asked))
        if left := left_over(text):
            return _none(said, f"holds {names.show(left)!r}, which is no part of a text", names)
    # Once more: an entity may stand for a control character.
    if reason := control_reason(text):
        return _none(said, reason, names)
    text = " ".join(text.split())
    if opening:
        text = f"{opening}{'' if text.startswith(chr(39)) else ' '}{text}"
    else:
        text = unquoted(without_comment(text))
    hidden = whole_sentences(text, finish)
    if talk := task_talk(hidden):
        return _none(said, f"speaks of the task: {talk!r}", names)
    text = names.show(hidden)
    fault_found = fault(text, asked, hidden)
    if fault_found is None and len(text) > _LONGEST:
        fault_found = f"is {len(text):,} characters long without a break"
    return _none(said, fault_found, names) if fault_found else Item(text, escaped(names.show(said)))


def _none(said: str, reason: str | None, names: OwnNames) -> Item:
    return Item(None, escaped(names.show(said).strip()), reason and escaped(reason))


def _is_cut(finish: str) -> bool:
    return finish.casefold() in _CUT


def _content(content: Any) -> _Content:
    """The text of a message's content: a string, or a list of parts of which some are text."""
    if isinstance(content, str):
        return _Content(without_halves(content))
    if not isinstance(content, list):
        return _Content("")
    said = ""
    pieces: list[str] = []
    refusal, thought = "", False
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = _part_text(part)
        if isinstance(part, dict) and (
            part.get("thought") is True or (isinstance(kind, str) and kind not in _SAID)
        ):
            refusal = refusal or (_part_text({"text": part.get("refusal")}) if kind == "refusal" else "")
            thought = True
            continue
        if pieces and text and pieces[-1][-1] in ".!?" and not text[0].isspace():
            pieces.append(" ")  # two parts are two texts, not one word
        if text:
            pieces.append(text)
    said = "".join(pieces)
    return _Content(without_halves(said), without_halves(refusal).strip(), thought)


def _part_text(part: Any) -> str:
    text = part.get("text", part.get("content")) if isinstance(part, dict) else part
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _has_reasoning(message: dict[str, Any]) -> bool:
    """Whether a server that tells reasoning and answer apart sent reasoning."""
    return any(
        message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking")
    )


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None
