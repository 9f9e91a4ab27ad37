"""Loose JSON: reads the lists and objects in a text as language models write them.

It accepts JSON and also: single, typographic and triple quotes, backticks, names without quotes, literals of
Python and JavaScript, comments, missing and doubled commas, wrong closing brackets, line breaks and quotation
marks inside strings, and truncated values. One pass without recursion, linear in the length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEEPEST = 64  # nested brackets; a list of texts is never deeper

# What may begin a value: a bracket before a string, another bracket, a comment, or a name with its colon.
_QUOTE = "[\"'“‘«„`「『]"
_START = re.compile(
    rf"\{{(?=\s*(?:{_QUOTE}|[{{\[}}]|//|/\*|-?\d{{1,9}}\s*:|[A-Za-z_$][\w$ ]{{0,40}}\s{{0,3}}[:=]|\Z))"
    rf"|\[(?=\s*(?:{_QUOTE}|[{{\[\]]|//|/\*|#|-?\d{{1,9}}\s*,|\Z))|\((?=\s*{_QUOTE})"
)
_BEFORE = re.compile(r"(?:^|\n|[:=`)>,;\]}(*]|json|JSON|\d[.)])\s{0,20}\Z")
_BETWEEN = re.compile(
    r"(?:[\s,;…]|\.\.\.|//[^\n]*+(?:\n|\Z)|#[^\n]*+(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z))*+"
)
_SPACE = re.compile(r"\s*+")
_NAME = re.compile(r"[A-Za-z_$][\w$ -]{0,60}?(?=\s{0,8}(?::|=>?))|-?\d+(?=\s{0,8}(?::|=>?))")
_COLON = re.compile(r"\s{0,20}(?::|=>|=)")
_SCALAR = re.compile(r"-?\d[\d_.eE+-]{0,40}|(?:true|false|null|none|undefined|nan|infinity)\b", re.IGNORECASE)
_NEXT_KEY = re.compile(r"[A-Za-z_$][\w$ -]{0,60}\s{0,8}:|-?\d+\s{0,8}:")
_LITERALS: dict[str, Any] = {"true": True, "false": False}
_CLOSING = {'"': '"', "'": "'", "`": "`", "“": '”"“', "‘": "’'", "«": "»", "„": '“”"', "「": "」", "『": "』"}
_STOPS = {quote: re.compile(rf"[\\{closing}]") for quote, closing in _CLOSING.items()}
_QUOTES = frozenset(_CLOSING) | frozenset("”’»」』")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": " ", "f": " ", "\n": ""}
_COMMENTED = re.compile(r"#[^\n\"'“”]{0,200}\n\s*+(?:[\]}),#\"'“]|\Z)")
_HEX = re.compile(r"u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Value:
    """A list or an object, and its place in the text. `rest`: the unread remainder of a truncated one."""

    value: Any
    start: int
    end: int
    rest: str | None = None


def strict(text: str) -> Any:
    """The value of a text that is valid JSON. Raises ValueError or RecursionError for any other text.

    The values of a repeated key are joined to a list.
    """
    return _DECODER.decode(text)


def values(text: str) -> Iterator[Value]:
    """Every list and object of a text, from left to right; a truncated one is the last."""
    at = 0
    while (start := _START.search(text, at)) is not None:
        quoted = text[start.end() : start.end() + 1] in {'"', "'"}
        if not (quoted and start[0] == "{") and not _BEFORE.search(
            text[max(0, start.start() - 24) : start.start()]
        ):
            at = start.end()
            continue
        value = _JsonReader(text).read(start.start())
        yield value
        if value.rest is not None:
            return
        at = value.end


def _joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = {}
        for key, value in pairs:
            _put(found, key, value)
    return found


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_joined)


class _Twice(list[Any]):
    """The values of a repeated key."""


def _put(container: dict[str, Any], key: str, value: Any) -> None:
    if key not in container:
        container[key] = value
    elif isinstance(container[key], _Twice):
        container[key].append(value)
    else:
        container[key] = _Twice([container[key], value])


class _BrokenError(Exception):
    """The value cannot be read further."""


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str | None] = []  # of each open object, the key whose value comes next
        self._closing = "]}"

    def read(self, start: int) -> Value:
        """The value that begins at `start`."""
        root: Any = None
        at = start
        try:
            while True:
                at = self._skip(at)
                letter = self._text[at : at + 1]
                if letter and letter in self._closing:
                    at += 1
                    if self._close(letter):
                        return Value(root, start, at)
                elif letter and letter in "{[(":
                    if len(self._open) >= DEEPEST:
                        raise _BrokenError
                    inner: list[Any] | dict[str, Any] = {} if letter == "{" else []
                    if letter == "(":  # a tuple of Python
                        self._closing = "]})"
                    if self._open:
                        self._add(inner)
                    else:
                        root = inner
                    self._open.append(inner)
                    self._keys.append(None)
                    at += 1
                elif isinstance(self._open[-1], dict) and self._keys[-1] is None:
                    at = self._key(at)
                else:
                    value, at = self._scalar(at)
                    self._add(value)
        except _BrokenError:
            rest = self._text[at:].strip()
            # With only the braces after a whole list missing, no text is lost.
            whole = not rest and not any(isinstance(each, list) for each in self._open)
            return Value(root, start, len(self._text), None if whole else rest)

    def _skip(self, at: int) -> int:
        found = _BETWEEN.match(self._text, at)
        return found.end() if found else at

    def _add(self, value: Any) -> None:
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        else:
            key = self._keys[-1]
            _put(container, str(len(container)) if key is None else key, value)
            self._keys[-1] = None

    def _close(self, letter: str) -> bool:
        """Close a bracket, and all inner ones of another kind. Returns whether all brackets are closed."""
        kind = dict if letter == "}" else list
        if not isinstance(self._open[-1], kind):
            if not any(isinstance(each, kind) for each in self._open):
                return False  # one too many
            while not isinstance(self._open[-1], kind):
                self._open.pop()
                self._keys.pop()
        self._open.pop()
        self._keys.pop()
        return not self._open

    def _key(self, at: int) -> int:
        quote = self._text[at : at + 1]
        if quote in _CLOSING:
            name, end = self._string(at, key=True)
        else:
            found = _NAME.match(self._text, at)
            if found is None:
                raise _BrokenError
            name, end = found[0], found.end()
        colon = _COLON.match(self._text, end)
        if colon is None:  # {"one text", "another"}
            self._add(name)
            return end
        self._keys[-1] = name
        return colon.end()

    def _scalar(self, at: int) -> tuple[Any, int]:
        if self._text[at : at + 1] in _CLOSING:
            return self._string(at, key=False)
        found = _SCALAR.match(self._text, at)
        if found is None:
            raise _BrokenError
        return _LITERALS.get(found[0].casefold()), found.end()  # numbers are dropped: they are not texts

    def _string(self, at: int, *, key: bool) -> tuple[str, int]:
        text, quote = self._text, self._text[at]
        if quote in "\"'" and text.startswith(quote * 3, at):
            end = text.find(quote * 3, at + 3)
            if end < 0:
                raise _BrokenError
            return text[at + 3 : end], end + 3
        pieces: list[str] = []
        start = at + 1
        quoting = False  # inside a quotation in the text
        while (stop := _STOPS[quote].search(text, start)) is not None:
            place = stop.start()
            if stop[0] == "\\":
                piece, after = self._escape(place + 1)
                pieces += (text[start:place], piece)
                start = after
            elif not self._is_cut_word(place) and (
                self._ends(place + 1, key=key) or (not quoting and self._ends_badly(place))
            ):
                pieces.append(text[start:place])
                return "".join(pieces), place + 1
            else:
                quoting = not quoting
                pieces.append(text[start : place + 1])
                start = place + 1
        raise _BrokenError

    def _escape(self, at: int) -> tuple[str, int]:
        found = _HEX.match(self._text, at)
        if found is None:
            letter = self._text[at : at + 1]
            return _ESCAPES.get(letter, letter), at + 1
        code, end = int(found[1] or found[2], 16), found.end()
        if 0xD800 <= code < 0xDC00 and self._text.startswith("\\u", end):
            low = _HEX.match(self._text, end + 1)
            if low is not None and low[1] and 0xDC00 <= int(low[1], 16) < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00), low.end()
        return chr(code), end

    def _is_cut_word(self, at: int) -> bool:
        """Whether the text ends with an apostrophe after a letter: "dog'" may be the beginning of "dog's"."""
        text = self._text
        return at + 1 == len(text) and text[at] == "'" and text[at - 1].isalpha()

    def _ends(self, at: int, *, key: bool) -> bool:
        """Whether the quotation mark before `at` ends the string, judged by what follows it."""
        text = self._text
        place = self._space(at)
        letter = text[place : place + 1]
        if letter == "" or letter in self._closing:
            return True
        if key and letter in ":=":
            return True
        if letter in _QUOTES:  # a forgotten comma, or a quotation at the end of the text
            return place > at or not self._is_structure(place + 1)
        if letter in ",;":
            return self._begins_next(self._space(place + 1))
        if (
            letter == "#" and "\n" not in text[at:place]
        ):  # a comment, if the next value or bracket follows its line
            return _COMMENTED.match(text, place) is not None
        return letter == "#" or text.startswith(("//", "/*"), place)

    def _ends_badly(self, at: int) -> bool:
        """Whether a quotation mark that opens no quotation precedes a comma: the next value is damaged."""
        text = self._text
        follows = self._space(at + 1)
        return text[at - 1] not in " \n\t([-–—'’" and text[follows : follows + 1] == ","

    def _begins_next(self, at: int) -> bool:
        text = self._text
        letter = text[at : at + 1]
        if (
            letter == ""
            or letter in _QUOTES
            or letter in "{[(,…"
            or letter in self._closing
            or text.startswith(("//", "/*", "#", "..."), at)
        ):
            return True
        if isinstance(self._open[-1], dict):
            return _NEXT_KEY.match(text, at) is not None
        found = _SCALAR.match(text, at)
        return found is not None and self._is_structure(found.end())

    def _is_structure(self, at: int) -> bool:
        letter = self._text[(place := self._space(at)) : place + 1]
        return letter == "" or letter in ",]}:"

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at
