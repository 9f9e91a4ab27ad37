"""Encoder cards: which folder of vectors belongs to which encoder, and which part it plays."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import KnowledgeBaseError
from data.reads import reading

# What is needed of an encoder.json.
_CARD: dict[str, type] = {"name": str, "identity": str, "dim": int, "dtype": str, "modalities": list}


@dataclass(frozen=True)
class EncoderFolder:
    """An encoder's folder in the embedding store; `role` is None where it serves in none."""

    role: str | None
    folder: str
    card: dict[str, Any]  # encoder.json


def encoder_folders(kb: Path) -> tuple[EncoderFolder, ...]:
    """Which folder serves in which role, and after them the folders that serve in none.

    Raises KnowledgeBaseError where encoders.json or the card of a serving encoder is missing or damaged.
    """
    store = kb / "embeddings"
    listed = reading(store / "encoders.json")
    roles = _object(listed, {}) if os.path.lexists(listed) else {}
    served = {str(role): str(folder) for role, folder in sorted(roles.items()) if folder is not None}
    serving = [
        EncoderFolder(role, folder, _object(store / folder / "encoder.json", _CARD))
        for role, folder in served.items()
    ]
    unused = sorted(path for path in store.glob("*/") if path.name not in served.values())
    return (*serving, *(EncoderFolder(None, path.name, card_or_empty(path)) for path in unused))


def card_or_empty(folder: Path) -> dict[str, Any]:
    """An encoder's card; empty where it is missing or damaged, which matters only to who needs that one."""
    try:
        return _object(folder / "encoder.json", _CARD)
    except KnowledgeBaseError:
        return {}


def _object(path: Path, needed: dict[str, type]) -> dict[str, Any]:
    """A JSON object that has these keys, each with a value of this type."""
    try:
        value = json.loads(reading(path).read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), needed[key]) for key in needed):
        raise KnowledgeBaseError(f"{path} is missing or damaged; `unibind encode` writes it anew")
    return value
