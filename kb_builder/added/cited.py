"""Which added texts are about which category, and what their rows say of where they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from data.files import hash_json
from data.sample import Category
from kb_builder.added.formats import AddedText
from kb_builder.added.match import match_classes
from kb_builder.added.sources import SOURCE, Source

UNKNOWN = "unknown"  # the model of a text whose file names none
_VERSION = "1"
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # when it was written is not stated


@dataclass(frozen=True, slots=True)
class Cited:
    """An added text, its source, and the category that its class names."""

    category_id: str
    source: Source
    text: AddedText

    def columns(self) -> dict[str, Any]:
        """What the columns of its row must be that do not depend on a verdict."""
        model = self.text.model or UNKNOWN
        return {
            "category_id": self.category_id,
            "text": self.text.text,
            "template_id": f"{SOURCE}/{self.source.content.form}",
            "template_version": _VERSION,
            "prompt_hash": hash_json([SOURCE, self.source.content.sha256]),
            "provider": self.source.name,
            "model_requested": model,
            "model_resolved": model,
            "created_at": self.text.written_at or _NO_TIME,
            "source": SOURCE,
            "cost_usd": 0.0,
            "attempts": 0,
        }


def by_category(sources: Sequence[Source], categories: Sequence[Category]) -> dict[str, list[Cited]]:
    """The added texts of each category that has any, in the order in which they are judged."""
    found: dict[str, list[Cited]] = defaultdict(list)
    for source in sources:
        category_of = match_classes(source.classes, categories).category_of
        for text in source.content.texts:
            if (category_id := category_of.get(text.class_name)) is not None:
                found[category_id].append(Cited(category_id, source, text))
    return dict(found)
