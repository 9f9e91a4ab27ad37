"""Sentences: removes a text's formatting, keeps its words, and keeps whole sentences only."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from kb_builder.parse.marks import may_leak

MAX_SENTENCES = 3

# --- formatting: lines -----------------------------------------------------------------------------------

_ITEM = re.compile(
    r"\s{0,40}(?:(?:[-*+•●▪◦‣–—·○■✓✔✅→➤►▶◆★☆]\ufe0f?|\d{1,3}\ufe0f?\u20e3|\\item)\s+(?:\[[ xX]\]\s+)?"
    r"|#?[(\[]?\d{1,3}[.):\]]\)?\s+|\d{1,3}(?:、|．\s)\s*|\(?[A-Za-z]\)\s+|[①-⑳]\s*"
    r"|(?P<bold>[*_]{1,3})\(?\d{1,3}[.):]\)?(?:[*_]{1,3}:?)?\s+)(?=\S)"
)
_QUOTED_LINE = re.compile(r"\s{0,40}>{1,3}\s+")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+")
_RULE = re.compile(r"\s*+(?:(?:[-*_=~#]\s?){2,}+|(?:\.{1,3}|…)\s*+)$")
_FRAME = re.compile(r"\s{0,40}\\(?:begin|end)\{\w{1,20}\}\s*+$")
_FENCE = re.compile(r"\s*+(?:`{3,}+|~{3,}+)[\w+-]*+\s*+$")
_BOLD_LINE = re.compile(r"\s{0,40}(\*\*|__)[^*_]{1,80}\1:?\s{0,40}$")
_TITLED = re.compile(r"(?:title|heading|subject|topic|name|category|aspect|focus):\s", re.IGNORECASE)
_BLOCK_SCALAR = re.compile(r"\w{1,30}: ?[|>][+-]?$")
_SENTENCE_END = re.compile(r"[.!?][*_]{0,3}\s{0,40}$")
_LABEL = re.compile(r"(\*\*|__)([^*_\n]{1,60}?)(?::\s?\1:?|\1\s?:|\1\s[-–—](?=\s))\s*")

# --- formatting: letters. Signs inside words or next to spaces are none: 3*4, 2 * 3, A*, snake_case. ---

_PAIRS = (
    (
        "*",
        re.compile(
            r"(?<![\w*\\])(\*{1,3})(?=[^\s*])"
            r"((?:[^*\n]++|(?<=[^\W_])\*(?=[^\W_]))*+)(?<=[^\s\\])\1(?![\w*])"
        ),
    ),
    (
        "_",
        re.compile(
            r"(?<![\w\\])(_{1,3})(?=[^\s_])((?:[^_\n]++|(?<=[^\W_])_++(?=[^\W_]))*+)(?<=[^\s\\])\1(?!\w)"
        ),
    ),
    ("~~", re.compile(r"(?<![\w~])(~~)(?=[^\s~])([^~\n]*+)(?<=\S)\1(?![\w~])")),
    ("`", re.compile(r"(?<![\w`])(`{1,3})(?=[^\s`])([^`\n]*+)(?<=\S)\1(?![\w`])")),
    ("==", re.compile(r"(?<![\w=])(==)(?=[^\s=])([^=\n]*+)(?<=\S)\1(?![\w=])")),
    ("||", re.compile(r"(?<![\w|])(\|\|)(?=[^\s|])([^|\n]*+)(?<=\S)\1(?![\w|])")),
    ("$", re.compile(r"(?<![\w$\\])(\$)(\d[\d.,]{0,8}|[A-Za-z])\$(?![\w$])")),
)
_LOOSE_STARS = re.compile(r"(?<![\w*)])\*{2,3}(?=\w)|(?<=[\w.!?])\*{2,3}(?![\w*])")
_IMAGE = re.compile(r"!\[[^\[\]\n]{0,300}\]\([^()\s]{0,500}\)|\(\[[^\[\]\n]{0,300}\]\([^()\s]{0,500}\)\)")
_FOOTNOTE = re.compile(
    r"\s?(?:\[\d{1,2}\])+(?=[.!?](?:\s|$))|(?<=[.!?])\s?(?:\[\d{1,2}\])+(?=\s|$)|\[\^\d{1,2}\]"
)
_LINK = re.compile(r"\[([^\[\]\n]{0,300})\]\((?:https?:|/|#|www\.|mailto:)[^()\s]{0,500}\)")
_ESCAPED = re.compile(r"\\([*_#`\[\]()~<>+.!|{}&$'\"-])")
_LATEX = re.compile(r"\\(?:text|textbf|textit|emph|mathrm|mathbf)\{([^{}\n]{0,1000})\}")
_DISPLAYED = re.compile(r"^\s{0,40}\\[\[(](.*)\\[\])]\s{0,40}$", re.DOTALL)
_MATHS = re.compile(r"^\s{0,40}\${1,2}([A-Z][^$]*+)\${1,2}\.?\s{0,40}$")  # all of a text
_WRITTEN_BREAK = re.compile(r"(?:\\[nrt])++(?=\s|$|[A-Z*-])")  # a line break or a tab that was escaped twice
_WRITTEN_SPACE = re.compile(r"▁(?=\w)")  # a space as SentencePiece writes it
_ENTITY = re.compile(
    r"&(?:#?\d{2,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&(?:(?:amp|lt|gt|quot|apos|nbsp)\b|#\d{1,7})"
)
_COMMENT = re.compile(r"<!--(?:[^-]++|-(?!->))*+(?:-->|\Z)")
_INLINE = (
    "b|i|em|strong|u|s|del|ins|mark|small|big|span|font|code|tt|kbd|sub|sup|a|img|abbr|cite|q|wbr|strike|"
    "center"
)
_BLOCK = (
    "br|p|div|ul|ol|li|hr|h[1-6]|blockquote|pre|section|article|body|html|head|main|header|footer|dl|dt|dd"
)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE)
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE)

# Remains of marks and of other forms after everything was removed: a text with one of them is rejected.
_LEFT = re.compile(
    r"<[|｜][^\s<>]{0,40}|[\w|｜][|｜]>|</?[A-Za-z][\w:.-]{0,40}(?:[\s=][^<>]{0,300})?/?>|</[A-Za-z]"
    r"|[◁▷]|```|\\boxed|\\(?:frac|begin|end|times|cdot|text)\b|\|\s{0,9}:?-{3}|\{\{|\}\}|\{%"
    r"|\[/?(?:INST|SYS|THINK|TOOL_CALLS|UNK|MASK|PAD|CLS|SEP|EOS|BOS)\]|assistantfinal"
    r"|\[(?:your|insert|name|category|placeholder|object|subject|number|colou?r|size|shape|texture|material|"
    r"adjective|noun|verb|action|sound|location|place|brand|detail|feature)s?\b[^\[\]]{0,60}\]"
    r"|[\[{]\s{0,9}[\"“][\w ]|[\"“”]\s{0,9}:\s{0,9}[\"“\[{]|[\"“”],\s{0,9}[\"“][A-Z]"
    r"|[\"”'.]\s{0,9}\]?\s{0,9}\}$"
    r"|[\"”]\s{0,9}\]\s{0,9}\}?$|[.!?];\s|https?://|\b(?:amp|quot|nbsp|apos);|[;&]#\w|\\u[0-9a-f]{4}|(?<=[\w,.;!?])\\[nrt](?=\w)|(?<![:\\\w])\\[a-z]{3}|\\,"
    r"|^\w{1,40}(?:\[\d{1,3}\])?\s?=\s?[\"“]|=>\s?[\"'“]|^\w[\w.]{0,40}\([\"'“]|^(?:\d{1,3},\s?|[fru])[\"“]"
    r"|(?-i:(?:[a-z]{4}[.!?]|[.!?][\"”']),\s{0,3}[\"“'][A-Z])|<0x|â€|Ã[©¨ª§¶¼¤±³]|Â[°·»«]|(?-i:(?:User|Human|Assistant|USER|HUMAN|ASSISTANT):)",
    re.IGNORECASE,
)
_ODD = re.compile(r"[^\w\s.,!?'’()%°-]")
_ODD_BLANKS = frozenset("\u115f\u1160\u3164\uffa0")  # they count as letters
_ODD_START = frozenset("-–—(0123456789")

# --- before and after the text ---------------------------------------------------------------------------

_PREAMBLE = re.compile(
    r"(?:(?:sure|certainly|of course|okay|ok)\b[^.!?\n]{0,300}[:!]"
    r"|(?:sure(?: thing)?|certainly|absolutely|alright|great|got it|no problem|understood)[!.]"
    r"|(?:here(?: is| are|'s|’s)|below (?:is|are)|the following (?:is|are))\b[^.!?\n]{0,300}[:!]"
    r"|i(?:'d| would|’d) be (?:happy|glad) to\b[^.!?\n]{0,200}[.:!])\s+"
    r"|(?:\*\*|__)?(?:assistant|response|answer|description|caption|sentence|text|output|result|ai"
    r"|final answer|final)(?: ?#?\d{1,3})?(?:\*\*|__)?:(?:\*\*|__)?\s+"
    r"|(?:\*\*|__)?(?:option|version|variant|alternative|example) ?#?\d{1,3}(?:\*\*|__)?:(?:\*\*|__)?\s+"
    r"|(?:description|caption) [-–—] ",
    re.IGNORECASE,
)
_POSTSCRIPT = re.compile(
    r"\s{0,40}[(\[*_]{0,3}(?:note\b.{0,40}:|explanation:|word count|words:|\d+ words|i hope"
    r"|hope (?:this|that|these)"
    r"|let me know|feel free|please let|if you (?:need|want|would like|have)|would you like|is there anything"
    r"|these (?:descriptions|texts|sentences|captions) |each (?:of these|description|text|sentence|caption) "
    r"|this (?:description|sentence|caption|text) |all (?:descriptions|texts|sentences) "
    r"|\[?end(?: of \w+)?\]?\.?\s*$"
    r"|explanation\b|rationale\b)|\s{0,40}(?:#\w+\s{0,9})+$|\s{0,40}\[\^\d{1,2}\]:",
    re.IGNORECASE,
)
# The same at the end of the last line. Fewer words: "If you need to cut, take a knife." is about the thing.
_FAREWELL = re.compile(
    r"(?:please )?let me know\b|i hope (?:this|that|these|it) |hope (?:this|that) helps"
    r"|feel free to (?:ask|let)|(?:would you like|do you want) (?:me |another|more)|is there anything else",
    re.IGNORECASE,
)
# A run of signs, an unpaired tag, and Qwen's switches `/think` and `/no_think`.
_EDGES = re.compile(
    r"^(?:(?:<(?!unk|mask)[A-Za-z][\w:.-]{0,40}>|/(?:no_?)?think|\|(?=\s))\s?)+"
    r"|(?:\s?(?:</[A-Za-z][\w:.-]{0,40}>|<(?:end|stop)>|/(?:no_?)?think"
    r"|(?<=[.!?\"”])\s?[#*_<|`~{\[]++|(?<=[.!?\"”])\s?(?-i:EO[TSDM])\b|#{3,}))+\.?$",
    re.IGNORECASE,
)
# Reasoning without any mark around it.
_TASK = tuple(
    f"{who} {what}"
    for who, whats in (
        ("the user", "wants|asks|asked|is asking|needs|said|requested"),
        ("we need", "to write|to describe|to produce|to give|one sentence|a sentence|one description"),
        ("i need to", "write|describe|produce|mention|avoid|craft"),
        ("i should", "write|describe|produce|mention|avoid|craft|make|keep|respond|answer|provide|focus"),
        ("i must", "write|describe|produce|mention|avoid|craft"),
        ("i will", "write|describe|start"),
        ("i'll", "write|describe|start"),
        ("let me", "think|write|try|craft|draft|start|see|count|describe"),
        ("let's", "write|think|craft|draft|count|describe"),
        ("wait,", "i|let me|maybe|actually|the user"),
        ("hmm,", "i|let me|maybe|the user"),
    )
    for what in whats.split("|")
)
_TASK_HINTS = (
    "the user ",
    "we need ",
    "i need to ",
    "i should ",
    "i must ",
    "i will ",
    "i'll ",
    "let me ",
    "let's ",
    "wait, ",
    "hmm, ",
)
_SECOND = re.compile(
    r"\s{0,40}[*_#]{0,3}\s?(?:description|text|sentence|caption|option|version|alternative) ?#?[2-9]\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"\s[(\[][^()\[\]]{0,40}\b\d{1,3} words[.!]?[)\]]\.?$", re.IGNORECASE)

# --- sentences -------------------------------------------------------------------------------------------

# The lookbehind and the possessive quantifiers keep the time linear in a long run of dots.
_END = re.compile(r"[.!?](?<![.!?][.!?])[.!?]*+[\"'”’)]*+(?=\s|$)")
_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|etc|approx|vs|cf|dr|mr|mrs|ms|st|no|fig|jr|sr|prof|[a-z])\.$", re.IGNORECASE
)
_LONGEST_ABBREVIATION = 8
_LONE_LETTER = re.compile(r"(?<![\w.])a\.$")  # "It looks like a.": no end, unlike "vitamin C." or "km/h."
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_WORD_OR_FIGURE = re.compile(r"\d+(?:[.,]\d+)*|[\w'’-]+")
_FEWEST_WORDS = 4
_WHOLE = frozenset({"stop", "end_turn", "stop_sequence", "eos", "eos_token", "completed"})

# fmt: off
# A sentence that ends in one of these words is truncated, even if `finish_reason` is `stop`.
_DANGLING = frozenset({
    "a", "an", "the", "of", "and", "or", "but", "with", "to", "in", "on",
    "at", "by", "for", "from", "as", "is", "are", "was", "its", "it's", "their",
    "his", "her", "that", "which", "very", "like", "into", "than", "be", "has", "have",
})
# fmt: on


def is_plain(text: str) -> bool:
    """Whether a text has nothing that `without_formatting` would remove, as most texts."""
    if "_" in text or "\n" in text or "('" in text or " EO" in text or _ODD.search(text):
        return False
    if not text.isascii() and not _ODD_BLANKS.isdisjoint(text):
        return False
    return text[:1] not in _ODD_START and text[1:2] != ")" and not may_leak(text)


def is_title(line: str) -> bool:
    """Whether a line is a heading, or is all bold and ends no sentence."""
    if _HEADING.match(line):
        return True
    return bool(_BOLD_LINE.match(line)) and not _SENTENCE_END.search(line, max(0, len(line) - 50))


def is_short(line: str) -> bool:
    """Whether a line is a few words that end no sentence: a title of what follows."""
    return len(line) <= 60 and not _SENTENCE_END.search(line) and len(line.split(None, 6)) < 6


def is_postscript(line: str) -> bool:
    """Whether a line is about the answer ("I hope this helps!") and not about the thing."""
    return _POSTSCRIPT.match(line) is not None


def is_rule(line: str) -> bool:
    """Whether a line is a horizontal rule, or begins or ends a LaTeX environment."""
    return _RULE.match(line) is not None or _FRAME.match(line) is not None


def is_fence(line: str) -> bool:
    """Whether a line opens or closes a block of code."""
    return _FENCE.match(line) is not None


def item_mark(line: str) -> re.Match[str] | None:
    """The bullet or number that a line of a list begins with."""
    return _ITEM.match(line)


def without_quote_mark(line: str) -> str:
    """A line without its leading quotation sign (`>`)."""
    found = _QUOTED_LINE.match(line + " ")
    return line[found.end() :] if found else line


def without_item_mark(line: str) -> str:
    """A line without its bullet or number; of `**1. Shape:**` the stars stay."""
    found = _ITEM.match(line)
    if found is None:
        return line
    kept = found["bold"] or ""
    return (kept if kept and not found[0].rstrip(" :").endswith(kept[0]) else "") + line[found.end() :]


def without_label(text: str, asked: str = "") -> str:
    """`**Shape:** It is round.` without its label; a label that alone names the subject stays."""
    found = _LABEL.match(text)
    if found is None or not text[found.end() :].strip():
        return text
    label = found[2].strip(" :").casefold()
    rest = text[found.end() :]
    if label in asked.casefold() and label not in rest.casefold():
        return f"{found[2].rstrip(' :')}: {rest}"
    return rest


def without_formatting(text: str, asked: str = "") -> str:
    """A text on one line without its formatting: Markdown, HTML, LaTeX, entities."""
    if "&" in text:
        text = _ENTITY.sub(_unescaped, _ENTITY.sub(_unescaped, text))  # twice, for &amp;lt;
    if "<" in text:
        text = _BLOCK_TAG.sub("\n", _INLINE_TAG.sub("", _COMMENT.sub("", text)))
    if "\\" in text:
        text = _LATEX.sub(r"\1", _WRITTEN_BREAK.sub("\n", text))
        text = _DISPLAYED.sub(r"\1", text)
    if "$" in text:
        text = _MATHS.sub(r"\1", text)
    text = " ".join(_lines(_WRITTEN_SPACE.sub(" ", text) if "▁" in text else text, asked))
    for sign, pairs in _PAIRS:
        for _ in range(3 if sign in text else 0):  # ***bold and italic***, **bold with *italic* inside**
            text, count = pairs.subn(r"\2", text)
            if not count:
                break
    if "**" in text:
        text = _LOOSE_STARS.sub("", text)
    if "](" in text:
        text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    if "]" in text:
        text = _FOOTNOTE.sub("", text)
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", text)
    return _EDGES.sub("", " ".join(text.split()))


def task_talk(text: str) -> str | None:
    """The words by which a text is about the task and not about the thing, or None."""
    low = text.lower()
    if not any(hint in low for hint in _TASK_HINTS):
        return None
    low = f" {low.replace('’', chr(39))}"
    return next((words for words in _TASK if f" {words}" in low), None)


def left_over(text: str) -> str | None:
    """A mark, a tag or a piece of another form that a cleaned text still has, or None."""
    found = _LEFT.search(text)
    return found[0] if found else None


def _unescaped(found: re.Match[str]) -> str:
    entity = found[0]
    if entity[1].isdigit():  # &39;
        entity = f"&#{entity[1:]}"
    letter = html.unescape(entity if entity.endswith(";") else entity + ";")
    return entity if letter.startswith("&") and len(letter) > 1 else letter


def _lines(text: str, asked: str) -> list[str]:
    """The lines of one text, without fences, titles, an introduction and a postscript."""
    lines = text.split("\n")
    if len(lines) == 1:
        return [_begin(text, asked)]
    kept: list[str] = []
    titles: list[str] = []
    for number, line in enumerate(lines):
        bare = line.strip()
        if not bare or is_fence(line) or _BLOCK_SCALAR.match(bare):
            continue
        above = not kept and number + 1 < len(lines) and not lines[number + 1].strip() and is_short(bare)
        if not kept and number + 1 < len(lines) and task_talk(bare):
            titles.append(line)
            continue
        over = (
            above or is_title(line) or is_postscript(line) or bool(_RULE.match(line) or _TITLED.match(bare))
        )
        over = over or (bool(kept) and _SECOND.match(line) is not None)
        if kept and over:
            break
        if over or (not kept and bare.rstrip("*_ ").endswith(":") and number < len(lines) - 1):
            titles.append(line)
        else:
            kept.append(_begin(line, asked))
    return kept or [_begin(line, asked) for line in titles]


def _begin(line: str, asked: str) -> str:
    """A line without a leading quotation sign, heading sign, bullet and label."""
    for pattern in (_QUOTED_LINE, _HEADING):
        found = pattern.match(line)
        line = line[found.end() :] if found else line
    return without_label(without_item_mark(line).strip(), asked)


# --- from a text on one line to sentences ------------------------------------------------------------------


def without_comment(text: str) -> str:
    """The text without a leading "Sure! Here is one sentence:" or "Description:" and a final "(12 words)"."""
    if "words" in text[-12:]:
        text = _COUNTED.sub("", text)
    for _ in range(3):
        found = _PREAMBLE.match(text)
        if found is None or found.end() == len(text):
            break
        text = text[found.end() :]
    return text


def unquoted(text: str) -> str:
    """The text without quotation marks around the whole; those of a quotation inside or of inches stay."""
    text = text.strip()
    for opening, closing in ("[]", "{}", "()", "«»", "»«", "„“", "‹›", "「」", "『』"):
        if (
            text[:1] == opening
            and text[-1:] == closing
            and opening not in text[1:]
            and closing not in text[:-1]
        ):
            text = text[1:-1].strip()
    if text[:1] in {"'", "‘"} and text[-1:] in {"'", "’"} and len(text) > 2 and text[:1]:
        return text[1:-1].strip()
    if text[:1] in {'"', "“"} and text[:1]:
        inner, marks = text[1:], {'"', "“", "”"}
        if inner[-1:] in marks and not any(mark in inner[:-1] for mark in marks):
            return inner[:-1].strip()
        if not any(mark in inner for mark in marks):
            return inner.strip()
    elif (
        text[-1:] in {'"', "”"} and not any(mark in text[:-1] for mark in '"“”') and not text[-2:-1].isdigit()
    ):
        return text[:-1].strip()
    return text


def whole_sentences(text: str, finish_reason: str) -> str:
    """The first complete sentences, at most `MAX_SENTENCES`; "" if there is none.

    An answer that stopped by itself may lack its last full stop; one that was cut off loses its incomplete
    last sentence.
    """
    whole = finish_reason.casefold() in _WHOLE
    if whole and text and not _END.search(text[-3:]):
        text = text.rstrip(" ,;:-–—") + "."
    found = sentences(text, most=MAX_SENTENCES, whole=whole)
    ends = next((n for n, each in enumerate(found) if n and _FAREWELL.match(each)), len(found))
    return " ".join(found[:ends])


def sentences(text: str, *, most: int | None = None, whole: bool = False) -> list[str]:
    """The complete sentences of a text on one line; the last one of a `whole` text may end in "etc."."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        tail = max(start, match.end() - _LONGEST_ABBREVIATION), match.end()
        last = whole and match.end() == len(text) and not _LONE_LETTER.search(text, *tail)
        if not last and _ABBREVIATION.search(text, *tail):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
        if len(found) == most:
            break
    return found


def find_fault(text: str, asked: str, hidden: str) -> str | None:
    """Why whole sentences are not a description, or None. `hidden` is the text with `own_names` hidden."""
    if not text:
        return "holds no whole sentence"
    if _is_truncated(text, hidden):
        return "breaks off inside a sentence"
    return "goes round in circles" if _is_loop(text, asked) else None


def has_words(text: str, count: int) -> bool:
    """Whether a text has at least this number of words."""
    words = _WORD.finditer(text)
    return all(next(words, None) is not None for _ in range(count))


def _is_truncated(text: str, hidden: str) -> bool:
    words = _WORD.findall(text)
    if len(words) < _FEWEST_WORDS:
        return True
    if words[-1].casefold() not in _DANGLING:
        return False
    return hidden == text or _WORD.findall(hidden)[-1].casefold() in _DANGLING  # "A*" is a name, "a" is not


def _is_loop(text: str, asked: str) -> bool:
    """Whether the same three words occur twice, or one long word four times: a small model's loop.

    What the question repeats ("sides 1.0 to 0.7 to 0.7") may occur as often as it does there.
    """
    words = _WORD_OR_FIGURE.findall(text.casefold())
    # Of most texts this is enough: no word occurs four times (a set loses three), and no three words twice.
    if len(words) - len(set(words)) < 3 and len(set(_triples(words))) == max(0, len(words) - 2):
        return False
    triples, long = _repetitions(words)
    if max(triples.values(), default=0) < 2 and max(long.values(), default=0) < 4:
        return False
    asked_triples, asked_long = _asked_repetitions(asked)
    return any(count > max(1, asked_triples[each]) for each, count in triples.items()) or any(
        count > max(3, asked_long[each]) for each, count in long.items()
    )


@lru_cache(maxsize=16)
def _asked_repetitions(asked: str) -> tuple[Counter[tuple[str, str, str]], Counter[str]]:
    """`_repetitions` of a question, cached: it is the same for all texts of an answer."""
    return _repetitions(_WORD_OR_FIGURE.findall(asked.casefold()))


def _repetitions(words: Sequence[str]) -> tuple[Counter[tuple[str, str, str]], Counter[str]]:
    """How often each sequence of three words occurs, and each word of more than four letters."""
    return Counter(_triples(words)), Counter(word for word in words if len(word) > 4)


def _triples(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return zip(words, words[1:], words[2:], strict=False)
