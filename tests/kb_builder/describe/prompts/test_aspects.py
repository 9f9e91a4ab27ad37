"""Which aspects of categories are asked about: what the samples show, or what the settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from data.manifest.read import read_manifest
from kb_builder.describe.prompts import category_library, contrast_library, present_modalities
from kb_builder.settings import DescribeCategories
from kb_builder.tables.ingest import ingest

OPENAI = DescribeCategories(describer="openai", model="m")
LOCAL = DescribeCategories(describer="local")


def kb_of(folder: Path, *uris: str) -> Path:
    for uri in uris:
        (folder / uri).write_bytes(uri.encode())
    (folder / "m.csv").write_text("\n".join(["uri,category", *(f"{uri},dog" for uri in uris)]))
    ingest(read_manifest(folder / "m.csv"), folder / "kb")
    return folder / "kb"


def asked(settings: DescribeCategories, kb: Path) -> set[str]:
    return {prompt.aspect for prompt in category_library(settings, kb).prompts}


def test_ingest_says_which_modalities_there_are(tmp_path: Path) -> None:
    """A table of its own, which another split or label does not change."""
    kb = kb_of(tmp_path, "a.wav", "b.png", "c.wav")
    assert present_modalities(kb) == ["audio", "image"]
    before = (kb / "modalities.parquet").read_bytes()
    (tmp_path / "m.csv").write_text("uri,category,split\na.wav,cat,train\nb.png,dog,test\n")
    ingest(read_manifest(tmp_path / "m.csv"), kb)
    assert (kb / "modalities.parquet").read_bytes() == before


@pytest.mark.parametrize("settings", [OPENAI, LOCAL])
def test_sounds_are_asked_about_as_sounds(tmp_path: Path, settings: DescribeCategories) -> None:
    """In both libraries; contrasts follow too."""
    kb = kb_of(tmp_path, "a.wav")
    assert asked(settings, kb) == {"sound"}
    contrasts = contrast_library(OPENAI, kb)
    assert contrasts is not None
    assert {prompt.aspect for prompt in contrasts.prompts} == {"sound"}


def test_settings_overrule_the_modalities(tmp_path: Path) -> None:
    """`aspects` are asked about, whatever is there; one without a prompt is refused by name."""
    kb = kb_of(tmp_path, "a.wav")
    chosen = DescribeCategories(describer="local", aspects=("look", "use"))
    assert asked(chosen, kb) == {"look", "use"}
    with pytest.raises(InputError, match="describer 'local' has no prompt about event"):
        category_library(DescribeCategories(describer="local", aspects=("event",)), kb)
    contrasts = contrast_library(DescribeCategories(describer="openai", model="m", aspects=("heat",)), kb)
    assert contrasts is not None
    assert len({prompt.aspect for prompt in contrasts.prompts}) > 1  # none sets apart by heat: all do


def test_an_earlier_knowledge_base_asks_as_it_did(tmp_path: Path) -> None:
    """Without the table of modalities every aspect is asked about, so reparsing finds the old answers."""
    kb = kb_of(tmp_path, "a.wav")
    (kb / "modalities.parquet").unlink()
    assert len(asked(OPENAI, kb)) == 8
