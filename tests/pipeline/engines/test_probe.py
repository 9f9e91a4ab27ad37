"""What the doctor says about nodes that differ from this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines import probe
from pipeline.engines.probe import Answer, NodeQuestion, answer
from pipeline.project import load_project
from tests.planted import PROJECT, register_encoder


@pytest.fixture
def question(tmp_path: Path) -> NodeQuestion:
    register_encoder()
    (tmp_path / ".probe").write_text("word", encoding="utf-8")
    return NodeQuestion(
        tmp_path, ".probe", "word", ("words",), "cpu", str(Path.cwd()), {"words": "own_encoder:load_words"}
    )


def findings(
    question: NodeQuestion, *, loopback: bool = False, **changes: Any
) -> list[tuple[bool, bool, str]]:
    """(ok, needed, detail) of each finding about a node that answers as this machine but for `changes`."""
    own = replace(answer(question), token=True)
    each = replace(own, **changes)
    now = own.clock
    found = probe._node("10.0.0.7", each, own, question, now, now, loopback=loopback)
    return [(finding.ok, finding.needed, finding.detail) for finding in found]


def test_a_node_like_this_machine_is_one_line(question: NodeQuestion) -> None:
    """It has read the note and written one beside it."""
    ((ok, _, detail),) = findings(question)
    assert ok and "sees the run's folder" in detail
    assert len(list(question.folder.glob(".probe.*"))) == 1


@pytest.mark.parametrize(
    ("changes", "needed", "words"),
    [
        ({"store": "/store: No such file or directory"}, True, "does not see the run's folder: /store"),
        ({"wrote": "elsewhere"}, True, "is not seen here"),
        ({"code": "other"}, True, "another version of this program"),
        ({"identities": {"words": "0123"}}, True, "has another encoder 'words' (0123, here"),
        ({"identities": {"words": "none: not installed"}}, True, "none: not installed"),
        ({"token": False}, True, "without RAY_AUTH_MODE=token"),
        ({"free": 2**30}, False, "1.0 GiB free"),
        ({"clock": 1e9}, False, "its clock differs by -"),
    ],
)
def test_each_difference_is_named(
    question: NodeQuestion, changes: dict[str, Any], needed: bool, words: str
) -> None:
    """What would spoil a run fails the doctor; the rest is a warning."""
    ((ok, is_needed, detail),) = findings(question, **changes)
    assert not ok and is_needed == needed and words in detail


def test_on_loopback_no_token_is_asked_for(question: NodeQuestion) -> None:
    """No other machine is to reach the cluster."""
    assert findings(question, loopback=True, token=False)[0][0]


def test_a_folder_that_is_another_one_there_is_noticed(question: NodeQuestion, tmp_path: Path) -> None:
    """A file of the same name with other content, or none: not the same store."""
    assert "other files" in answer(replace(question, word="another")).store
    assert "No such file" in answer(replace(question, folder=tmp_path / "gone")).store


@pytest.mark.parametrize(("same", "needed"), [("false", False), ("true", True)])
def test_a_mixture_of_hardware_is_a_warning_unless_it_is_refused(
    tmp_path: Path, same: str, needed: bool
) -> None:
    """With the nodes of each class."""
    path = tmp_path / "unibind.toml"
    path.write_text(f"{PROJECT}\n[run]\nsame_hardware = {same}\n", encoding="utf-8")
    project = load_project(path)
    found = probe._hardware({"a": "GPU", "b": "CPU", "c": "GPU"}, project)
    assert (found.ok, found.needed) == (False, needed)
    assert "2 classes: GPU on a, c; CPU on b" in found.detail
    assert probe._hardware({"a": "GPU", "b": "GPU"}, project).ok


def test_the_answer_of_a_node_is_small(question: NodeQuestion) -> None:
    """It holds the class of hardware and the identity of each encoder, and no file."""
    found: Answer = answer(question)
    assert found.identities.keys() == {"words"} and len(found.identities["words"]) == 64
    assert "torch" in found.hardware
