"""describe.prompts.samples: every kind of material has its questions, and they say what is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

import kb_builder.describe.prompts.samples as module
from data.modality import MODALITIES
from data.readers.lookup import EVENT_FORMATS
from kb_builder.describe.prompts.samples import load_sample_prompts, sample_purpose

PURPOSES = sorted(path.stem for path in Path(module.__file__).parent.glob("sample_*.toml"))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_set_has_several_questions(purpose: str) -> None:
    """Three tries ask three different things, in the same setting; ids are unique; all is filled in."""
    prompts = load_sample_prompts(purpose)
    assert [prompts.of_try(n) for n in range(3)] == list(prompts.prompts)
    assert prompts.of_try(3) == prompts.of_try(0)
    assert len({prompt.template_id for prompt in prompts.prompts}) == 3
    for prompt in prompts.prompts:
        assert prompt.version
        assert prompt.system
        assert ("{facts}" in prompt.user) == ("facts" in purpose)
        assert "  " not in prompt.user
        assert prompt.template_id.startswith(purpose)


def test_every_modality_has_its_set() -> None:
    """The prompts depend on what is sent: native media, rendered events, or a drawn picture."""
    for modality in MODALITIES:
        if modality != "text":
            assert sample_purpose({"modality": modality, "uri": f"a/b.{modality}"}, ()) in PURPOSES
    assert sample_purpose({"modality": "event", "uri": "a.png"}, ()) == "sample_event_drawn"
    assert sample_purpose({"modality": "audio", "uri": "a.wav"}, ("audio",)) == "sample_audio_native"
    assert sample_purpose({"modality": "video", "uri": "a.mp4"}, ("audio",)) == "sample_video"
    assert "sample_video_native" in PURPOSES


@pytest.mark.parametrize("ending", [*EVENT_FORMATS, ".BIN"])
def test_every_recording_has_the_prompt_of_our_rendering(ending: str) -> None:
    """Recordings of every format are rendered here, so the prompt explains the colours of that rendering."""
    assert sample_purpose({"modality": "event", "uri": f"a{ending}"}, ()) == "sample_event"


@pytest.mark.parametrize(
    ("purpose", "says"),
    [
        ("sample_audio", ["left to right", "Pitch rises", "loudness"]),
        ("sample_point", ["four", "cloud of points", "farther away is darker"]),
        ("sample_thermal", ["brighter is warmer"]),
        ("sample_video", ["upper left, upper right, lower left, lower right"]),
        ("sample_event", ["brighter are red", "darker are blue", "it is white"]),
    ],
)
def test_the_model_is_told_how_to_read_the_picture(purpose: str, says: list[str]) -> None:
    """The legend of each drawing stands before the question."""
    for prompt in load_sample_prompts(purpose).prompts:
        assert all(words in prompt.user for words in says)
