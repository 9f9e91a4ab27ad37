"""A gate's verdict on a text."""

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
    "unfaithful",  # a text about measured facts that does not stay with them
    "unparsed",  # the answer holds no text that can be read
    "failed",  # there is no answer: the request was refused for good
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one text, the row it repeats where it is a duplicate, and why it was rejected."""

    status: str
    dup_of: str | None = None
    reason: str | None = None
