"""What the licence of a model's weights is, and that it is told where it forbids commercial use."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from data.reads import reading
from kb_builder.models import known_models

NOT_STATED = "not stated"

logger = logging.getLogger(__name__)


def stated_licence(folder: Path) -> str:
    """The `license:` line at the head of a folder's README.md, as the hub's model cards carry it."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if reading(card).is_file() else ""
    found = re.search(r"\A---\n.*?^license:\s*(\S+)", text, flags=re.DOTALL | re.MULTILINE)
    return found.group(1) if found else NOT_STATED


def licence_of(folder: Path) -> str:
    """What a folder's model card states; else what is known of the published model of that folder's name."""
    known = known_models().get(folder.resolve().name)
    stated = stated_licence(folder)
    return known.licence if stated == NOT_STATED and known else stated


def forbids_commerce(licence: str) -> bool:
    """Whether a licence's name says non-commercial (`cc-by-nc-4.0`) or for research only."""
    words = set(re.split(r"[^a-z]+", licence.lower()))
    return "nc" in words or {"non", "commercial"} <= words or bool(words & {"noncommercial", "research"})


def tell_licence(name: str, licence: str) -> None:
    """Log the licence of weights that are being loaded; a warning where they may not be used for gain."""
    if forbids_commerce(licence):
        logger.warning("%s: its weights are licensed %s, not for commercial use", name, licence)
    else:
        logger.info("%s: licence of the weights: %s", name, licence)
