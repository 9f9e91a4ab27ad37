"""Mistakes: collects everything that is wrong with a file, and notes on what was skipped or assumed."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from data.errors import ManifestError

_COMPARED = 200_000  # letters × names: a search for similar names then takes a second
_SHOWN = 20  # mistakes listed one by one; the rest are counted


class Mistakes:
    """Everything that is wrong with one file, reported at once by one ManifestError; and notes on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown: list[str] = []
        self._count = 0
        self.notes: list[str] = []  # what was skipped, dropped or assumed

    def add(self, where: str, what: str, *, given: str | None = None, known: Collection[str] = ()) -> None:
        """Add a mistake; where `given` resembles one of `known`, that is suggested."""
        self._count += 1
        if len(self._shown) < _SHOWN:
            self._shown.append(f"{where}: {what}{_suggestion(given, known)}")

    def note(self, what: str) -> None:
        """Add a note, once: not a mistake, but the user should know."""
        if what not in self.notes:
            self.notes.append(what)

    def raise_if_any(self) -> None:
        """Raise ManifestError with the first 20 mistakes and the number of all."""
        if not self._count:
            return
        count = f"{self._count} mistake{'s' if self._count > 1 else ''}"
        rest = [f"... and {self._count - _SHOWN} more"] if self._count > _SHOWN else []
        raise ManifestError("\n  ".join([f"{self._path}: {count}", *self._shown, *rest]))


def _suggestion(given: str | None, known: Collection[str]) -> str:
    if given is None or not known:
        return ""
    by_folded = {name.casefold(): name for name in known}
    affordable = len(given) * len(known) <= _COMPARED
    close = difflib.get_close_matches(given.casefold(), by_folded, n=1) if affordable else []
    if close:
        return f"; did you mean {by_folded[close[0]]!r}?"
    listed = ", ".join(sorted(known)[:12])
    return f"; known: {listed}{', ...' if len(known) > 12 else ''}"
