"""Own names: hides the names that a question quotes while the parser removes formatting.

A category may be called "C#", "*NSYNC", "3. Liga", "<script>" or "&amp;", whose signs must stay. The prompts
put names in quotation marks, so the question shows which they are, also to `kb verify`, which has only the
ledger.
"""

from __future__ import annotations

import re
from functools import lru_cache

_QUOTED = re.compile(r'"([^"\n]{1,200})"')
_LETTERS = r"[^\W\d_\u115f\u1160\u3164\uffa0]+"  # without blanks that count as letters
_PLAIN = re.compile(rf"{_LETTERS}(?:[ '’-]{_LETTERS})*")
# fmt: off
# Words that the parser treats as a mark or label at the start of a line.
_SPECIAL = frozenset({
    "human", "user", "assistant", "system", "sure", "ok", "okay", "certainly", "of course", "absolutely",
    "great", "alright", "answer", "description", "caption", "sentence", "text", "output", "result", "ai",
    "final", "response", "question", "q", "input", "instruction", "instructions", "prompt", "task", "student",
    "customer", "note", "explanation", "here", "below", "analysis", "commentary", "model", "assistantfinal",
    "let me know", "eos", "eot",
})
# fmt: on
_BULLET = re.compile(r"[-*+•#>–—·]+")
_FIRST = 0x2F800  # rare letters used as placeholders: 542 of them
_PLACEHOLDERS = re.compile("[\U0002f800-\U0002fa1d]")


class OwnNames:
    """The names that a question quotes. `hide` replaces them by placeholder letters, `show` restores them."""

    def __init__(self, asked: str) -> None:
        self._pattern = _pattern(asked)
        self._letters: dict[str, str] = {}
        self._back: dict[int, str] = {}

    def hide(self, text: str) -> str:
        """The text with a distinct placeholder letter for each spelling of a name."""
        if self._pattern is None or (not self._back and _PLACEHOLDERS.search(text)):
            return text
        return self._pattern.sub(self._replace, text)

    def show(self, text: str) -> str:
        """The text with its names restored."""
        return text.translate(self._back) if self._back else text

    def _replace(self, found: re.Match[str]) -> str:
        name, text = found[0], found.string
        if _BULLET.fullmatch(name) and text[found.end() : found.end() + 1].isspace():
            start, line_end = found.start(), text.find("\n", found.end())
            line = text[max(0, start - 40) : start].rpartition("\n")
            if (
                (line[1] or start <= 40)
                and not line[2].strip()
                and name in text[found.end() : None if line_end < 0 else line_end]
            ):
                return name  # "- The - is a dash.": the first one is a bullet
        letter = self._letters.get(name)
        if letter is None:
            if len(self._letters) >= 500:
                return name
            letter = self._letters[name] = chr(_FIRST + len(self._letters))
            self._back[ord(letter)] = name
        return letter


@lru_cache(maxsize=64)
def _pattern(asked: str) -> re.Pattern[str] | None:
    """A pattern of the quoted names that could be mistaken for formatting; None if there are none."""
    parts = []
    for name in sorted(set(_QUOTED.findall(asked)), key=lambda name: (-len(name), name)):
        name = name.strip()
        if not name:
            continue
        if _PLAIN.fullmatch(name):
            if name.casefold() in _SPECIAL:
                parts.append(rf"(?<![\w</|\[◁{{]){re.escape(name)}(?![\w>|\]▷\"'}}])")
            continue
        before = r"(?<!\w)" if re.match(r"\w", name) else ""
        after = r"(?!\w)" if re.match(r"\w", name[-1]) else ""
        parts.append(before + re.escape(name) + after)
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None
