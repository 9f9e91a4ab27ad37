"""The records that all packages share: a sample, a category, and a rejected sample with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data.modality import Modality

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Category:
    """A class to recognise."""

    category_id: str
    name: str
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One media file (or text). `uri` is relative to the manifest's folder."""

    sample_id: str
    modality: Modality
    uri: str
    split: Split = "test"
    category_id: str | None = None
    object_id: str | None = None
    description: str | None = None
    more_category_ids: tuple[
        str, ...
    ] = ()  # further categories that it shows; training uses category_id alone


@dataclass(frozen=True, slots=True)
class Reject:
    """A sample that a stage rejected, and why. Rejects are counted in every report."""

    sample_id: str
    stage: str
    reason: str
