"""What `kb verify` found: counts of everything, examples of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from data.errors import UniBindError, first_line
from data.show import visible

Severity = Literal["error", "note"]

_Several = range | npt.NDArray[np.int64]
_Describe = Callable[[int], tuple[str, str]]

EXAMPLES: Mapping[Severity, int] = {"error": 20, "note": 3}  # kept of each kind; all are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: what kind of thing, where, and how it is instead."""

    severity: Severity
    what: str
    where: str
    detail: str


@dataclass(frozen=True)
class Verification:
    """What was looked at (`counts`) and what was not (`remarks`), how often each kind of finding came, and
    examples of each.
    """

    counts: Mapping[str, int]
    remarks: tuple[str, ...]
    totals: Mapping[tuple[Severity, str], int]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no error; notes are none."""
        return all(severity != "error" for severity, _ in self.totals)

    def __str__(self) -> str:
        lines = ["looked at " + ", ".join(f"{count:,} {name}" for name, count in self.counts.items())]
        lines += self.remarks
        for (severity, what), total in self.totals.items():
            lines.append(f"{severity}: {what}: {total:,}")
            mine = [each for each in self.findings if (each.severity, each.what) == (severity, what)]
            lines += [f"  {each.where}: {each.detail}" for each in mine]
            if total > len(mine):
                lines.append(f"  ... and {total - len(mine):,} more")
        errors = sum(total for (severity, _), total in self.totals.items() if severity == "error")
        lines.append("clean" if self.clean else f"NOT clean: {errors:,} errors")
        return "\n".join(map(visible, lines))


@dataclass
class Findings:
    """Findings as they are made: counted all, kept some."""

    totals: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    kept: list[Finding] = field(default_factory=list)

    def error(self, what: str, where: str, detail: str) -> None:
        """Something is wrong."""
        self._add("error", what, where, detail)

    def note(self, what: str, where: str, detail: str) -> None:
        """Something is worth knowing and not wrong."""
        self._add("note", what, where, detail)

    def errors(self, what: str, wrong: _Several, describe: _Describe) -> None:
        """An error for each of `wrong`; `describe` gives the place and the detail of those that are shown."""
        self._add_many("error", what, wrong, describe)

    def notes(self, what: str, those: _Several, describe: _Describe) -> None:
        """`errors`, of what is not wrong."""
        self._add_many("note", what, those, describe)

    def merge(self, other: Findings) -> None:
        """Take over what another process found."""
        for each in other.kept:
            if self.totals[each.severity, each.what] < EXAMPLES[each.severity]:
                self.kept.append(each)
            self.totals[each.severity, each.what] += 1
            other.totals[each.severity, each.what] -= 1
        self.totals.update({key: rest for key, rest in other.totals.items() if rest})

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Turn any exception that a damaged file causes into a finding, so that the other checks go on."""
        try:
            yield
        except Exception as error:
            kind = "" if isinstance(error, UniBindError) else f"{type(error).__name__}: "
            self.error("cannot be checked", where, f"{kind}{first_line(error)}")

    def _add_many(self, severity: Severity, what: str, those: _Several, describe: _Describe) -> None:
        shown = max(0, EXAMPLES[severity] - self.totals[severity, what])
        for each in those[:shown]:
            self._add(severity, what, *describe(each))
        if len(those) > shown:
            self.totals[severity, what] += len(those) - shown

    def _add(self, severity: Severity, what: str, where: str, detail: str) -> None:
        if self.totals[severity, what] < EXAMPLES[severity]:
            self.kept.append(Finding(severity, what, where, detail))
        self.totals[severity, what] += 1
