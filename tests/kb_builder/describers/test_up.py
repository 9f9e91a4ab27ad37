"""The axis that is up in a project's meshes: from its setting to vectors, requests and facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from data.manifest.read import Manifest
from data.readers.axes import Up, up_override
from data.readers.payload import Floats
from data.sample import Sample
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.encode.embed import embed_samples
from kb_builder.settings import DescribeSamples, Encode
from kb_builder.store.table import read_vectors
from kb_builder.tables.ingest import ingest
from kb_builder.tables.schemas import read_rows

SETTINGS = Encode(batch_size=4, zero_shot=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A tall box in four formats, and a text."""
    folder = tmp_path / "data"
    folder.mkdir()
    box = trimesh.creation.box()
    box.apply_transform(np.diag((1.0, 2.0, 5.0, 1.0)))
    for ending in ("ply", "stl", "obj", "glb"):
        box.export(folder / f"box.{ending}")
    (folder / "box.txt").write_text("a tall box")
    return folder


def read_in(data: Path, up: Up | None) -> list[dict[str, Any]]:
    samples = [
        Sample(path.name, "point", path.name) for path in sorted(data.iterdir()) if path.suffix != ".txt"
    ]
    kb = data.parent / "kb"
    ingest(Manifest(data, (*samples, Sample("text", "text", "box.txt")), ()), kb, up=up)
    return read_rows(kb / "samples.parquet")


def vectors(data: Path) -> tuple[dict[str, Floats], int]:
    """The vector of every mesh, and how many were encoded now."""
    kb = data.parent / "kb"
    encoded = embed_samples(kb, data, SETTINGS)["encoded"]
    (folder,) = (path for path in (kb / "embeddings").glob("efficientnet*") if path.is_dir())
    found = read_vectors(folder / "samples")
    return dict(zip(found.ids, found.vectors_ND, strict=True)), encoded


def test_another_axis_is_another_vector(data: Path) -> None:
    """What lay down is encoded anew and differs; what stood already keeps its vector; and back again."""
    read_in(data, None)
    plain, _ = vectors(data)
    rows = {row["sample_id"]: row for row in read_in(data, "y")}
    assert {key: row["up"] for key, row in rows.items()} == {
        "box.ply": "y", "box.stl": "y", "box.obj": None, "box.glb": None, "text": None,
    }  # fmt: skip
    turned, encoded = vectors(data)
    assert encoded == 2  # of the PLY and the STL: OBJ and GLB have y up as they are
    for name in ("box.obj", "box.glb"):
        np.testing.assert_array_equal(turned[name], plain[name])
    for name in ("box.ply", "box.stl"):
        assert float(turned[name] @ plain[name]) < 0.99
    read_in(data, None)
    again, _ = vectors(data)
    for name, vector in plain.items():
        np.testing.assert_array_equal(again[name], vector)


def test_formats_agree_on_what_stands(data: Path) -> None:
    """With y up in every file of one box, all four files give nearly one picture."""
    read_in(data, "y")
    found, _ = vectors(data)
    assert min(float(found["box.ply"] @ vector) for vector in found.values()) > 0.95


def test_requests_name_the_axis_and_send_the_turned_picture(data: Path) -> None:
    """Another axis is another request, with other bytes; a mesh that changed since is not sent."""
    settings = DescribeSamples()
    sent = {}
    for up in (None, "y"):
        row = next(row for row in read_in(data, up) if row["sample_id"] == "box.ply")  # type: ignore[arg-type]
        (media,) = media_for(row, settings)
        sent[media] = MediaFiles(data, [(row["sha256"], row["uri"])]).encoded(media)[1]
    assert len(sent) == len(set(sent.values())) == 2


def test_what_a_format_says_itself_is_not_told_again() -> None:
    """Only clouds and meshes have the axis, and only another one than their format's is kept."""
    assert up_override("point", Path("a.obj"), "y") is None
    assert up_override("point", Path("a.obj"), "z") == "z"
    assert up_override("point", Path("a.ply"), "z") is None
    assert up_override("point", Path("a.ply"), None) is None
    assert up_override("image", Path("a.png"), "y") is None
