"""Marks: removes what models write around their answer (reasoning, channels, turns, tool calls, answer tags).

Each model family has different marks, and servers let them through. A mark is recognised by its name, without
case and punctuation: `<|im_end|>`, `<im_end>` and `<|IM\\_END|>` are equal. Tags of HTML and XML may be the
form of the answer and are left to `shapes` and `sentences`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources

_BARS = "|｜"
# Bounded repetitions: a long run of "<" takes linear time.
_MARK = re.compile(
    rf"""
    < \s? (?P<open>/?[{_BARS}]{{1,2}}/?) (?P<token>[^<>{_BARS}\n]{{1,64}}) [{_BARS}]{{0,2}} \s? >
  | < (?P<turned>[\w/▁ .:-]{{1,64}}) [{_BARS}]{{1,2}} >
  | < (?P<slash>/?) (?P<tag>[A-Za-z_][\w:.\\-]{{0,48}}) (?: [\s=] [^<>]{{0,300}} )? /? >
  | (?: <| \[ ){{1,2}} (?P<shout>/? (?:INST|SYS|THINK|REASONING|TOOL_CALLS?|TOOL_RESULTS?|TOOL_CONTENT|ARGS
        |CALL_ID|AVAILABLE_TOOLS|SYSTEM_PROMPT|USER|ASSISTANT|SYSTEM|END|STOP|EOS|BOS|PAD|ANSWER|FINAL
        |RESPONSE)) (?: >| \] ){{1,2}}
  | ◁ (?P<kimi>/?\w{{1,30}}) ▷
  | <? [{_BARS}] (?P<bare>im_start|im_end|eot_id|eom_id|end_of_text|endoftext|end_of_turn) [{_BARS}] >?
    """,
    re.VERBOSE,
)
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)++")  # tokens of single bytes that were not decoded
_ESCAPED_MARK = re.compile(rf"&lt;([{_BARS}/][^&<>\n]{{1,64}})&gt;")
_SIGNS = re.compile(r"[^a-z0-9]+")
# Cut off inside a mark.
_HALF = re.compile(rf"<\s?[{_BARS}][^<>{_BARS}\n]{{0,64}}[{_BARS}]?$|</[\w|]{{0,20}}$")
_END_OF_HEAD = rf"<[{_BARS}](?:end_header_id|im_sep|header_end|end_of_role)[{_BARS}]>"
_ROLE = re.compile(rf"[\s{_BARS}>]*([A-Za-z]+)(?:[ \t]*(?:{_END_OF_HEAD}|:))?\s*")
_CHANNEL = re.compile(r"\s*([A-Za-z]+)[^<\n]{0,80}")

_LISTS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in tomllib.loads(
        resources.files(__package__).joinpath("marks.toml").read_text(encoding="utf-8")
    ).items()
}
_KINDS = {name: kind for kind in ("think", "answer", "tool") for name in _LISTS[kind]}
_SPEAKERS = dict.fromkeys(_LISTS["ours"], True) | dict.fromkeys(_LISTS["theirs"], False)
_WORDS = _LISTS["words"]
_PREFIX = re.compile(r"^(?:beginof|startof|begin|start|endof|end)|(?:begin|start|end)$")

# gpt-oss as servers write it that leave out special tokens: "analysisThe user wants …assistantfinalA dog …"
_LEAKED = "assistantfinal"
_LEAK = re.compile(r"\s*(?:assistant)?(?:analysis|commentary)(?=[A-Z]|\s*\n)")
_LEAKED_HEAD = re.compile(r"\s*(?:final(?=[A-Z])|assistant\s*\n|model\n)")
_GRANITE = re.compile(r"\s*here(?: is|'s) my (?:thought process|reasoning)[^\n:]{0,20}:", re.IGNORECASE)
_GRANITE_ANSWER = re.compile(r"here(?: is|'s) my (?:response|answer)[^\n:]{0,20}:", re.IGNORECASE)
_FINAL = re.compile(
    r"^[ \t#*_>-]{0,8}(?:the )?(?:final|revised|improved|corrected|polished|refined)"
    r" (?:answer|version|text|texts|list|description|descriptions|sentence|"
    r"sentences|output|json|response)?[ \t*_]{0,4}:[*_]{0,3}"
    r"|^[ \t#*_>-]{0,8}(?:final|revised|improved|corrected|polished|refined)[ \t*_]{0,4}:[*_]{0,3}"
    r"|^[ \t]{0,3}(?:#{1,6}[ \t]{0,3}|\*\*|__)(?:the )?"
    r"(?:final|revised|improved|corrected|polished|refined)\b[\w \t]{0,30}(?:\*\*|__)?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SPEAKER = (
    r"user|human|assistant|system|instructions?|question|input|output|response|prompt|task|"
    r"human \d|user \d|student|customer|q"
)
_NAMED = r"(?-i:User|Human|Assistant|USER|HUMAN|ASSISTANT)"
_NEXT_TURN = re.compile(
    rf"^[ \t]{{0,8}}(?:#{{1,6}}[ \t]{{0,3}}|\*\*|<|\[)?(?:{_SPEAKER})(?:\*\*|>|\])?[ \t]?:"
    r"|^#{1,6}[ \t]{0,3}(?:instructions?|input|response|user|human|assistant|question|system|task)[ \t]*$"
    rf"|(?<=[.!?\"”*)\]}}])[ \t]{{0,8}}(?:#{{2,6}}[ \t]{{0,3}})?{_NAMED}[ \t]?:"
    r"|(?<=[.!?\"”*)\]}])[ \t]{0,8}(?:#{2,6}[ \t]{0,3})(?-i:Instruction|Input|Response|Question)s?\b",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TURN = re.compile(r"\w")
_ODD = re.compile(
    rf"[<\[◁{_BARS}]|\\boxed|\\fbox|:|assistant|analysis|commentary|model\n|final|^#",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class StrippedAnswer:
    """An answer without its marks. `text` None: it has nothing else, and `reason` says what it has.

    `ended`: a mark ends the text, so it was not cut off.
    """

    text: str | None
    ended: bool = False
    reason: str | None = None


def strip_marks(content: str, *, several: bool = False) -> StrippedAnswer:
    """The answer alone, without marks, text after the end of the turn, and other speakers' turns.

    Of several answers (`<answer>…</answer>`) the last one counts, or all if `several` texts are wanted.
    """
    if "<0x" in content:
        content = _BYTES.sub(_decoded, content)
    if "&lt;" in content:
        content = _ESCAPED_MARK.sub(r"<\1>", content)
    if not _ODD.search(content):
        return StrippedAnswer(content)
    bare = _walk(content, several) if any(sign in content for sign in "<[◁|｜") else StrippedAnswer(content)
    if bare.text is None:
        return bare
    text, ended = bare.text, bare.ended
    for step in (_without_leak, _granite, _after_final, _boxed, _first_turn):
        text, over = step(text)
        ended = ended or over
    if not text.strip() and content.strip():
        return StrippedAnswer(None, ended, "holds reasoning or marks, and no text")
    return StrippedAnswer(text, ended) if text != content or ended else StrippedAnswer(content, ended)


def _decoded(found: re.Match[str]) -> str:
    try:
        return bytes.fromhex(found[0].replace("<0x", "").replace(">", "")).decode("utf-8")
    except UnicodeDecodeError:
        return found[0]


def may_leak(text: str) -> bool:
    """Whether a text may be the content of channels whose marks the server removed."""
    return _LEAK.match(text) is not None or _LEAKED_HEAD.match(text) is not None or _LEAKED in text


def without_reasoning(content: str) -> str:
    """`strip_marks` of reasoning alone, for answers of any form; "" if there is nothing else."""
    if not any(sign in content for sign in "<[◁"):
        return content
    bare = _walk(content, False, only="think")
    return bare.text or ""


class _Walk:
    """The state of reading an answer, mark by mark."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.thinking = False
        self.muted = False  # in another channel, or another speaker's turn
        self.tool: str | None = None  # the mark that opened a tool call
        self.called = False
        self.said = False  # some words were kept
        self.ended = False
        self.answers: list[str] = []
        self.answer_from: int | None = None
        self.before_thought: int | None = None

    def add(self, piece: str) -> None:
        if piece and not (self.thinking or self.muted or self.tool):
            self.kept.append(piece)
            self.said = self.said or _TURN.search(piece) is not None

    def forget(self, length: int = 0) -> None:
        del self.kept[length:]
        self.said = any(_TURN.search(piece) for piece in self.kept)

    def think(self, *, shut: bool) -> None:
        if not shut:
            if self.before_thought is None:
                self.before_thought = len(self.kept)
            self.thinking = True
        elif self.thinking:
            self.thinking = False
        else:  # the opening mark is missing, or the reasoning mentions a mark
            self.forget(self.before_thought or 0)

    def answer(self, *, shut: bool) -> None:
        if not shut:
            self.answer_from = len(self.kept)
        elif self.answer_from is not None or not self.answers:
            self.answers.append("".join(self.kept[self.answer_from or 0 :]))
            self.answer_from = None

    def channel(self, content: str, at: int, *, shut: bool) -> int:
        """Enter or leave a channel; returns where its content begins."""
        if shut:
            self.muted = False
            return at
        called = _CHANNEL.match(content, at)
        self.muted = called is None or called[1].casefold() not in {"final", "answer", "response"}
        return called.end() if called else at

    def turn(self, content: str, at: int, mark: _Mark) -> int:
        """Read the head of a turn; returns where its words begin."""
        ours = True if mark.shut else _SPEAKERS.get(mark.name)  # [/INST]: the question ends
        if mark.kind == "head":
            role = _ROLE.match(content, at)
            ours = _SPEAKERS.get(role[1].casefold()) if role else None
            at = role.end() if role and ours is not None else at
        self.muted = ours is False
        return at


def _walk(content: str, several: bool, *, only: str | None = None) -> StrippedAnswer:
    walk, at, seen, struck = _Walk(), 0, False, False
    for found in _MARK.finditer(content):
        if found.start() < at:  # inside the head of a turn
            continue
        mark = _read(found)
        if mark is None or (only is not None and mark.kind != only):
            continue
        words_before = walk.said or _TURN.search(content, at, found.start()) is not None
        if found["tag"] == "s" and (struck or (words_before and not mark.shut)):
            struck = not mark.shut  # strikethrough, not the begin or end of a sequence
            continue
        if walk.tool is not None and not (mark.shut and mark.name == walk.tool):
            if mark.kind != "end":
                continue
            walk.tool = None
        walk.add(content[at : found.start()])
        seen, at = True, found.end()
        if mark.kind == "think":
            walk.think(shut=mark.shut)
        elif mark.kind == "answer":
            walk.answer(shut=mark.shut)
        elif mark.kind == "tool":
            walk.tool, walk.called = None if mark.shut else mark.name, True
        elif mark.kind == "channel":
            at = walk.channel(content, at, shut=mark.shut)
        elif mark.kind in {"head", "speaker"}:
            if walk.said and not walk.thinking:
                walk.ended = True
                break
            at = walk.turn(content, at, mark)
        elif mark.kind == "end" or (mark.kind == "unknown" and walk.said):
            if walk.said and not walk.thinking:
                walk.ended = True
                break
            walk.muted = False
    else:
        rest = content[at:].rstrip()
        half = _HALF.search(rest, max(0, len(rest) - 80)) if only is None else None
        if half is None and not seen:
            return StrippedAnswer(content)
        walk.add(rest if half is None else rest[: half.start()])
        walk.ended = half is not None
    return _result(walk, several)


def _result(walk: _Walk, several: bool) -> StrippedAnswer:
    ended = walk.ended or walk.thinking or walk.tool is not None
    if walk.answer_from is not None:
        walk.answers.append("".join(walk.kept[walk.answer_from :]))
    elif walk.answers:
        ended = True
    answers = [answer for answer in walk.answers if answer.strip()]
    if answers:
        return StrippedAnswer("\n".join(answers) if several else answers[-1].strip(), ended)
    text = "".join(walk.kept).strip()
    if text:
        return StrippedAnswer(text, ended)
    thought = walk.thinking or walk.before_thought is not None
    said = "a tool call" if walk.called else "reasoning" if thought else "marks"
    return StrippedAnswer(None, ended, f"holds {said}, and no text")


@dataclass(frozen=True, slots=True)
class _Mark:
    kind: str  # think, answer, tool, channel, head, speaker, end, nothing
    name: str
    shut: bool  # a closing mark


def _read(found: re.Match[str]) -> _Mark | None:
    """The kind of a mark; None for a tag of HTML or XML, or the name of a thing."""
    tag, turned = found["tag"], found["turned"]
    raw = tag or turned or found["token"] or found["shout"] or found["kimi"] or found["bare"]
    shut = turned is not None or bool(found["slash"]) or "/" in (found["open"] or "") or raw.startswith("/")
    name = _SIGNS.sub("", (raw.rsplit(":", 1)[-1] if tag and not raw.startswith("seed") else raw).casefold())
    special = tag is None
    if special and name == "turn":  # Gemma 4: <|turn>model … <turn|>
        return _Mark("end" if turned else "head", name, shut)
    if special and name == "channel":
        return _Mark("channel", name, shut)
    if name == "s" and not special:
        return _Mark("end" if shut else "nothing", name, shut)
    if name in _LISTS["head"] and (special or name not in _WORDS):
        return _Mark("head", name, shut)
    if name in _SPEAKERS and (special or name in _LISTS["tagged_speakers"]):
        return _Mark("speaker", name, shut)
    if name in _LISTS["end"] and (special or name not in _WORDS):
        return _Mark("end", name, shut)
    if name in _LISTS["nothing"] and (special or name not in _WORDS):
        return _Mark("nothing", name, shut)
    base = name
    if special and name not in _KINDS:
        base = _PREFIX.sub("", name)
        shut = shut or name.startswith("end") or name.endswith("end") or name == "innersuffix"
        base = {"innersuffix": "innerprefix", "text": "answer"}.get(base, base)
    if name == "unused95":  # MedGemma thinks between <unused94> and <unused95>
        base, shut = "unused94", True
    if base in _KINDS:
        return _Mark(_KINDS[base], base, shut)
    return _Mark("unknown", name, shut) if special and not found["shout"] and not found["kimi"] else None


def _without_leak(text: str) -> tuple[str, bool]:
    at = text.rfind(_LEAKED)
    if at >= 0:
        return text[at + len(_LEAKED) :].strip(), False
    if _LEAK.match(text):
        return "", True
    head = _LEAKED_HEAD.match(text)
    return (text[head.end() :].strip() if head else text), False


def _granite(text: str) -> tuple[str, bool]:
    if not _GRANITE.match(text):
        return text, False
    found = _GRANITE_ANSWER.search(text)
    return (text[found.end() :].strip(), False) if found else ("", True)


def _after_final(text: str) -> tuple[str, bool]:
    """What follows the last "Final answer:", which a draft precedes."""
    last = _last(_FINAL, text)
    if last is None or not _TURN.search(text, last.end()):
        return text, False
    return text[last.end() :].strip(), False


def _boxed(text: str) -> tuple[str, bool]:
    """The content of the last `\\boxed{…}`."""
    last = _last(_BOXED, text)
    if last is None:
        return text, False
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[last.end() :]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[last.end() : last.end() + brace.start()].strip(), True
    return text[last.end() :].strip(), False


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for each in pattern.finditer(text):
        found = each
    return found


def _first_turn(text: str) -> tuple[str, bool]:
    """The text before the next speaker's turn, without a leading echo of the question."""
    start = len(text) - len(text.lstrip())
    first: str | None = None
    for found in _NEXT_TURN.finditer(text):
        label = _SIGNS.sub("", found[0].casefold())
        if found.start() <= start and label in _LISTS["answering"]:
            start = found.end()
        elif found.start() <= start:
            first = label
        elif label == first:  # every line begins so: it is what the texts are about
            continue
        elif first in _LISTS["asking"] and label in _LISTS["answering"]:
            start, first = found.end(), None
        elif _TURN.search(text, start, found.start()):
            return text[start : found.start()].strip(), True
    return (text[start:].strip() if start else text), False
