"""Samples that hang, crash or bloat their decoder: the run goes on, and the others are untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from data.files import hash_file
from data.manifest.read import read_manifest
from data.readers import READERS, FileBudget, use_budget
from data.readers.sandbox import pool as sandbox
from kb_builder.describe.samples import describe_sample_shards
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.encode.embed import embed_samples
from kb_builder.encoders.tokens import MINILM
from kb_builder.settings import DescribeSamples, Encode
from kb_builder.store.table import read_vectors
from kb_builder.tables.ingest import ingest
from kb_builder.tables.schemas import read_rows

GOOD = ("a", "b", "c", "d", "e")
HOSTILE = {
    "hang": "took longer than 0.5 s",
    "crash": "crashed on it (SIGSEGV)",
    "bloat": "needed more than 200 MB",
}
# The picture reader, but for the names that stand for hostile files.
PLANTED = """
import os, signal
import numpy as np
from data.readers.pictures.image import read_image as sound

def read_image(path, **options):
    if path.name.startswith("hang"):
        while True:
            pass
    if path.name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name.startswith("bloat"):
        return np.ones((10**5, 10**5))
    return sound(path, **options)
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "planted_pictures.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(READERS, "image", "planted_pictures:read_image")
    sandbox.close()
    use_budget(FileBudget(seconds=0.5, memory=200_000_000))
    yield
    sandbox.close()
    use_budget(FileBudget())


def make_kb(folder: Path, names: tuple[str, ...]) -> Path:
    """A knowledge base of pictures of these names, and of a sound, read in."""
    folder.mkdir()
    rows = ["sample_id,uri,modality,category,split", "tone,tone.wav,audio,thing,train"]
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(np.arange(8000) * 0.3), 16000)
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / f"{name}.png")
        rows.append(f"{name},{name}.png,image,thing,train")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    ingest(read_manifest(folder / "manifest.csv"), folder / "kb")
    return folder / "kb"


def vectors_of(kb: Path, folder: Path) -> dict[str, bytes]:
    """Every sample's vector, by its id."""
    embed_samples(kb, folder, Encode(batch_size=4, zero_shot=None))
    found: dict[str, bytes] = {}
    for table in (kb / "embeddings").glob("efficientnet*/samples"):
        held = read_vectors(table)
        found |= {str(key): row.tobytes() for key, row in zip(held.ids, held.vectors_ND, strict=True)}
    return found


@pytest.mark.usefixtures("planted")
def test_the_others_have_the_vectors_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Exactly the hostile samples are quarantined, each with its reason, wherever they stand in a batch."""
    undisturbed = vectors_of(make_kb(tmp_path / "calm", GOOD), tmp_path / "calm")
    kb = make_kb(tmp_path / "hostile", ("a", "hang", "b", "c", "crash", "d", "bloat", "e"))
    assert vectors_of(kb, tmp_path / "hostile") == undisturbed
    assert set(undisturbed) == {*GOOD, "tone"}
    rejects = {row["sample_id"]: row["reason"] for row in read_rows(kb / "rejects" / "encode.parquet")}
    assert set(rejects) == set(HOSTILE)
    for name, reason in HOSTILE.items():
        assert rejects[name].startswith(f"{name}.png: ")
        assert reason in rejects[name]


@pytest.mark.usefixtures("planted")
def test_facts_are_measured_of_the_others(tmp_path: Path) -> None:
    """`describe-samples` turns the hostile ones away and describes all others."""
    kb = make_kb(tmp_path / "hostile", ("a", *HOSTILE, "b"))
    summary = describe_sample_shards(
        kb, tmp_path / "hostile", [0], DescribeSamples(), run_id="r", encoder=MINILM
    )[0]
    assert (summary["ok"], summary["rejected"]) == (3, {"unreadable": 3})


@pytest.mark.usefixtures("planted")
def test_pictures_of_the_others_are_sent(tmp_path: Path) -> None:
    """What a vision model is sent is decoded within the same bounds."""
    folder = tmp_path / "hostile"
    rows = read_rows(make_kb(folder, ("a", *HOSTILE)) / "samples.parquet")
    files = MediaFiles(folder, [(hash_file(folder / row["uri"]), row["uri"]) for row in rows])
    refused: dict[str, Any] = {}
    for row in rows:
        if row["modality"] == "image":
            (media,) = media_for(row, DescribeSamples(describer="openai", model="m"))
            try:
                files.part(media)
            except Exception as error:
                refused[row["sample_id"]] = type(error).__name__
    assert refused == dict.fromkeys(HOSTILE, "SampleError")
