"""The verdict on a text: its status, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = (
    "ok",
    "dup_exact",
    "dup_near",
    "too_long",
    "refusal",
    "wrong_language",
    "boilerplate",
    "no_name",
    "other_name",
    "unfaithful",  # a text that disagrees with the measured facts
    "unparsed",  # no clean text was found in the answer
    "failed",  # there is no answer: the request failed for good
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one text, the row it repeats where it is a duplicate, and why it was rejected."""

    status: str
    dup_of: str | None = None
    reason: str | None = None
