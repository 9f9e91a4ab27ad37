"""Encoders: frozen models that turn texts and samples into unit vectors. Loaded by name, each when needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from data.errors import InputError
from kb_builder.encoders.base import Encoder


def _efficientnet(_: str) -> Encoder:
    from kb_builder.encoders.efficientnet import load_efficientnet

    return load_efficientnet()


def _conse(text_name: str) -> Encoder:
    from kb_builder.encoders.conse import load_conse

    text = load_encoder(text_name or "minilm")
    if "text" not in text.modalities:
        raise InputError(f"conse:{text_name}: {text_name!r} takes no texts; name a text encoder, e.g. minilm")
    return load_conse(text)


FACTORIES: dict[str, Callable[[str], Encoder]] = {
    "efficientnet-lite0": _efficientnet,
    "conse": _conse,
}


@lru_cache(maxsize=8)
def load_encoder(name: str) -> Encoder:
    """Load an encoder; asked again, the process gets the same one.

    | name | encoder |
    |---|---|
    | `minilm` | texts: the bundled all-MiniLM-L6-v2 |
    | `efficientnet-lite0` | renderings of every modality but text, in a space of their own |
    | `conse` | photos and videos in MiniLM's space without training |
    | `conse:NAME` | the same in the space of another text encoder |
    | anything else | the folder or name of a sentence-transformers model, text-only or CLIP-like |

    Raises InputError for an unknown name and MissingDependencyError, which names the install command, where a
    bundled model is not installed.
    """
    family, _, detail = name.partition(":")
    if family in FACTORIES:
        return FACTORIES[family](detail)
    from kb_builder.encoders.sentence import load_sentence_encoder

    return load_sentence_encoder(name)


__all__ = ["Encoder", "load_encoder"]
