"""Fetching into the model folder, and what is said of what lies there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from data.errors import InputError, KnowledgeBaseError
from data.lock import write_lock
from kb_builder.weights.known import KnownModel, ModelFile
from pipeline.models import check_model, get_model, list_models, read_sums

Save = Callable[[str], Path]


@pytest.fixture
def published(save_clip: Save) -> Iterator[tuple[dict[str, KnownModel], list[str]]]:
    """A small CLIP at a server on loopback as the model `mine`, and what was asked of the server."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(save_clip("clip"))))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    files = tuple(
        ModelFile(path.name, f"{url}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(save_clip("clip").iterdir())
    )
    yield {"mine": KnownModel("clip", "MIT", "small", 1, files)}, asked
    server.shutdown()
    thread.join()
    server.server_close()


def _silent(path: str, here: int, total: int | None) -> None:
    return


def test_a_model_is_fetched_checked_and_loaded(models: Path, published: Any) -> None:
    """Its files, their checksums beside them, and then it loads; a second run fetches nothing."""
    known, asked = published
    folder, fetched = get_model("mine", known, progress=_silent)
    assert folder == models / "mine"
    assert set(fetched) == {file.path for file in known["mine"].files}
    assert read_sums(folder) == {file.path: file.sha256 for file in known["mine"].files}
    (listed,) = [each for each in list_models() if each.name == "mine"]
    assert "clip:mine loads" in check_model(listed)
    assert f"{len(fetched)} checksums match" in check_model(listed)
    asked.clear()
    assert get_model("mine", known, progress=_silent)[1] == {}
    assert asked == []


def test_only_what_is_missing_or_wrong_is_fetched(models: Path, published: Any, save_clip: Save) -> None:
    """Files that were put there by hand count when their checksum is right."""
    known, asked = published
    shutil.copytree(save_clip("clip"), models / "mine")
    (models / "mine" / "config.json").write_text("{}", encoding="utf-8")
    (models / "mine" / "tokenizer.json").unlink()
    _, fetched = get_model("mine", known, progress=_silent)
    assert set(fetched) == {"config.json", "tokenizer.json"}
    assert sorted(asked) == ["/config.json", "/tokenizer.json"]


def test_a_changed_file_is_found_by_the_check(models: Path, published: Any) -> None:
    """One flipped byte in what was fetched."""
    known, _ = published
    folder, _ = get_model("mine", known, progress=_silent)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (listed,) = [each for each in list_models() if each.name == "mine"]
    with pytest.raises(InputError, match=r"model\.safetensors: differs from the downloaded file"):
        check_model(listed)


def test_weights_that_are_no_numbers_fail_the_check(models: Path, save_clip: Save) -> None:
    """They load, but what they encode has no direction."""
    from safetensors.torch import load_file, save_file

    path = shutil.copytree(save_clip("clip"), models / "own") / "model.safetensors"
    state = load_file(path)
    state["text_projection.weight"] *= float("nan")
    save_file(state, path, metadata={"format": "pt"})
    (listed,) = [each for each in list_models() if each.name == "own"]
    with pytest.raises(InputError, match="NaN, infinite or zero"):
        check_model(listed)


def test_two_processes_do_not_fetch_one_model(models: Path, published: Any) -> None:
    """The second is told who is at it."""
    with write_lock(models / "mine" / ".lock"), pytest.raises(KnowledgeBaseError, match="being written"):
        get_model("mine", published[0], progress=_silent)


def test_an_unknown_name_lists_the_known_ones(models: Path, published: Any) -> None:
    """Nothing is fetched."""
    with pytest.raises(InputError, match=r"unknown model 'yours'; known are mine"):
        get_model("yours", published[0], progress=_silent)
    assert not models.exists()


def test_known_models_and_the_users_own_are_listed(models: Path, save_clip: Save) -> None:
    """Each with its state; what is neither there nor a model says so when it is checked."""
    assert {each.state for each in list_models()} == {"not there"}
    shutil.copytree(save_clip("siglip"), models / "own")
    (models / "imagebind").mkdir()
    (models / "imagebind" / "imagebind_huge.pth.part").write_bytes(b"1")
    (models / "notes").mkdir()
    states = {each.name: each.state for each in list_models()}
    assert (states["own"], states["imagebind"], states["clip-vit-base-patch32"]) == (
        "there",
        "in part",
        "not there",
    )
    listed = {each.name: each for each in list_models()}
    assert "clip:own loads" in check_model(listed["own"])
    assert "your own" in listed["own"].to_text()
    with pytest.raises(InputError, match="its files show no known kind of model"):
        check_model(listed["notes"])
    with pytest.raises(InputError, match="in part; download it: unibind models get imagebind"):
        check_model(listed["imagebind"])
