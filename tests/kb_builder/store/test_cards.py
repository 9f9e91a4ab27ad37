"""kb_builder.store.cards: which folder serves in which role, and what a folder says of its encoder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from data.errors import KnowledgeBaseError
from data.files import write_json
from kb_builder.store.cards import (
    EncoderFolder,
    assign_roles,
    encoder_folders,
    read_card,
    read_roles,
    serving_folders,
)

CARD = {"name": "e", "identity": "a" * 64, "dim": 2, "dtype": "float16", "modalities": ["text"]}


def test_assigned_roles_are_read_and_others_keep_their_folder(tmp_path: Path) -> None:
    """A role can be switched off; assigning one leaves the rest."""
    assert read_roles(tmp_path) == {}
    assign_roles(tmp_path, {"text": "one", "samples": "two"})
    assign_roles(tmp_path, {"samples": "three", "zero_shot": None})
    store = tmp_path / "embeddings"
    assert read_roles(tmp_path) == {"text": store / "one", "samples": store / "three", "zero_shot": None}


def test_folders_with_a_role_come_first(tmp_path: Path) -> None:
    """A folder that no role uses is listed after them, whether or not its card can be read."""
    for name in ("new", "old"):
        write_json(tmp_path / "embeddings" / name / "encoder.json", CARD)
    (tmp_path / "embeddings" / "torn").mkdir()
    assign_roles(tmp_path, {"text": "new", "zero_shot": None})
    expected = (("text", "new", CARD), (None, "old", CARD), (None, "torn", {}))
    assert encoder_folders(tmp_path) == tuple(EncoderFolder(*each) for each in expected)
    assert serving_folders(tmp_path) == [tmp_path / "embeddings" / "new"]
    write_json(tmp_path / "embeddings" / "new" / "encoder.json", {**CARD, "dim": "2"})
    with pytest.raises(KnowledgeBaseError, match=r"new/encoder\.json: missing or damaged"):
        encoder_folders(tmp_path)
    assert serving_folders(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"text": 7}', '{"text": ".."}', '{"text": "a/b"}', '{"text": ""}']
)
def test_damaged_roles_are_refused(tmp_path: Path, text: str) -> None:
    """A torn file, another kind of value, and a name that leads out of the store."""
    path = tmp_path / "embeddings" / "encoders.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(KnowledgeBaseError, match=r"encoders\.json: missing or damaged; run `unibind encode`"):
        read_roles(tmp_path)


def test_damaged_roles_are_replaced_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`unibind encode` is what the message advises, so it must not fail on the same file."""
    path = tmp_path / "embeddings" / "encoders.json"
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assign_roles(tmp_path, {"text": "one"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "one"}
    assert "encoders.json is damaged; it is written again" in caplog.text


def test_a_card_is_a_json_object(tmp_path: Path) -> None:
    """encoder.json missing, torn or of another kind is refused by name."""
    for text in (None, "{", "[1]"):
        if text is not None:
            (tmp_path / "encoder.json").write_text(text, encoding="utf-8")
        with pytest.raises(KnowledgeBaseError, match=r"encoder\.json: missing or damaged"):
            read_card(tmp_path)
