"""The route that serves samples: every modality's views, and everything that it must not serve."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from data.seals import discard
from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from pipeline.project import load_project
from pipeline.ui.security import MEDIA_POLICY
from pipeline.ui.state import MOST_UPLOADS, Desk

Served = Callable[..., None]
ONE = "cork-cone-000/{}"


def _ask(modality: str, kind: str) -> str:
    return f"/media/world?sample={quote(ONE.format(modality))}&as={kind}"


def test_every_modality_is_shown_or_played(world_desk: Desk, served: Served) -> None:
    """Thumbnails of all but texts; the sound as WAV, the cloud as points, frames, and the film as it is."""

    async def steps(client: httpx.AsyncClient) -> None:
        for modality in ("image", "audio", "point", "thermal", "video", "event"):
            for kind in ("thumb", "whole"):
                answer = await client.get(_ask(modality, kind))
                assert answer.status_code == 200, answer.text
                assert answer.headers["content-security-policy"] == MEDIA_POLICY
                picture = Image.open(io.BytesIO(answer.content))
                assert max(picture.size) <= 1024
        sound, rate = sf.read(io.BytesIO((await client.get(_ask("audio", "sound"))).content))
        assert len(sound) > 1000 and rate >= 8000 and abs(sound).max() > 0
        cloud = (await client.get(_ask("point", "cloud"))).content
        assert len(cloud) == 15 * 128
        xyz = np.frombuffer(cloud, "<f4", 3 * 128)
        assert 0.9 < np.linalg.norm(xyz.reshape(-1, 3), axis=1).max() < 1.01
        frames = Image.open(io.BytesIO((await client.get(_ask("event", "frames"))).content))
        assert frames.height % 24 == 0
        film = await client.get(_ask("video", "film"))
        assert film.headers["content-type"].startswith("video/") and film.headers["accept-ranges"] == "bytes"

    served(world_desk, steps)


def test_what_is_no_view_is_not_served(world_desk: Desk, served: Served) -> None:
    """Unknown ids, paths in place of ids, and views that a sample does not have."""
    queries = [
        "sample=nobody",
        "",
        "sample=a&file=b",
        "file=nothing",
        "sample=../../../etc/passwd",
        "sample=%2Fetc%2Fpasswd",
        f"sample={quote(ONE.format('image'))}&as=../../x",
        f"sample={quote(ONE.format('image'))}&as=film",
        f"sample={quote(ONE.format('text'))}&as=sound",
    ]

    async def steps(client: httpx.AsyncClient) -> None:
        for query in queries:
            answer = await client.get(f"/media/world?{query}")
            assert answer.status_code == 404, query
            assert str(next(iter(world_desk.projects.values())).file.path.parent) not in answer.text

    served(world_desk, steps)


@pytest.mark.parametrize("place", ["link", "folder link", "up", "absolute", "nul"])
def test_nothing_outside_the_data_folder_is_served(
    small_world: Path, tmp_path: Path, served: Served, opening: Callable[..., Desk], place: str
) -> None:
    """A table that names a file outside, by a link, a linked folder, `..` or an absolute path."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "red").save(secret)
    copy = tmp_path / "copy"
    shutil.copytree(small_world.parent, copy, symlinks=True)
    project = load_project(copy / small_world.name)
    root = project.data_root
    uris = {
        "link": "link.png",
        "folder link": "away/secret.png",
        "up": os.path.relpath(secret, root),
        "absolute": str(secret),
        "nul": "media/\0.png",
    }
    (root / "link.png").symlink_to(secret)
    (root / "away").symlink_to(tmp_path)
    rows = read_rows(project.kb / "samples.parquet")
    rows[0] |= {"sample_id": "s", "uri": uris[place], "modality": "image"}
    write_table(project.kb / "samples.parquet", rows, SAMPLES)
    discard(project.kb)
    desk = opening(project.path)

    async def steps(client: httpx.AsyncClient) -> None:
        answer = await client.get("/media/world?sample=s")
        assert answer.status_code == 415
        assert str(tmp_path) not in answer.text

    served(desk, steps)


def test_a_file_that_cannot_be_read_says_why(
    small_world: Path, tmp_path: Path, served: Served, opening: Callable[..., Desk]
) -> None:
    """A broken file is a 415 with the reader's words, without folders of this machine."""
    copy = tmp_path / "copy"
    shutil.copytree(small_world.parent, copy)
    project = load_project(copy / small_world.name)
    desk = opening(project.path)
    opened = desk.project(None)
    sample = opened.sample(ONE.format("image"))
    (project.data_root / sample.uri).write_bytes(b"no picture")

    async def steps(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/media/world?sample={quote(sample.sample_id)}")
        assert answer.status_code == 415
        assert answer.text.strip() and str(tmp_path) not in answer.text

    served(desk, steps)


def test_dropped_files_go_to_a_folder_of_their_own(world_desk: Desk, served: Served, tmp_path: Path) -> None:
    """Only the ending of a dropped file's name is kept; the oldest go first, and the folder with the desk."""
    uploads = world_desk.uploads
    identity, path = uploads.new_path("../../evil\0/x/../../a b.PNG")
    assert path.suffix == ".PNG" and path.parent.name.startswith("unibind-ui-")
    Image.new("RGB", (8, 8), "red").save(path, format="PNG")
    assert uploads.keep(identity, "../../holiday.png", path).name == "holiday.png"

    async def steps(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/media/world?file={identity}")
        assert Image.open(io.BytesIO(answer.content)).size == (8, 8)

    served(world_desk, steps)
    for number in range(MOST_UPLOADS):
        other, place = uploads.new_path(f"{number}.png")
        place.write_bytes(b"x")
        uploads.keep(other, f"{number}.png", place)
    assert not path.exists()
    world_desk.close()
    assert not path.parent.exists()
