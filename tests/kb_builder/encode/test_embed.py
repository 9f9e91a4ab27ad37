"""Encoding a whole small knowledge base with the real encoders, and asking it questions through DuckDB."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pytest
import soundfile
from PIL import Image

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_file
from kb_builder.encode import embed
from kb_builder.encode.embed import embed_samples, embed_texts
from kb_builder.encoders import load_encoder
from kb_builder.settings import Encode
from kb_builder.store.table import read_vectors
from kb_builder.tables.schemas import CONTROLS, DESCRIPTIONS, SAMPLES, read_rows, write_table

SETTINGS = Encode(batch_size=4)
ANIMALS = {
    "cat": ["A cat purrs.", "A cat is furry."],
    "dog": ["A dog barks at the postman.", "A cat is furry."],
}


def description(row_id: str, text: str, **given: Any) -> dict[str, Any]:
    """A row of the descriptions table: what is not given is null, or 0 or "" where null is not allowed."""
    empty = {field.name: None if field.nullable else "" for field in DESCRIPTIONS}
    zeros = dict.fromkeys(("n_chars", "n_tokens", "attempts", "latency_ms", "created_at"), 0)
    return empty | zeros | {"row_id": row_id, "text": text, "kind": "category", "status": "ok"} | given


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A knowledge base of texts and of nine samples, two of them unreadable; and the folder of its media."""
    kb, media = tmp_path_factory.mktemp("kb"), tmp_path_factory.mktemp("media")
    rows = [
        description(f"{name}-{number}", text, category_id=name)
        for name, texts in ANIMALS.items()
        for number, text in enumerate(texts)
    ]
    rows.append(description("dog-refused", "I cannot help with that.", category_id="dog", status="refusal"))
    write_table(kb / "descriptions/category/part-00000.parquet", rows, DESCRIPTIONS)
    facts = [
        description("fact-0", "A red square of 32 pixels.", kind="sample", modality="image", sample_id="red")
    ]
    write_table(kb / "descriptions/sample/part-00000.parquet", facts, DESCRIPTIONS)
    controls = [
        {"row_id": f"c-{name}", "control": "class_name", "category_id": name, "rank": 0, "text": name}
        for name in ANIMALS
    ]
    write_table(kb / "controls.parquet", controls, CONTROLS)

    rng = np.random.default_rng(0)
    for name in ("red", "twin"):
        Image.new("RGB", (32, 32), "red").save(media / f"{name}.png")
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(media / f"noise{number}.png")
    (media / "broken.png").write_bytes(b"not a picture")
    soundfile.write(media / "tone.wav", 0.5 * np.sin(np.arange(8000) * 0.3), 16000)
    soundfile.write(media / "empty.wav", np.zeros(0), 16000)
    (media / "note.txt").write_text("A cat purrs.", encoding="utf-8")
    modality = {".png": "image", ".wav": "audio", ".txt": "text"}
    samples = [
        {
            "sample_id": path.stem,
            "object_id": None,
            "modality": modality[path.suffix],
            "uri": path.name,
            "category_id": None,
            "split": "test",
            "sha256": hash_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(media.iterdir())
    ]
    write_table(kb / "samples.parquet", samples, SAMPLES)
    return kb, media


@pytest.fixture(scope="module")
def encoded(world: tuple[Path, Path]) -> tuple[Path, dict[str, int], dict[str, int]]:
    """The knowledge base after encoding, and what the two calls returned."""
    kb, media = world
    return kb, embed_texts(kb, SETTINGS), embed_samples(kb, media, SETTINGS)


def folder_of(kb: Path, role: str) -> Path:
    return kb / "embeddings" / json.loads((kb / "embeddings/encoders.json").read_text())[role]


def store_bytes(kb: Path) -> dict[str, str]:
    paths = sorted(path for path in (kb / "embeddings").rglob("*") if path.is_file())
    return {path.relative_to(kb).as_posix(): hash_file(path) for path in paths}


def test_each_distinct_ok_text_is_encoded_once(encoded: Any) -> None:
    """Seven rows hold six distinct texts; the refused one has no vector."""
    kb, texts, _ = encoded
    assert texts == {"distinct": 6, "encoded": 6, "carried": 0, "reused": 0, "quarantined": 0}
    stored = read_vectors(folder_of(kb, "text") / "category_texts")
    assert stored.ids == ["cat-0", "cat-1", "dog-0", "dog-1"]
    assert stored.groups == ["cat", "cat", "dog", "dog"]
    np.testing.assert_array_equal(stored.vectors_ND[1], stored.vectors_ND[3])
    expected = load_encoder("minilm").encode(["A dog barks at the postman."])[0]
    np.testing.assert_allclose(stored.vectors_ND[2], expected, atol=2e-4)
    assert read_vectors(folder_of(kb, "text") / "sample_texts").groups == ["image"]
    assert read_vectors(folder_of(kb, "text") / "controls").ids == ["c-cat", "c-dog"]


def test_a_stated_agreement_is_in_the_summary_and_on_the_card(
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that runs a model in another way says how near it comes, wherever its vectors are."""
    kb = shutil.copytree(world[0], tmp_path / "kb", ignore=shutil.ignore_patterns("embeddings"))
    other: Any = replace(cast(Any, load_encoder("minilm")), name="onnx-int8:minilm", identity="of this test")
    object.__setattr__(other, "agreement", 0.9951967607)
    monkeypatch.setattr(embed, "load_encoder", lambda *_: other)
    assert embed_texts(kb, SETTINGS)["agreement"] == 0.995197
    card = json.loads((folder_of(kb, "text") / "encoder.json").read_text(encoding="utf-8"))
    assert card["agreement"] == 0.9951967607


def test_each_sample_goes_to_the_encoders_that_take_it(encoded: Any) -> None:
    """Pictures and sounds to the samples encoder, pictures to ConSE too, texts to the text encoder."""
    kb, _, _ = encoded
    pictures = ["noise0", "noise1", "noise2", "red", "twin"]
    features = read_vectors(folder_of(kb, "samples") / "samples")
    assert features.ids == ["tone", *pictures]
    assert features.groups == ["audio", *["image"] * 5]
    assert features.vectors_ND.shape == (6, 1280)
    shared = read_vectors(folder_of(kb, "zero_shot") / "samples")
    assert shared.ids == pictures and shared.vectors_ND.shape == (5, 384)
    texts = read_vectors(folder_of(kb, "text") / "samples")
    assert texts.ids == ["note"]
    np.testing.assert_allclose(texts.vectors_ND, load_encoder("minilm").encode(["A cat purrs."]), atol=2e-4)
    np.testing.assert_array_equal(features.vectors_ND[4], features.vectors_ND[5])


def test_unreadable_samples_are_quarantined_by_name(encoded: Any) -> None:
    """A broken picture and an empty sound are counted and named; the run continues."""
    kb, _, samples = encoded
    rejects = {row["sample_id"]: row for row in read_rows(kb / "rejects/encode.parquet")}
    assert set(rejects) == {"broken", "empty"}
    assert rejects["broken"]["stage"] == "encode" and rejects["broken"]["reason"].startswith("broken.png: ")
    assert samples["quarantined"] == 2
    # features of 4 distinct pictures and a sound, ConSE of the 4, one text
    assert samples["encoded"] == 10


def test_the_cards_say_which_encoder_made_the_vectors(encoded: Any) -> None:
    """encoder.json holds the name that load_encoder takes, the identity, the dimension and the licence."""
    kb, _, _ = encoded
    for role, name in {"text": "minilm", "samples": "efficientnet-lite0", "zero_shot": "conse"}.items():
        card = json.loads((folder_of(kb, role) / "encoder.json").read_text())
        encoder = load_encoder(card["name"])
        assert card["name"] == name and folder_of(kb, role).name == f"{name}-{encoder.identity[:12]}-float16"
        assert (card["identity"], card["dim"]) == (encoder.identity, encoder.dim)
        assert card["licence"].startswith("Apache-2.0") and card["parameters"] > 3_000_000


def test_a_second_run_changes_nothing(encoded: Any, world: tuple[Path, Path]) -> None:
    """Everything is reused, nothing is written again, the rejects stay."""
    kb, media = world
    before = store_bytes(kb)
    assert embed_texts(kb, SETTINGS) == {
        "distinct": 6,
        "encoded": 0,
        "carried": 0,
        "reused": 7,
        "quarantined": 0,
    }
    again = embed_samples(kb, media, SETTINGS)
    assert (again["encoded"], again["reused"], again["quarantined"]) == (0, 12, 2)
    assert store_bytes(kb) == before


def test_two_runs_and_resumed_runs_give_the_same_bytes(
    encoded: Any, world: tuple[Path, Path], tmp_path: Path
) -> None:
    """A run in another folder, another that lost half its parts: all are bit-identical."""
    kb, media = world
    settings = replace(SETTINGS, samples_per_part=3, texts_per_part=2)
    copy = tmp_path / "kb"
    shutil.copytree(kb, copy, ignore=shutil.ignore_patterns("embeddings", "rejects"))
    embed_texts(copy, settings)
    embed_samples(copy, shutil.copytree(media, tmp_path / "media"), settings)
    undisturbed = store_bytes(copy)
    rejects = hash_file(copy / "rejects/encode.parquet")
    parts = sorted((copy / "embeddings").rglob("part-*.parquet"))
    assert len(parts) > 8
    for path in parts[::2]:
        path.unlink()
    embed_texts(copy, settings)
    embed_samples(copy, tmp_path / "media", settings)
    assert store_bytes(copy) == undisturbed
    assert hash_file(copy / "rejects/encode.parquet") == rejects


def test_duckdb_alone_finds_the_nearest_descriptions(encoded: Any) -> None:
    """Text and nearness join in SQL over the Parquet files, without a line of ours."""
    kb, _, _ = encoded
    query = f"""
        WITH texts AS (
            SELECT id, text, vector FROM '{folder_of(kb, "text")}/category_texts/*.parquet'
            JOIN '{kb}/descriptions/category/*.parquet' ON id = row_id)
        SELECT other.text FROM texts one, texts other WHERE one.id = 'cat-0' AND other.id <> 'cat-0'
        ORDER BY list_cosine_similarity(one.vector, other.vector) DESC, other.id"""
    assert duckdb.sql(query).fetchall()[-1] == ("A dog barks at the postman.",)


def test_without_descriptions_there_is_nothing_to_encode(tmp_path: Path) -> None:
    """A knowledge base that was never described says so."""
    with pytest.raises(KnowledgeBaseError, match="unibind describe"):
        embed_texts(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "efficientnet-lite0"}, "takes no texts"),
        ({"samples": "minilm"}, "does not take audio, image"),
        ({"zero_shot": "efficientnet-lite0"}, "does not share the space"),
    ],
)
def test_encoders_that_cannot_serve_are_refused(
    world: tuple[Path, Path], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    """A text encoder for pictures, or no shared space for zero-shot, is the project file's mistake."""
    kb, media = world
    shutil.copytree(kb, tmp_path / "kb", ignore=shutil.ignore_patterns("embeddings"))
    settings = replace(SETTINGS, **change)
    with pytest.raises(InputError, match=message):
        embed_texts(tmp_path / "kb", settings)
        embed_samples(tmp_path / "kb", media, settings)


def test_without_a_zero_shot_encoder(world: tuple[Path, Path], tmp_path: Path) -> None:
    """zero_shot may be none."""
    kb, media = world
    shutil.copytree(kb, tmp_path / "kb", ignore=shutil.ignore_patterns("embeddings"))
    embed_samples(tmp_path / "kb", media, replace(SETTINGS, zero_shot=None))
    assert json.loads((tmp_path / "kb/embeddings/encoders.json").read_text())["zero_shot"] is None
