"""Shapes: finds the texts of an answer that has several, in any form.

Requests ask for a JSON object with a list. Models answer with that, or with JSON of another form, lines of
JSON, XML, YAML, a table, a list with numbers or bullets, lines or sentences. `find_all` gives all of the
texts, without titles, ids, an introduction or a draft, or says why it cannot.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from kb_builder.parse import loose_json
from kb_builder.parse.sentences import (
    is_fence,
    is_postscript,
    is_rule,
    is_short,
    is_title,
    item_mark,
    sentences,
    without_item_mark,
    without_quote_mark,
)

_DEEPEST = 24  # nested lists and objects that are searched
_WORDS_OF_A_TEXT = 3  # from which a value under an unknown key counts as a text

_LISTS: dict[str, list[str]] = {
    name: words.split()
    for name, words in tomllib.loads(
        resources.files(__package__).joinpath("shapes.toml").read_text(encoding="utf-8")
    ).items()
}
_KEYS = {key: rank for rank, key in enumerate(_LISTS["lists"] + _LISTS["texts"])}
_TEXT_KEYS = frozenset(_LISTS["texts"])
_ASIDE = frozenset(_LISTS["aside"])
_REASONING = frozenset(_LISTS["reasoning"])
_HTML = frozenset(_LISTS["html"])
_INLINE_TAGS = frozenset(_LISTS["inline_tags"])
_SIGNS = re.compile(r"[\W\d_]+")
_NUMBERED_KEY = re.compile(r"(?i)[^\d]{0,24}\d+[^\d]{0,8}")
_DRAFT = re.compile(
    r"\b(?:final|revised|improved|corrected|refined|better|actually|wait|instead|polished"
    r"|let me (?:re|fix|correct))",
    re.IGNORECASE,
)
_ESCAPED_JSON = re.compile(r"\s{0,40}[\[{]\s{0,40}\\[\"n]")
_FORGOTTEN = re.compile(r"^[ \t]{0,20}[\"“'‘](.*)[\"”'’],?[ \t]*$")

_XML_TAG = re.compile(r"<(/?)([A-Za-z_][\w.:-]{0,40})((?:\s[^<>]{0,300})?)(/?)>")
_XML_HEAD = re.compile(
    r"<\?xml[^<>]{0,200}\?>|<!DOCTYPE[^<>]{0,200}>|<!\[CDATA\[|\]\]>|<!--(?:[^-]++|-(?!->))*+(?:-->|\Z)"
)
_PAIR = re.compile(r"\s{0,40}(?:[*_]{0,2})([A-Za-z][\w ]{0,30}?)(?:[*_]{0,2}) ?:(?:[*_]{0,2})(?:\s+(.*))?$")
_BLOCK_SCALAR = re.compile(r"[|>][+-]?\d?$")
# Counted lines without a dot after the number, or with letters or Roman figures.
_COUNTED = re.compile(
    r"\s{0,40}(?:#(\d{1,3})\s+|(\d{1,3})(?:\s?[-–—]\s+|\t)|\(?([ivx]{1,5}|[IVX]{1,5}|[A-Za-z])[.)]\s+)"
)
_NAMED = re.compile(
    r"\s{0,40}[*_#]{0,3}\s?(?:text|description|caption|sentence|option|version|item|example|fact|number)\s?#?\d{1,3}"
    r"(?:[*_]{0,3}\s?[:.)–-][*_]{0,3}|[*_]{2,3}|(?=\s*$))\s*",
    re.IGNORECASE,
)
_ROMAN = dict(zip("i ii iii iv v vi vii viii ix x xi xii".split(), range(1, 13), strict=True))  # noqa: SIM905
_BREAK_TAG = re.compile(r"<br\s{0,3}/?>|</?(?:ul|ol)>", re.IGNORECASE)
_OPEN_ITEM_TAG = re.compile(r"<li(?:\s[^<>]{0,200})?>", re.IGNORECASE)
# An emoji as a bullet, perhaps of several characters.
_PICTURE = re.compile(
    r"\s{0,40}(?:[\u2600-\u27bf\U0001f000-\U0001faff][\ufe0f\u200d\U0001f3fb-\U0001f3ff]{0,3}){1,4}\s+(?=[^\sa-z])"
)
_MARK_ALONE = re.compile(r"\s{0,40}(?:[*_#(]{0,3}\d{1,3}[.):]?[*_]{0,3}|[-*•]|[*_]{1,3})\s*+$")
_NUMBER_INSIDE = re.compile(r"(?:(?<=\s)|^)\(?(\d{1,3})[.)]\s+(?=[\"“A-Z*\U0002f800-\U0002fa1d])")
_SHORT_LABEL = re.compile(r"([A-Z][\w /&-]{0,30}):\s+(?=\S)")


@dataclass(frozen=True, slots=True)
class FoundTexts:
    """The texts of an answer.

    `rest`: what follows the last whole text of a truncated list. `open_end`: only the end of the answer ends
    the last text. `form` names the form for a message.
    """

    texts: Sequence[str]
    rest: str | None = None
    open_end: bool = False
    form: str = "list"


def find_all(content: str) -> FoundTexts:
    """The texts of an answer that should hold several."""
    low = content.casefold()
    if "<li" in low and "</li" not in low:
        content = _OPEN_ITEM_TAG.sub("\n- ", _BREAK_TAG.sub("\n", content))
    return find_structured(content) or _split_lines(
        _BREAK_TAG.sub("\n", content) if "<" in content else content
    )


def find_structured(content: str, *, html: bool = True) -> FoundTexts | None:
    """The texts of JSON, XML, a table or lines of `key: value`; None for prose and other lists.

    Tags of HTML alone count as XML only with `html`: in a single text they are formatting.
    """
    content = content.strip()
    if not content:
        return None
    return (
        _read_json(content) or _read_xml(content, html=html) or _read_table(content) or _read_pairs(content)
    )


def read_strict(content: str) -> FoundTexts | None:
    """The texts of an answer that is valid JSON; None for any other."""
    content = content.strip()
    if content[:1] not in {"[", "{", '"'}:
        return None
    try:
        value = loose_json.strict(content)
    except (ValueError, RecursionError):
        return None
    return (
        None
        if isinstance(value, str) and _inside_string(value) is None
        else FoundTexts(_unfolded(_texts_in(value)), form="JSON")
    )


# --- JSON --------------------------------------------------------------------------------------------------


def _read_json(content: str) -> FoundTexts | None:
    if content[0] in '[{"':
        try:
            value = loose_json.strict(content)
        except (ValueError, RecursionError):
            pass
        else:
            return FoundTexts(_unfolded(_texts_in(value)), form="JSON")
    if not any(sign in content for sign in "[{("):
        return None
    if _ESCAPED_JSON.match(content):
        content = content.replace('\\"', '"').replace("\\n", "\n")
    found: list[list[str]] = []
    between: list[str] = []  # the content before each value that has texts
    at, rest, looked = 0, None, False
    for value in loose_json.values(content):
        texts = list(_texts_in(value.value, torn=value.rest is not None))
        looked = looked or value.start == 0 or bool(texts) or value.rest is not None
        rest = value.rest
        if texts:
            found.append(texts)
            between.append(content[at : value.start])
            at = value.end
    if not looked:
        return None
    if not found:
        starts_so = content.lstrip("`json \n\t")[:1] in {"{", "["}
        return FoundTexts((), rest=rest or None, form="JSON") if starts_so or rest else None
    if len(found) > 1 and any(_DRAFT.search(said[-300:]) for said in between[1:]):
        found = found[-1:]  # the earlier ones are drafts
    return FoundTexts(_unfolded(text for texts in found for text in texts), rest=rest, form="JSON")


def _unfolded(texts: Iterable[str]) -> list[str]:
    """The texts; a list inside one string is split into its texts."""
    found = list(texts)
    if len(found) == 1:
        lines = [line for line in found[0].splitlines() if line.strip()]
        if len(lines) > 1 and sum(item_mark(line) is not None for line in lines) > 1:
            return list(_split_lines(found[0]).texts)
        inside = _numbered(" ".join(lines))
        if len(inside) > 1:
            return inside
        if len(lines) > 1 and all(len(sentences(line.strip())) == 1 for line in lines):
            return [line.strip() for line in lines]
    return found


def _texts_in(value: Any, *, torn: bool = False, depth: int = 0) -> Iterator[str]:
    """The texts of a value of JSON, in their order."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        inner = _inside_string(value)
        if inner is None:
            yield value
        else:
            yield from _texts_in(inner, depth=depth + 1)
    elif isinstance(value, list):
        counted = len(value) > 1 and any(isinstance(each, str) and _looks_like_text(each) for each in value)
        for each in value:
            if counted and isinstance(each, str) and _MARK_ALONE.match(each):
                continue  # the number of a text, in a list of its own
            if isinstance(each, str | list | dict):
                yield from _texts_in(each, torn=torn and each is value[-1], depth=depth + 1)
    elif isinstance(value, dict):
        yield from _texts_of_object(value, torn=torn, depth=depth)


def _inside_string(text: str) -> Any:
    """The list or object that a string contains as JSON, or None."""
    bare = text.strip()
    if bare[:1] not in {"{", "["} or bare[-1:] not in {"}", "]"}:
        return None
    try:
        return loose_json.strict(bare)
    except (ValueError, RecursionError):
        found = [value.value for value in loose_json.values(bare)]
        return found or None


def _texts_of_object(value: dict[str, Any], *, torn: bool, depth: int) -> Iterator[str]:
    kind = value.get("type")
    if isinstance(kind, str):
        if _SIGNS.sub("", kind.casefold()) in _REASONING:
            return
        if kind in {"object", "array", "string"} and (
            "properties" in value or "items" in value or len(value) <= 2
        ):
            for key in ("properties", "items", "value", "default"):  # an answer in the form of its schema
                if isinstance(value.get(key), dict | list):
                    yield from _texts_in(value[key], depth=depth + 1)
                    return
            return
    named: dict[str, list[Any]] = {}
    for key, inner in value.items():
        named.setdefault(_SIGNS.sub("", key.casefold()), []).append(inner)
    for key in sorted(named.keys() & _KEYS.keys(), key=_KEYS.__getitem__):
        texts = [text for inner in named[key] for text in _texts_in(inner, torn=torn, depth=depth + 1)]
        if texts:
            yield from texts
            return
    if torn and depth and not all(_NUMBERED_KEY.fullmatch(key) for key in value):
        return  # truncated: the missing key may have been the text
    inners = [inner for key, inners in named.items() if key not in _ASIDE for inner in inners]
    boxes = [inner for inner in inners if isinstance(inner, list | dict) or _is_json(inner)]
    inside = [text for inner in boxes for text in _texts_in(inner, torn=torn, depth=depth + 1)]
    if inside:
        yield from inside
        return
    numbered = all(_NUMBERED_KEY.fullmatch(key) for key in value)
    for inner in inners:
        if isinstance(inner, str) and not _is_json(inner) and (numbered or _looks_like_text(inner)):
            yield inner


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip()[:1] in {"{", "["} and _inside_string(value) is not None


def _looks_like_text(text: str) -> bool:
    return len(text.split(None, _WORDS_OF_A_TEXT)) >= _WORDS_OF_A_TEXT


# --- XML ---------------------------------------------------------------------------------------------------


def _read_xml(content: str, *, html: bool) -> FoundTexts | None:
    if "<" not in content:
        return None
    content = _XML_HEAD.sub("", content)
    leaves: dict[str, list[str]] = {}
    order: list[str] = []
    opened: str | None = None
    begin = 0
    tags = [tag for tag in _XML_TAG.finditer(content) if tag[2].casefold() not in _INLINE_TAGS]
    closed = {_SIGNS.sub("", tag[2].casefold()) for tag in tags if tag[1]}
    if not html and closed <= _HTML:
        return None
    if not closed or not (content.lstrip("`xmlht \n").startswith("<") or closed & _KEYS.keys()):
        return None
    for tag in tags:
        name = _SIGNS.sub("", tag[2].rpartition(":")[2].casefold())
        if tag[4]:
            continue
        if not tag[1]:
            opened, begin = name, tag.end()
        elif name == opened:
            if name not in leaves:
                order.append(name)
            leaves.setdefault(name, []).append(content[begin : tag.start()].strip())
            opened = None
    rest = content[begin:].strip() if opened is not None else None
    chosen = _column(order, [leaves[name] for name in order])
    if not chosen:
        return FoundTexts((), rest=rest, form="XML") if leaves or rest else None
    return FoundTexts(chosen, rest=rest, form="XML")


def _column(names: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """The column of the texts, by its name, else by its cells; [] if that is ambiguous."""
    known = [name for name in names if name in _KEYS]
    for name in sorted(known, key=_KEYS.__getitem__):
        texts = [cell for cell in columns[names.index(name)] if cell]
        if texts:
            return texts
    others = [
        [cell for cell in column if cell]
        for name, column in zip(names, columns, strict=True)
        if name not in _ASIDE and any(map(_looks_like_text, column))
    ]
    return others[0] if len(others) == 1 else []


# --- tables ------------------------------------------------------------------------------------------------


def _read_table(content: str) -> FoundTexts | None:
    lines = [line.strip() for line in content.split("\n")]
    ruled = next((n for n, line in enumerate(lines) if _is_table_rule(line)), None)
    if ruled is not None and ruled > 0:
        rows = [_cells(line) for line in (lines[ruled - 1], *lines[ruled + 1 :]) if "|" in line]
    else:
        rows = _separated(lines)
    if len(rows) < 2:
        return None
    width = len(rows[0])
    rows = [[*row, *[""] * width][:width] for row in rows]
    names = [_SIGNS.sub("", cell.casefold()) for cell in rows[0]]
    names = [f"{name}{n}" if name in names[:n] else name for n, name in enumerate(names)]
    texts = _column(names, list(zip(*rows[1:], strict=True)))
    return FoundTexts(texts, open_end=True, form="table")


def _is_table_rule(line: str) -> bool:
    return "|" in line and "--" in line and not line.strip("|-: \t")


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def _separated(lines: Sequence[str]) -> list[list[str]]:
    """The rows of comma or tab separated values whose first row names known columns; [] for anything else."""
    bare = [line for line in lines if line and not is_fence(line)]
    if len(bare) < 2:
        return []
    for sign in (",", ";", "\t", "|"):
        head = [_SIGNS.sub("", cell.casefold()) for cell in bare[0].split(sign)]
        if (
            len(head) > 1
            and any(cell in _KEYS for cell in head)
            and all(cell in _KEYS or cell in _ASIDE for cell in head)
        ):
            try:
                return [row for row in csv.reader(bare, delimiter=sign, skipinitialspace=True) if row]
            except csv.Error:  # one cell of more than 128 kB
                return []
    return []


def _read_pairs(content: str) -> FoundTexts | None:
    lines = [line.strip() for line in content.split("\n") if line.strip() and not is_fence(line)]
    texts = _of_pairs(lines) if len(lines) > 1 else []
    return FoundTexts(texts, open_end=True, form="lines") if texts else None


# --- lines -------------------------------------------------------------------------------------------------


def _split_lines(content: str) -> FoundTexts:
    lines = [without_quote_mark(line) for line in content.splitlines()]
    lines = [line for line in lines if not is_fence(line) and not is_rule(line)]
    filled = [line for line in lines if line.strip()]
    if all(
        _PICTURE.match(line) for line in filled[:-1] or filled
    ):  # the last one may be cut off, or a farewell
        lines = [_PICTURE.sub("", line, count=1) for line in lines]
    while lines and (not lines[-1].strip() or _MARK_ALONE.match(lines[-1])):
        lines.pop()  # the list was cut off after the number of a text
    marked = [n for n, line in enumerate(lines) if item_mark(line)]
    if len(marked) < 2:
        marked = _counted(lines) or _named(lines) or _numbered_titles(lines) or marked
    if len(marked) > 1:
        edges = [*marked, len(lines)]
        chunks = [lines[edges[n] : edges[n + 1]] for n in range(len(marked))]
        if all(map(_is_titled, chunks)):
            chunks = [[f"{_marked(chunk[0])}{chunk[1].strip()}", *chunk[2:]] for chunk in chunks]
        texts = [
            text for n, chunk in enumerate(chunks) for text in _of_chunk(chunk, last=n == len(chunks) - 1)
        ]
        texts = _without_titles(texts, chunks)
        return FoundTexts(_without_common_labels(texts), open_end=True)
    bare = [line.strip() for line in lines if line.strip() and not _is_field(without_item_mark(line))]
    inside = _numbered(" ".join(bare))
    if len(inside) > 1:
        return FoundTexts(inside, open_end=True)
    pairs = _of_pairs(bare)
    if pairs:
        return FoundTexts(pairs, open_end=True)
    if len(bare) == 1 and " | " in bare[0]:
        bare = [piece.strip() for piece in bare[0].strip("| ").split(" | ")]
    if len(bare) > 1 and (bare[0].rstrip("*_").endswith(":") or _SIGNS.sub("", bare[0].casefold()) in _KEYS):
        bare = bare[1:]
    ends = next((n for n, line in enumerate(bare) if n and is_postscript(line)), len(bare))
    bare = bare[:ends]
    if len(bare) > 1 and any(not is_title(line) for line in bare):
        bare = [line for line in bare if not is_title(line)]
    if len(bare) > 1:
        return FoundTexts(_without_common_labels([_unquoted_line(line) for line in bare]), open_end=True)
    return FoundTexts(sentences(" ".join(bare)) or bare, open_end=True)


def _unquoted_line(line: str) -> str:
    """A line of a JSON list whose brackets are missing, without quotation marks and comma."""
    found = _FORGOTTEN.match(line)
    if found is None:
        return line
    try:
        value = loose_json.strict(line.strip().rstrip(","))
    except ValueError:
        return found[1]
    return value if isinstance(value, str) else found[1]


def _counted(lines: Sequence[str]) -> list[int]:
    """The lines that begin with a), b), c) or i., ii., iii. …; [] if these do not count up."""
    marked = [(n, found) for n, line in enumerate(lines) if (found := _COUNTED.match(line))]
    if len(marked) < 2:
        return []
    figures = [found[1] or found[2] or found[3].casefold() for _, found in marked]
    for read in (_figure, _ROMAN.get, lambda letter: ord(letter) - 96 if len(letter) == 1 else None):
        if [read(figure) for figure in figures] == list(range(1, len(figures) + 1)):
            return [n for n, _ in marked]
    return []


def _figure(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _named(lines: Sequence[str]) -> list[int]:
    """The lines that begin with `Text 1:`, `**Description 2**` …"""
    marked = [n for n, line in enumerate(lines) if _NAMED.match(line)]
    return marked if len(marked) > 1 else []


def _numbered_titles(lines: Sequence[str]) -> list[int]:
    """The headings above each text: `### 1. Shape`, `**Text 1**`."""
    marked = [n for n, line in enumerate(lines) if is_title(line)]
    return marked if len(marked) > 1 and sum(any(map(str.isdigit, lines[n])) for n in marked) > 1 else []


def _of_chunk(lines: Sequence[str], *, last: bool) -> list[str]:
    """The text of one item of a list; [] if the item is a title or about the answer."""
    first = lines[0]
    found = _NAMED.match(first) or (None if item_mark(first) else _COUNTED.match(first))
    first = first[found.end() :] if found else without_item_mark(first)
    rest = [line for line in lines[1:] if not _BLOCK_SCALAR.match(line.strip())]
    pairs = _of_pairs([line.strip() for line in (first, *rest) if line.strip()])
    if pairs or _is_field(first):
        return pairs
    kept: list[str] = []
    title: str | None = None
    for n, line in enumerate((first, *rest)):
        bare = line.strip()
        if not bare:
            if last and kept:
                break  # a paragraph after the list is not part of its last item
            continue
        if kept and (is_postscript(bare) or is_title(bare)):
            break
        if not kept and n == 0 and (is_title(bare) or bare.rstrip("*_").endswith(":")):
            title = bare
            continue
        if n == 0 and _BLOCK_SCALAR.match(bare):
            continue
        kept.append(bare)
    return [" ".join(kept)] if kept else [title] if title else []


def _is_titled(lines: Sequence[str]) -> bool:
    """Whether an item is a few words that end no sentence, and right below them a line that begins one."""
    if len(lines) < 2:
        return False
    title, below = lines[0][len(_marked(lines[0])) :].strip(), lines[1].strip()
    return bool(item_mark(lines[0])) and is_short(title) and below[:1].isupper() and not item_mark(below)


def _marked(line: str) -> str:
    """The bullet or number of a line."""
    found = item_mark(line)
    return found[0] if found else ""


def _without_titles(texts: Sequence[str], chunks: Sequence[Sequence[str]]) -> list[str]:
    """Without numbered titles above bullets, if the bullets are the texts."""
    if len(texts) != len(chunks):
        return list(texts)
    kept = [text for text in texts if not (is_title(text) or text.rstrip("*_").endswith(":"))]
    return kept or list(texts)


def _is_field(line: str) -> bool:
    """Whether a line is a field beside the text (`title: …`, `id: …`); an item of it alone is truncated."""
    pair = _PAIR.match(line)
    return pair is not None and line.strip()[:1].islower() and _SIGNS.sub("", pair[1].casefold()) in _ASIDE


def _of_pairs(lines: Sequence[str]) -> list[str]:
    """The texts of lines such as `title: …` and `description: …`; [] if not all lines are such pairs.

    The last line may be the beginning of a name that an earlier line has: the answer was cut off there.
    """
    pairs = [_PAIR.match(line) for line in lines]
    if (
        pairs
        and pairs[-1] is None
        and any(pair is not None and pair[1].startswith(lines[-1]) for pair in pairs)
    ):
        lines, pairs = lines[:-1], pairs[:-1]
    named = [(_SIGNS.sub("", pair[1].casefold()), pair[2] or "") for pair in pairs if pair is not None]
    if {"q", "a"} <= {name for name, _ in named}:
        named = [({"q": "question", "a": "answer"}.get(name, name), text) for name, text in named]
    if len(named) != len(lines) or not any(name in _TEXT_KEYS and text for name, text in named):
        return []
    best = min((name for name, text in named if name in _KEYS and text), key=_KEYS.__getitem__)
    if any(name not in _KEYS and name not in _ASIDE for name, _ in named):
        return []
    return [_FORGOTTEN.sub(r"\1", text) for name, text in named if name == best]


def _without_common_labels(texts: Sequence[str]) -> list[str]:
    """The texts without their labels (`Shape: …`, `Sound: …`), if each has a different one."""
    found = [_SHORT_LABEL.match(text) for text in texts]
    if len(texts) < 2 or not all(found) or len({each[1] for each in found if each}) < len(texts):
        return list(texts)
    return [text[each.end() :] for text, each in zip(texts, found, strict=True) if each]


def _numbered(text: str) -> list[str]:
    """The texts of `1. … 2. … 3. …` on one line; [] if the numbers do not count up from 1."""
    marks = list(_NUMBER_INSIDE.finditer(text))
    if not marks or [int(mark[1]) for mark in marks] != list(range(1, len(marks) + 1)):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    for sign in ".)":
        texts[-1] = texts[-1].removesuffix(f" {len(texts) + 1}{sign}")  # cut off after a number
    return texts
