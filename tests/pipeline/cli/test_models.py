"""`unibind models` and `unibind predict --encoder`, as a user runs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.commands import in_process

Save = Callable[[str], Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def address() -> Iterator[Callable[[Path], str]]:
    """`address(folder)`: where a server on loopback gives its files."""
    started: list[tuple[ThreadingHTTPServer, Thread]] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    def serve(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_list_says_licence_size_place_and_state(models: Path, save_clip: Save) -> None:
    """Offline, without loading anything."""
    shutil.copytree(save_clip("clip"), models / "own")
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    assert f"model folder: {models}" in result.output
    assert "4,805 MB  not there  CC-BY-NC-SA-4.0" in result.output
    assert "may not be used commercially" in result.output
    assert "own" in result.output


def test_check_loads_what_is_there_and_fails_for_what_does_not(models: Path, save_clip: Save) -> None:
    """One line each; a broken one makes the command fail."""
    shutil.copytree(save_clip("clip"), models / "good")
    result = CliRunner().invoke(app, ["models", "--check"])
    assert result.exit_code == 0
    assert "ok: clip:good loads" in result.output
    broken = shutil.copytree(save_clip("clip"), models / "broken")
    (broken / "model.safetensors").unlink()
    result = CliRunner().invoke(app, ["models", "--check"])
    assert result.exit_code == 1
    assert "FAIL: " in result.output
    assert "no *.safetensors" in result.output


def test_get_fetches_by_a_list_of_ones_own(
    models: Path, tmp_path: Path, save_clip: Save, address: Callable[[Path], str]
) -> None:
    """The licence is told before; without a checksum in the list it is said that nobody vouched."""
    url = address(save_clip("clip"))
    files = ", ".join(
        f'{{ path = "{path.name}", url = "{url}/{path.name}" }}' for path in save_clip("clip").iterdir()
    )
    (tmp_path / "list.toml").write_text(
        '[tiny]\nencoder = "clip"\nlicence = "CC-BY-NC-4.0"\nabout = "x"\nmegabytes = 1\n'
        f"files = [{files}]\n",
        encoding="utf-8",
    )
    command = ["models", "get", "tiny", "--list", str(tmp_path / "list.toml")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "CC-BY-NC-4.0, not for commercial use" in result.output
    assert "no published checksum" in result.output
    assert (models / "tiny" / "SHA256SUMS").is_file()
    assert "already complete" in CliRunner().invoke(app, command).output


def test_predict_names_a_picture_with_a_clip_folder(save_clip: Save, tmp_path: Path) -> None:
    """Without a project: an untrained random CLIP runs through and ranks every name."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    among = ["--categories", "dog, cat", "--encoder", f"clip:{save_clip('clip')}"]
    done = in_process("predict", str(tmp_path / "noise.png"), *among, folder=ROOT)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].endswith("noise.png  (image, zero-shot)")
    assert {line.split()[1] for line in lines[1:3]} == {"dog", "cat"}


def test_predict_tells_what_an_encoder_cannot(save_clip: Save, tmp_path: Path) -> None:
    """A missing model, and an encoder beside a project, are one clear line each."""
    (tmp_path / "a.png").write_bytes(b"x")
    result = CliRunner().invoke(app, ["predict", "a.png", "--encoder", "clip:x"])
    assert result.exit_code == 2
    assert "--categories" in result.output
    result = CliRunner().invoke(
        app, ["predict", "a.png", "--categories", "a, b", "--encoder", "clip:nowhere"]
    )
    assert "there is neither nowhere nor" in str(result.exception)
    result = CliRunner().invoke(
        app, ["predict", "a.png", "--categories", "a, b", "--encoder", "efficientnet-lite0"]
    )
    assert "takes no texts" in str(result.exception)
