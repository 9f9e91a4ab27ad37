"""What `unibind doctor` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check. The command fails if a `needed` one is not ok."""

    what: str
    ok: bool
    detail: str
    needed: bool = True

    def to_text(self) -> str:
        """The check as a line for the terminal."""
        sign = "ok  " if self.ok else ("FAIL" if self.needed else "--  ")
        return f"{sign}  {self.what}: {self.detail}"
