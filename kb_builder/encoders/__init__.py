"""Encoders: frozen models that turn texts and samples into unit vectors, loaded by name when needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from data.errors import InputError
from data.reads import Note, hold, recorded, replay
from kb_builder.encoders.base import JOIN, Encoder


def _efficientnet(_: str, device: str) -> Encoder:
    from kb_builder.encoders.lite0 import load_efficientnet

    return load_efficientnet(device=device)


def _conse(text_name: str, device: str) -> Encoder:
    from kb_builder.encoders.conse import load_conse

    text = load_encoder(text_name or "minilm", device)
    if "text" not in text.modalities:
        raise InputError(f"conse:{text_name}: {text_name!r} takes no texts; name a text encoder, e.g. minilm")
    return load_conse(text, device=device)


def _clip(name: str, device: str) -> Encoder:
    from kb_builder.encoders.clip import load_clip

    return load_clip(name, device=device)


def _clap(name: str, device: str) -> Encoder:
    from kb_builder.encoders.clap import load_clap

    return load_clap(name, device=device)


def _imagebind(name: str, device: str) -> Encoder:
    from kb_builder.encoders.imagebind.encoder import load_imagebind

    return load_imagebind(name, device=device)


def _languagebind(name: str, device: str) -> Encoder:
    from kb_builder.encoders.languagebind.encoder import load_languagebind

    return load_languagebind(name, device=device)


def _point(name: str, device: str) -> Encoder:
    from kb_builder.encoders.point.encoder import load_point

    return load_point(name, device=device)


def _imported(name: str, _: str) -> Encoder:
    from kb_builder.encoders.imported import cannot_encode

    cannot_encode(name)


def _at(precision: str) -> Factory:
    def load(name: str, device: str) -> Encoder:
        from kb_builder.encoders.sentence import load_sentence_encoder

        return load_sentence_encoder(name, device=device, precision=precision)

    return load


def _onnx(name: str, _: str, *, int8: bool = False) -> Encoder:
    from kb_builder.encoders.onnx import load_onnx_encoder

    return load_onnx_encoder(name, int8=int8)


Factory = Callable[[str, str], Encoder]  # what follows the colon, the device
FACTORIES: dict[str, Factory] = {
    "efficientnet-lite0": _efficientnet,
    "conse": _conse,
    "clip": _clip,
    "clap": _clap,
    "imagebind": _imagebind,
    "languagebind": _languagebind,
    "point": _point,
    "imported": _imported,
    "fp32": _at("fp32"),
    "fp16": _at("fp16"),
    "bf16": _at("bf16"),
    "onnx": _onnx,
    "onnx-int8": partial(_onnx, int8=True),
}
ON_CPU = {"onnx", "onnx-int8"}  # families that run on the CPU, on any device setting

# Encoders that stay loaded: the last small ones, and of large ones only the last.
_KEPT, _LARGE_PARAMETERS = 8, 100_000_000
_Key = tuple[str, tuple[str, ...]]
_kept: dict[_Key, tuple[Encoder, list[Note]]] = {}  # with the files that each was loaded from
_loading = threading.RLock()


def load_encoder(name: str, device: str = "auto") -> Encoder:
    """Load an encoder, or return the one loaded before, unless its files have changed since.

    Small encoders stay loaded; of large ones only the last does.

    | name | encoder |
    |---|---|
    | `minilm` | texts: the bundled all-MiniLM-L6-v2 |
    | `efficientnet-lite0` | renderings of every modality but text, in a separate space |
    | `conse` | photos and videos in MiniLM's space without training |
    | `conse:NAME` | the same in the space of another text encoder |
    | `clip:MODEL` | texts and pictures: CLIP, SigLIP or SigLIP 2 as transformers saves them |
    | `clap:MODEL` | texts and sounds: CLAP as transformers saves it |
    | `imagebind:MODEL` | texts, pictures, videos, sounds and thermal pictures: ImageBind's own weights |
    | `languagebind:MODEL` | texts and what its towers encode: images, videos, sounds, thermal pictures |
    | `point:MODEL` | point clouds in the space of a CLIP: OpenShape's PointBERT |
    | `A + B` | several in one space: each modality goes to the last that takes it, texts to the first |
    | `fp16:NAME`, `bf16:NAME` | a sentence-transformers model in half precision, for a GPU |
    | `onnx:NAME`, `onnx-int8:NAME` | a text encoder by ONNX Runtime on the CPU, exact or in 8-bit integers |
    | `imported:NAME` | vectors of another tool; it cannot encode anything new |
    | anything else | the folder or name of a sentence-transformers model, text-only or CLIP-like |

    MODEL is a path, or a name in the model folder (kb_builder/weights/known.py). `device` is `auto`, `cpu`,
    `cuda` or a list of CUDA devices (`cuda:0,cuda:1`), each of which gets the model. Raises InputError for an
    unknown name or device, and MissingDependencyError, with the install command, if a bundled model or an
    extra is not installed.
    """
    from kb_builder.encoders.devices import device_names

    devices = device_names(device)
    key = (name, ("cpu",) if name.partition(":")[0] in ON_CPU else devices)
    with _loading:
        if key in _kept and not hold(_kept[key][1]):
            del _kept[key]
        if key in _kept:
            replay(_kept[key][1])
        else:
            _unload(large_only=True)
            with recorded() as recorder:
                encoder = _load(*key)
            while len(_kept) >= _KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = encoder, recorder.notes()
        return _kept[key][0]


def release_encoders() -> None:
    """Unload all encoders; the memory of one is freed when nothing else refers to it."""
    with _loading:
        _unload(large_only=False)


def _unload(*, large_only: bool) -> None:
    for key, (encoder, _) in list(_kept.items()):
        if not large_only or encoder.parameters > _LARGE_PARAMETERS:
            del _kept[key]


def _load(name: str, devices: tuple[str, ...]) -> Encoder:
    if JOIN in name:
        from kb_builder.encoders.joined import join

        return join(name, [_load(part.strip(), devices) for part in name.split(JOIN)])
    from kb_builder.encoders.devices import Replicas

    family, _, detail = name.partition(":")
    if family not in FACTORIES:
        family, detail = "fp32", name
    each = [FACTORIES[family](detail, device) for device in devices]
    return each[0] if len(each) == 1 else Replicas(each)


__all__ = ["JOIN", "Encoder", "load_encoder", "release_encoders"]
