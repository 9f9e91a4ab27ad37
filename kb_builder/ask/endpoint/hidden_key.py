"""Remove the API key from texts of servers, so that it reaches no table, log or message.

The whole key is found plain, JSON-escaped, URL-encoded, in base64 or hexadecimal, and as HTML entities. Parts
of it are found from fifteen characters on, or its first or last six; fewer beside a mask or words that
announce a key (`sk-pr***wxyz`, "the key ending in wxyz").
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from urllib.parse import quote, quote_plus

HIDDEN = "***"

log = logging.getLogger(__name__)

_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp")

_SHORTEST_KEY = 8  # shorter ones ("none") are words, not secrets
_SHORTEST_CUT = 16  # parts of shorter ones may be words
_WINDOW = 8
_END = 6
_FEW = 3  # characters on one side of a mask; four on both sides together, or after words
_MASK = re.compile(r"\*{2,}|\.{2,}|…+|•{2,}|[xX]{3,}|#{2,}|\[(?:redacted|hidden|masked)\]", re.IGNORECASE)
_WORDS = re.compile(
    r"(?:ends?|ending|starts?|starting|begins?|beginning|prefix(?:ed)?|suffix(?:ed)?|last|first)\b[^A-Za-z0-9]{0,3}"
    r"(?:(?:with|in|by|is|are|four|five|six|eight|\d+(?=\W+(?:char|digit|letter))|characters?|digits?|chars?|letters?|of|your|the|api|key)\b"
    r"[^A-Za-z0-9]{1,4}){0,6}",
    re.IGNORECASE,
)


class HiddenKey:
    """Removes one key from texts (`hide`). A text without any part of it is returned unchanged."""

    def __init__(self, key: str) -> None:
        self._lower = key.lower()
        self._whole: re.Pattern[str] | None = None
        self._needles: tuple[str, ...] = ()  # lower case: a text without any of them holds no form of the key
        self._pieces: tuple[str, ...] = ()
        self._ends: tuple[str, ...] = ()
        if len(key) < _SHORTEST_KEY:
            return
        forms = _forms(key)
        patterns = [
            re.escape(form) + ("[A-Za-z0-9+/=_-]{0,4}" if packed else "") for form, packed in forms.items()
        ]
        # A text that was escaped twice has more backslashes.
        patterns.append("".join(rf"\\+u{ord(letter):04x}" for letter in key))
        self._whole = re.compile("|".join(sorted(patterns, key=len, reverse=True)), re.IGNORECASE)
        self._needles = (*(form.lower() for form in forms), f"u{ord(key[0]):04x}\\")
        if len(key) >= _SHORTEST_CUT:
            # Every fifteen characters in a row hold one of these eight whole.
            windows = [self._lower[at : at + _WINDOW] for at in range(0, len(key) - _WINDOW + 1, _WINDOW)]
            self._pieces = (*windows, self._lower[:_END], self._lower[-_END:])
            self._ends = (self._lower[:_FEW], self._lower[-_FEW:])

    def hide(self, text: str) -> str:
        """The text with `***` in place of the key and of its parts."""
        if self._whole is None:
            return text
        lower = _lower(text)
        if any(needle in lower for needle in self._needles):
            text = self._whole.sub(HIDDEN, text)
            lower = _lower(text)
        if not any(end in lower for end in self._ends) and not any(piece in lower for piece in self._pieces):
            return text
        spans = [span for piece in self._pieces for span in self._around(lower, piece)]
        spans += self._masked(text, lower)
        return _blot(text, spans)

    def _around(self, lower: str, piece: str) -> list[tuple[int, int]]:
        """Spans of a text around a piece of the key, extended as long as they match the key."""
        key, found = self._lower, []
        place = lower.find(piece)
        while place != -1:
            at = key.find(piece)
            start, end = place, place + len(piece)
            while start > 0 and at > 0 and lower[start - 1] == key[at - 1]:
                start, at = start - 1, at - 1
            at += end - start
            while end < len(lower) and at < len(key) and lower[end] == key[at]:
                end, at = end + 1, at + 1
            found.append((start, end))
            place = lower.find(piece, end)
        return found

    def _masked(self, text: str, lower: str) -> list[tuple[int, int]]:
        found = []
        for mask in _MASK.finditer(text):
            before = self._beginning_before(lower, mask.start())
            after = self._end_at(lower, mask.end())
            if max(before, after) >= _FEW and before + after > _FEW:
                found.append((mask.start() - before, mask.end() + after))
        for words in _WORDS.finditer(text):
            after = max(self._end_at(lower, words.end()), self._beginning_at(lower, words.end()))
            if after > _FEW:
                found.append((words.end(), words.end() + after))
        return found

    def _beginning_before(self, lower: str, place: int) -> int:
        """How many of the key's first letters end right before `place`."""
        most = min(place, len(self._lower) - 1)
        return next((n for n in range(most, 0, -1) if lower.startswith(self._lower[:n], place - n)), 0)

    def _end_at(self, lower: str, place: int) -> int:
        """How many of the key's last letters begin at `place`."""
        most = min(len(lower) - place, len(self._lower) - 1)
        return next((n for n in range(most, 0, -1) if lower.startswith(self._lower[-n:], place)), 0)

    def _beginning_at(self, lower: str, place: int) -> int:
        count = 0
        while (
            place + count < len(lower)
            and count < len(self._lower)
            and lower[place + count] == self._lower[count]
        ):
            count += 1
        return count


def _lower(text: str) -> str:
    """The text in lower case with the same length: letters whose lower case is longer are kept."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


def _forms(key: str) -> dict[str, bool]:
    """Every form of a whole key, and whether it is base64, whose end may differ."""
    raw = key.encode()
    plain = {
        key,
        json.dumps(key)[1:-1],
        json.dumps(key)[1:-1].replace("/", "\\/"),
        "".join(f"\\x{byte:02x}" for byte in raw),
        quote(key, safe=""),
        quote(key),
        quote_plus(key),
        "".join(f"%{byte:02x}" for byte in raw),
        "".join(f"&#{ord(letter)};" for letter in key),
        "".join(f"&#x{ord(letter):x};" for letter in key),
        raw.hex(),
    }
    forms = dict.fromkeys(plain, False)
    for shift in range(3):
        # In base64 of "Bearer KEY" or "user:KEY" the key begins at one of three places of a group. Only whole
        # groups of its own letters do not depend on the letters around it.
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        stable = encoded[4 if shift else 0 : (len(raw) + shift) // 3 * 4]
        forms |= dict.fromkeys({stable, stable.replace("+", "-").replace("/", "_")}, True)
    return {form: packed for form, packed in forms.items() if len(form) >= _SHORTEST_KEY}


def _blot(text: str, spans: list[tuple[int, int]]) -> str:
    if not spans:
        return text
    parts, done = [], 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [text[done:start], HIDDEN]
        done = max(done, end)
    return "".join([*parts, text[done:]])


def silence_vendor() -> None:
    """Set the loggers of the vendor's packages to warnings. Call it before they are imported.

    At `debug` they print prompts, media, and headers and answers that may quote the key.
    """
    if os.environ.pop("OPENAI_LOG", None) is not None:  # read when `openai` is imported
        log.warning("OPENAI_LOG is ignored: it would print prompts, and answers that may quote the API key")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
