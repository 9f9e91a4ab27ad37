"""Encoder cards and roles: which encoder each folder of vectors belongs to, and which folders are in use.

<kb>/embeddings/
  encoders.json             role -> name of a folder, or null; the roles are text, samples and zero_shot
  <folder>/encoder.json     the encoder's card: name, identity, dim, dtype, modalities, licence, …
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import KnowledgeBaseError
from data.files import write_json
from data.reads import reading

# The keys of a card that the views over the knowledge base show, with their types.
_CARD: dict[str, type] = {"name": str, "identity": str, "dim": int, "dtype": str, "modalities": list}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderFolder:
    """An encoder's folder in the embedding store; `role` is None if no role uses it."""

    role: str | None
    folder: str  # its name below `embeddings`
    card: dict[str, Any]  # encoder.json


def read_roles(kb: Path) -> dict[str, Path | None]:
    """The folder that each role uses; None for a role that is switched off. Empty if nothing is encoded yet.

    Raises KnowledgeBaseError if encoders.json is damaged.
    """
    path = reading(_roles_path(kb))
    if not os.path.lexists(path):
        return {}
    folders = _read_object(path)
    if not all(name is None or _is_plain_name(name) for name in folders.values()):
        raise _damaged(path)
    return {role: None if name is None else path.parent / name for role, name in folders.items()}


def assign_roles(kb: Path, folders: Mapping[str, str | None]) -> None:
    """Write into encoders.json which folder each of these roles uses, by its name; other roles keep theirs.

    A damaged encoders.json is replaced by one that holds these roles alone, with a warning in the log.
    """
    path = _roles_path(kb)
    # Not noted as read: the stage that assigns roles would depend on its own output.
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        known = None
    if not isinstance(known, dict):
        logger.warning("%s is damaged; it is written again, with what [encode] names", path)
        known = {}
    write_json(path, {**known, **folders})


def encoder_folders(kb: Path) -> tuple[EncoderFolder, ...]:
    """The folder of each role, in the order of the roles' names, and after them the folders without a role.

    Raises KnowledgeBaseError if encoders.json or the card of a folder with a role is missing or damaged.
    """
    used = [
        EncoderFolder(role, folder.name, _read_object(folder / "encoder.json", _CARD))
        for role, folder in sorted(read_roles(kb).items())
        if folder is not None
    ]
    names = {each.folder for each in used}
    unused = sorted(path for path in (kb / "embeddings").glob("*/") if path.name not in names)
    return (*used, *(EncoderFolder(None, path.name, card_or_empty(path)) for path in unused))


def serving_folders(kb: Path) -> list[Path]:
    """The folders with a role; none if nothing is encoded yet, or if encoders.json or a card is damaged."""
    try:
        return sorted({kb / "embeddings" / each.folder for each in encoder_folders(kb) if each.role})
    except KnowledgeBaseError:
        return []


def read_card(folder: Path) -> dict[str, Any]:
    """The card in an encoder's folder. Raises KnowledgeBaseError if it is missing or damaged."""
    return _read_object(folder / "encoder.json")


def card_or_empty(folder: Path) -> dict[str, Any]:
    """The card in an encoder's folder; empty if it is missing or damaged, for folders without a role."""
    try:
        return _read_object(folder / "encoder.json", _CARD)
    except KnowledgeBaseError:
        return {}


def _roles_path(kb: Path) -> Path:
    return kb / "embeddings" / "encoders.json"


def _is_plain_name(name: object) -> bool:
    """Whether this names a folder directly below `embeddings`, and none outside of it."""
    return isinstance(name, str) and name not in {"", ".."} and Path(name).name == name


def _read_object(path: Path, needed: Mapping[str, type] | None = None) -> dict[str, Any]:
    """A JSON object that has the `needed` keys, each with a value of its type."""
    try:
        value = json.loads(reading(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise _damaged(path)
    if not all(isinstance(value.get(key), kind) for key, kind in (needed or {}).items()):
        raise _damaged(path)
    return value


def _damaged(path: Path) -> KnowledgeBaseError:
    return KnowledgeBaseError(f"{path}: missing or damaged; run `unibind encode` to write it again")
