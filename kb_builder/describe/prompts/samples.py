"""Prompts about samples: one TOML file per kind of media that is sent.

    version = "1"        raise it whenever a prompt's words change
    system               what holds for every template
    sees                 what the model is given; precedes every template's question
    [[template]]  id, ask, opening?    `opening`: the start of the answer, for models that can continue it

The first try uses the first template, the second the next, and so on in rotation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from data.readers.events.event import is_recording


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """One prompt about one kind of media."""

    template_id: str
    version: str
    system: str
    user: str  # `{facts}` is replaced by the measured facts
    opening: str = ""


@dataclass(frozen=True)
class SamplePrompts:
    """Every prompt about one kind of media, in the order of the tries."""

    prompts: tuple[SamplePrompt, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of every request's body

    def of_try(self, index: int) -> SamplePrompt:
        """The prompt of try number `index`, from 0."""
        return self.prompts[index % len(self.prompts)]


@cache
def load_sample_prompts(purpose: str) -> SamplePrompts:
    """Read `kb_builder/describe/prompts/<purpose>.toml`."""
    content = tomllib.loads(
        resources.files(__package__).joinpath(f"{purpose}.toml").read_text(encoding="utf-8")
    )
    return SamplePrompts(
        prompts=tuple(
            SamplePrompt(
                template_id=f"{purpose}-{template['id']}",
                version=content["version"],
                system=content["system"],
                user=f"{content['sees']}\n\n{template['ask']}",
                opening=template.get("opening", ""),
            )
            for template in content["template"]
        ),
        extra=content.get("extra", {}),
    )


def sample_purpose(sample: Mapping[str, Any], native: tuple[str, ...]) -> str:
    """The name of the prompts that fit the media sent of a sample (a row of `samples`) that is not a text."""
    modality = str(sample["modality"])
    if modality in native:
        return f"sample_{modality}_native"
    # A recording is rendered by `data.render` in known colours; the colours of a drawn picture are unknown.
    if modality == "event" and not is_recording(Path(sample["uri"])):
        return "sample_event_drawn"
    return f"sample_{modality}"
