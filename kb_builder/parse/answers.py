"""Parser: turns raw answers into texts by pure functions: stored answers can be parsed again for free.

The steps: `read_answer` takes the content out of the body, `marks` removes what models write around an
answer, `shapes` finds its texts, `sentences` removes formatting and keeps whole sentences, and `own_names`
protects the subject's name from all of them. Every step is linear in the length of the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kb_builder.parse.letters import control_reason, escaped, replace_surrogates, without_invisible
from kb_builder.parse.marks import strip_marks, without_reasoning
from kb_builder.parse.own_names import OwnNames
from kb_builder.parse.sentences import (
    find_fault,
    has_words,
    is_plain,
    left_over,
    task_talk,
    unquoted,
    whole_sentences,
    without_comment,
    without_formatting,
)
from kb_builder.parse.shapes import FoundTexts, find_all, find_structured, read_strict

# Part of every row's id: raise it when the same answer would give another text or status.
PARSER_VERSION = "4"

_FEWEST_WORDS = 2  # that an answer must add to an opening
_LARGEST_COUNT = 2**31 - 1  # of a column of the table
_LONGEST = 4_000  # characters of a text; encoders read a few hundred words at most
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "incomplete"})
_SAID = frozenset({"text", "output_text"})  # the kinds of parts that are the answer, not reasoning


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The content of one answer's body. `text` is None if the model declined or wrote no text.

    `refusal` is the model's own statement if it declined; `finish_reason` is then `refusal`. `note` says why
    there is no text, if the body shows it.
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
    """One text of an answer; or, if rejected, `text` None and the `reason`. `said` are the model's words."""

    text: str | None
    said: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    text: str
    refusal: str = ""
    thought: bool = False  # it has parts that are not the answer, such as reasoning


def read_answer(body: str, *, asked: str = "") -> ParsedAnswer:
    """The first choice of a chat completion: any JSON text that `client.check_body` has let through.

    Reasoning (`<think>…</think>`, parts of kind `thinking`) is left out. A field that violates the protocol
    counts as missing. `asked` as in `parse_answer`.
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
    # JSON is parsed as it is: a mark inside one of its strings belongs to that string's text alone.
    if text.lstrip()[:1] not in {"{", "["}:
        names = OwnNames(asked)
        text = names.show(without_reasoning(names.hide(text)))
    thought = content.thought or bool(content.text) or _has_reasoning(message)
    return ParsedAnswer(
        text=None if refusal else text or None,
        finish_reason="refusal" if refusal else finish if isinstance(finish, str) and finish else "unknown",
        model=escaped(replace_surrogates(model)) if isinstance(model, str) else None,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refusal=refusal or None,
        note=None if refusal or text or not thought else "holds reasoning, and no text",
    )


def parse_answer(
    answer: ParsedAnswer, *, opening: str = "", several: bool = False, asked: str = ""
) -> tuple[Item, ...]:
    """The texts of an answer, at least one item: without a text, the item has the reason.

    `opening` is the start that the model was given to continue (one text). With `several` a list of texts
    was asked for, in the JSON schema of `prompts.several_texts` or, from models that ignore a schema, in any
    other form. `asked` is the question in words: the names that it quotes keep their signs, and a text may
    repeat what the question repeats.
    """
    if answer.text is None:
        said = escaped(answer.refusal or "")
        why = f"{answer.note or 'no text'} ({answer.finish_reason})"
        return (Item(None, said, said or why),)
    names = OwnNames(asked)
    if several:
        return _several(answer.text, answer.finish_reason, asked, names)
    return (_one(answer.text, opening, answer.finish_reason, asked, names),)


def _several(content: str, finish: str, asked: str, names: OwnNames) -> tuple[Item, ...]:
    found = read_strict(content)
    if found is None:
        bare = strip_marks(names.hide(content), several=True)
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
    bare = strip_marks(hidden)
    if bare.text is None:
        return _none(content, bare.reason, names)
    finish = "stop" if bare.ended and _is_cut(finish) else finish
    found = None if opening else find_structured(bare.text, html=False)
    if found is None:
        return _item(bare.text, opening, finish, asked, names, said=said)
    reason = _why_not_one(found, finish)
    return (
        _none(content, reason, names)
        if reason
        else _item(found.texts[0], "", "stop", asked, names, said=said)
    )


def _why_not_one(found: FoundTexts, finish: str) -> str | None:
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
        bare = strip_marks(text)
        if bare.text is None:
            return _none(said, bare.reason, names)
        finish = "stop" if bare.ended and _is_cut(finish) else finish
        text = without_invisible(bare.text)
        if reason := control_reason(text):
            return _none(said, reason, names)
        text = without_invisible(without_formatting(text, asked))
        if left := left_over(text):
            return _none(said, f"holds {names.show(left)!r}, which is no part of a text", names)
    # Again: a decoded entity may be a control character.
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
    fault_found = find_fault(text, asked, hidden)
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
        return _Content(replace_surrogates(content))
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
    return _Content(replace_surrogates(said), replace_surrogates(refusal).strip(), thought)


def _part_text(part: Any) -> str:
    text = part.get("text", part.get("content")) if isinstance(part, dict) else part
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _has_reasoning(message: dict[str, Any]) -> bool:
    """Whether the message has reasoning in a separate field."""
    return any(
        message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking")
    )


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None
