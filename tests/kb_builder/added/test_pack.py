"""kb_builder.added.pack: what is given away, what stays, and that another project can take it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import InputError, KnowledgeBaseError
from data.seals import SEAL, sealed, sum_of
from kb_builder.added.knowledge_base import read_knowledge_base
from kb_builder.added.pack import Packed, pack, public_name
from kb_builder.describe.add_texts import add_texts
from kb_builder.describe.added import describe_added
from kb_builder.encoders.tokens import MINILM
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows
from tests.planted import write_categories

SETTINGS = DescribeCategories(describer="fake", near_cosine=None)
KEY = "sk-planted-0123456789"
PLACE = "/home/ann/secret models"


def packed(kb: Path, target: Path, **options: Any) -> Packed:
    given: dict[str, Any] = {
        "project": "toys",
        "encoder": MINILM,
        "secrets": {KEY: "the API key", PLACE: "a path"},
    }
    return pack(kb, target, SETTINGS, **given | options)


def rewrite(kb: Path, **columns: Any) -> None:
    """Change every `ok` row of the first part, and the failed rows' reasons."""
    rows = read_rows(kb / "descriptions/category/part-00000.parquet")
    for row in rows:
        row |= columns if row["status"] == "ok" else {"reason": f"{PLACE} {KEY}"}
    write_part(kb, "category", "part-00000", rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_packed(described_kb: Path, tmp_path: Path) -> None:
    """The `ok` texts about categories with their origin, names, a card, checksums; twice the same bytes."""
    done = packed(described_kb, tmp_path / "pack", licence="CC-BY-4.0")
    assert (done.category_texts, done.sample_texts, done.categories) == (4, None, 2)
    found = contents(tmp_path / "pack")
    assert sorted(found) == [
        "README.md",
        "data/categories.parquet",
        "data/category_texts.parquet",
        "provenance.json",
        SEAL,
    ]
    rows = pq.read_table(tmp_path / "pack" / "data" / "category_texts.parquet").to_pylist()
    assert {(row["class"], row["model"], row["source"]) for row in rows} == {
        ("ball", "fake-1-2026", "fake"),
        ("bell", "fake-1-2026", "fake"),
    }
    assert not {row["text"] for row in rows} & {"", "One ball bounces."}
    card = found["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "config_name: category_texts\n  data_files: data/category_texts.parquet\n  default: true\n" in card
    assert "| fake-1-2026 | fake | fake | 4 |" in card
    stated = json.loads(found["provenance.json"])
    assert (stated["project"], stated["licence"]) == ("toys", "CC-BY-4.0")
    assert stated["rejected"]["failed"] == 2
    lines = sealed(tmp_path / "pack")
    assert lines is not None
    assert set(lines) == set(found) - {SEAL}
    assert all(sum_of(tmp_path / "pack" / name).sha256 == line.sha256 for name, line in lines.items())
    packed(described_kb, tmp_path / "again", licence="CC-BY-4.0")
    assert contents(tmp_path / "again") == found


def test_samples_only_if_asked(described_kb: Path, tmp_path: Path) -> None:
    """Texts about samples may tell private things."""
    assert "which may tell private things" not in str(packed(described_kb, tmp_path / "a"))
    assert "red ball" not in b"".join(contents(tmp_path / "a").values()).decode("latin-1")
    done = packed(described_kb, tmp_path / "b", samples=True)
    assert done.sample_texts == 2
    assert "may tell private things" in str(done)
    rows = pq.read_table(tmp_path / "b" / "data" / "sample_texts.parquet").to_pylist()
    assert {row["text"] for row in rows} == {"A red ball on the grass.", "A plain picture in red."}


def test_no_key_and_no_path(described_kb: Path, tmp_path: Path) -> None:
    """Neither in the pack, although they are all over the knowledge base: models' names, servers' words."""
    rewrite(
        described_kb, model_resolved=f"{PLACE}/qwen.gguf", model_requested=f"{PLACE}/qwen.gguf", run_id=KEY
    )
    packed(described_kb, tmp_path / "pack")
    tables = [str(pq.read_table(path).to_pylist()) for path in (tmp_path / "pack").rglob("*.parquet")]
    files = contents(tmp_path / "pack")
    everything = "\n".join([*tables, *(content.decode("latin-1") for content in files.values())])
    assert "qwen.gguf" in everything
    user = os.environ.get("USER") or "ann"
    for secret in (KEY, PLACE, "/home/", str(tmp_path), str(Path.cwd()), f"/{user}/"):
        assert secret not in everything


@pytest.mark.parametrize("said", [KEY, PLACE])
def test_a_text_that_tells(described_kb: Path, tmp_path: Path, said: str) -> None:
    """A text that holds a key or a path of this machine: nothing is written, and the row is named."""
    rewrite(described_kb, text=f"The ball says {said}.")
    with pytest.raises(InputError, match=r"nothing was packed: data/category_texts\.parquet .*kb explain"):
        packed(described_kb, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    assert KEY not in str(packed(described_kb, tmp_path / "free", secrets={}))


def test_a_path_is_a_whole_one(described_kb: Path, tmp_path: Path) -> None:
    """The folder /root is not in "flowers/roots"."""
    rewrite(described_kb, text="A ball of flowers/roots or /rooted.")
    packed(described_kb, tmp_path / "pack", secrets={"/root": "a path"})


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("gpt-5-mini", "gpt-5-mini"),
        ("meta-llama/Llama-3", "meta-llama/Llama-3"),
        ("/data/ann/models/llava/", "llava"),
        ("models/x.gguf", "x.gguf"),
        ("C:\\Users\\ann\\x.gguf", "x.gguf"),
        ("~/m", "m"),
        ("clip:/home/ann/clip-b32", "clip:clip-b32"),
        ("qwen3:8b", "qwen3:8b"),
    ],
)
def test_public_name(given: str, public: str) -> None:
    """Names of the hub stay, places do not."""
    assert public_name(given) == public


def test_what_cannot_be_packed(described_kb: Path, tmp_path: Path) -> None:
    """A folder with something in it, a licence that is no identifier, a knowledge base without a text."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        packed(described_kb, tmp_path / "full")
    with pytest.raises(InputError, match="--license"):
        packed(described_kb, tmp_path / "x", licence="mit\nconfigs: []")
    assert "licence: unknown (--license states it)" in str(packed(described_kb, tmp_path / "u"))
    assert "unknown (not stated)" in (tmp_path / "u" / "README.md").read_text(encoding="utf-8")
    write_categories(tmp_path / "empty", {"hen": "hen"})
    with pytest.raises(KnowledgeBaseError, match="no category has a text yet"):
        packed(tmp_path / "empty", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("what", ["pack", "kb", "run"])
def test_another_project_takes_it(described_kb: Path, tmp_path: Path, what: str) -> None:
    """From a pack, from the folder of a knowledge base or of its run: with each text's model and project."""
    run = tmp_path / "runs" / "toys"
    run.mkdir(parents=True)
    described_kb.rename(run / "kb")
    packed(run / "kb", tmp_path / "pack", licence="mit")
    folder = {"pack": tmp_path / "pack", "kb": run / "kb", "run": run}[what]
    found = read_knowledge_base(folder)
    assert (found.file, found.form, len(found.texts)) == ("toys", "knowledge-base", 4)
    assert found.licence == ("mit" if what == "pack" else None)
    assert {(text.model, text.origin) for text in found.texts} == {("fake-1-2026", "toys")}
    assert "4 texts are placeholders of the describer `fake`, and mean nothing" in found.notes
    other = tmp_path / "other" / "kb"
    write_categories(other, {"ball": "Ball", "cup": "cup"})
    done = add_texts(other, folder, SETTINGS, encoder=MINILM)
    assert (done.source.name, done.matched.unknown, done.without) == ("toys", ("bell",), ("cup",))
    describe_added(other, SETTINGS, run_id="r", encoder=MINILM)
    rows = read_rows(other / "descriptions" / "category")
    assert {(row["provider"], row["model_resolved"], row["category_id"]) for row in rows} == {
        ("toys", "fake-1-2026", "ball")
    }
    packed(other, tmp_path / "second", project="other")
    again = read_knowledge_base(tmp_path / "second")
    assert {(text.model, text.origin) for text in again.texts} == {("fake-1-2026", "toys")}


def test_a_pack_that_is_damaged(described_kb: Path, tmp_path: Path) -> None:
    """By its checksums; a folder that is neither pack nor knowledge base is said to be neither."""
    packed(described_kb, tmp_path / "pack")
    path = tmp_path / "pack" / "data" / "category_texts.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"category_texts\.parquet: damaged"):
        read_knowledge_base(tmp_path / "pack")
    (tmp_path / "pack" / "provenance.json").write_text("{}")
    with pytest.raises(InputError, match=r"provenance\.json"):
        read_knowledge_base(tmp_path / "pack")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="neither a knowledge base nor a pack"):
        read_knowledge_base(tmp_path / "none")
