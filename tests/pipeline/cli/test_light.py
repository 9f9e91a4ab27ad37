"""What each command imports: one that needs no model, or only a small one, must not wait for the others'."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kb_builder.tables.schemas import CATEGORIES, write_table

# Libraries that take a tenth of a second to several seconds to import, and our modules that bring some.
NO_MODEL = {
    *("torch", "transformers", "sentence_transformers", "huggingface_hub", "tokenizers", "safetensors"),
    *("matplotlib", "prefect", "openai", "aiohttp", "httpx", "httpx2", "xllamacpp", "fastapi", "sympy"),
    *("PIL", "av", "soundfile", "trimesh", "scipy", "pandas", "pyarrow.dataset", "tqdm"),
    *("data.tabletop.world", "data.manifest.read", "pipeline.run.jobs", "kb_builder.describers"),
}
# A prediction needs torch, and these not.
SMALL_MODEL = {
    *("transformers", "sentence_transformers", "huggingface_hub", "torch._dynamo", "sympy", "matplotlib"),
    *("prefect", "openai", "aiohttp", "httpx", "httpx2", "xllamacpp", "fastapi", "duckdb", "scipy", "pandas"),
    *("data.tabletop.world", "data.manifest.read", "pipeline.run.jobs", "kb_builder.describers"),
}
_RUN = """\
import sys
from pipeline.cli.main import main
try:
    main()
except SystemExit as end:
    print("status", end.code, *sorted(HEAVY & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project whose knowledge base holds one category and no more."""
    (tmp_path / "unibind.toml").write_text('name = "x"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    bell = {"category_id": "bell", "name": "brass bell", "aliases": [], "parent": None, "notes": None}
    write_table(tmp_path / "runs" / "x" / "kb" / "categories.parquet", [bell], CATEGORIES)
    return tmp_path


def heavy_modules(*arguments: str, cwd: Path, status: int = 0) -> list[str]:
    """Which of `NO_MODEL` a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN.replace("HEAVY", repr(NO_MODEL)), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    word, code, *found = done.stderr.splitlines()[-1].split()
    assert (word, int(code)) == ("status", status), done.stderr
    return found


@pytest.mark.parametrize(
    "command", ["--help", "predict --help", "kb --help", "kb stats", "kb show bell", "kb views", "models"]
)
def test_commands_without_a_model(project: Path, command: str) -> None:
    """Help, and looking into a knowledge base."""
    assert heavy_modules(*command.split(), cwd=project) == []


def test_explaining_a_row(project: Path) -> None:
    """Even of a row that is not there."""
    assert heavy_modules("kb", "explain", "0123456789", cwd=project, status=1) == []


def test_comparing_runs(finished_cups: Path, tmp_path: Path) -> None:
    """Two runs whose projects lie apart; joining tables of samples imports pyarrow.dataset."""
    for name in ("first", "second"):
        shutil.copytree(finished_cups.parent, tmp_path / name)
    files = [f"{name}/{finished_cups.name}" for name in ("first", "second")]
    assert heavy_modules("compare", *files, cwd=tmp_path) == ["pyarrow.dataset"]


@pytest.mark.parametrize(
    ("code", "but"),
    [
        ("import pipeline.predict.zero_shot, kb_builder.encoders.conse, kb_builder.encoders.minilm", set()),
        ("import pipeline.predict.recognise, kb_builder.encoders.lite0, kb_builder.encoders.minilm", set()),
        ("import kb_builder.browse.query, kb_builder.encoders.minilm", {"duckdb"}),
    ],
    ids=["zero-shot", "with a project", "kb nearest"],
)
def test_predictions_import_the_small_models_alone(tmp_path: Path, code: str, but: set[str]) -> None:
    """The bundled encoders need torch and tokenizers, and neither transformers nor torch's compiler."""
    printed = f"{code}; import sys; print(*sorted({SMALL_MODEL - but | {'torch'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", printed], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["torch"]
