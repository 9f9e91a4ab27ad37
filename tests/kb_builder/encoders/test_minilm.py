"""The bundled MiniLM without sentence-transformers: the same bits, the same identity, none of its imports."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.wordnet import read_classes
from kb_builder.encoders import load_encoder, minilm
from kb_builder.encoders.sentence import load_sentence_encoder
from kb_builder.encoders.tokens import minilm_folder

ODD = [
    *(
        "",
        " ",
        "x",
        "a dog",
        "\n\ttabs and\u200b no width",
        "\x00control\x07",
        "\ufffd",
        "😀 emoji",
        "中文 字符",
    ),
    *("Ünïcödé ŝtripped", "e\u0301", "ﬁ ligature", "İstanbul", "[MASK] in [SEP] and [CLS] [PAD] [UNK]"),
    *("antidisestablishmentarianism" * 20, "word " * 253, "word " * 254, "word " * 255, "word " * 1000),
]


@pytest.fixture(scope="module")
def ours() -> Any:
    return load_encoder("minilm", "cpu")


@pytest.fixture(scope="module")
def theirs() -> Any:
    return load_sentence_encoder("minilm")


def test_vectors_have_the_bits_of_sentence_transformers(ours: Any, theirs: Any) -> None:
    """Odd texts, long ones, and those of every length between: each byte is the same, in one batch."""
    glosses = [each.gloss for each in read_classes()]
    texts = [*ODD, *glosses[:60], *(" ".join(glosses[n : n + n // 2]) for n in range(2, 40, 3))]
    assert type(ours) is not type(theirs)
    assert ours.encode(texts).tobytes() == theirs.encode(texts).tobytes()


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_alone_has_the_same_bits(ours: Any, theirs: Any, text: str) -> None:
    """Whatever the characters, and alone in its pass."""
    assert ours.encode([text]).tobytes() == theirs.encode([text]).tobytes()


def test_it_is_the_same_encoder(ours: Any, theirs: Any) -> None:
    """Vectors of either may be mixed, so a card cannot tell them apart."""
    for fact in ("name", "identity", "dim", "modalities", "licence", "parameters"):
        assert getattr(ours, fact) == getattr(theirs, fact), fact


def test_no_texts_give_no_rows(ours: Any) -> None:
    """float32[0, 384]."""
    assert (ours.encode([]).dtype, ours.encode([]).shape) == (np.float32, (0, 384))


def test_bits_do_not_depend_on_the_batch(ours: Any) -> None:
    """A text alone, in another order or beside others has one vector."""
    together = ours.encode(ODD)
    np.testing.assert_array_equal(np.concatenate([ours.encode([text]) for text in ODD]), together)
    np.testing.assert_array_equal(ours.encode(ODD[::-1])[::-1], together)


def test_an_overlong_text_is_reported(ours: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A text beyond the model's limit is not cut in silence."""
    with caplog.at_level(logging.WARNING):
        ours.encode(["word " * 253, "word " * 1000, "word " * 900])
    assert "minilm reads at most 256 tokens: 2 texts of that length or more are truncated" in caplog.text


def test_a_file_is_read(ours: Any, tmp_path: Path) -> None:
    """A path of modality text is a file, a str is the text itself."""
    (tmp_path / "note.txt").write_text("a wooden sphere\n", encoding="utf-8")
    assert ours.prepare("text", tmp_path / "note.txt") == "a wooden sphere"
    assert ours.prepare("text", "note.txt") == "note.txt"


def test_a_gpu_gets_the_one_of_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits are shown to be equal on the CPU only."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "kb_builder.encoders.sentence.load_fp32", lambda name, device: asked.append((name, device))
    )
    minilm.load_minilm(device="cuda:0")
    assert asked == [("minilm", "cuda:0")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.safetensors", b"\x08" + 50 * b"\xff", "cannot be read as weights"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("tokenizer.json", b"{", "cannot be read as a tokenizer"),
    ],
)
def test_a_damaged_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, expected: str
) -> None:
    """It is named."""
    folder = shutil.copytree(minilm_folder(), tmp_path / "model")
    (folder / name).write_bytes(content)
    monkeypatch.setattr(minilm, "minilm_folder", lambda: folder)
    with pytest.raises(InputError, match=expected) as caught:
        minilm.load_minilm()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_there_is_one_model_only() -> None:
    """A name after the colon is refused."""
    with pytest.raises(InputError, match="minilm is one model"):
        load_encoder("minilm:large")


def test_words_are_encoded_without_the_heavy_libraries() -> None:
    """transformers, and torch's compiler, take seconds to import, and encoding a text needs neither."""
    heavy = {"transformers", "sentence_transformers", "huggingface_hub", "torch._dynamo", "sympy"}
    code = (
        "import sys; from kb_builder.encoders import load_encoder;"
        "load_encoder('minilm', 'cpu').encode(['a dog']);"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
