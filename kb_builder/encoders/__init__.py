"""Encoders: frozen models that turn texts and samples into unit vectors, loaded by name when needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from data.errors import InputError
from data.files import hash_file
from data.reads import Note, hold, reading, recorded, replay
from kb_builder.encoders.base import JOIN, Encoder

# A loader is called as `load(detail, device=...)`: what follows the colon of the name, and one device.
Loader = Callable[..., Encoder]

# Family (what stands before the colon) -> module:function. Named, not imported: each module brings a heavy
# library. An encoder of your own, from any module that Python finds, is one more entry; a function that has
# no module, such as one from a notebook, may stand here itself.
FACTORIES: dict[str, str | Loader] = {
    "minilm": "kb_builder.encoders.minilm:load_minilm",
    "efficientnet-lite0": "kb_builder.encoders.lite0:load_efficientnet",
    "conse": "kb_builder.encoders.conse:load_conse",
    "clip": "kb_builder.encoders.clip:load_clip",
    "clap": "kb_builder.encoders.clap:load_clap",
    "imagebind": "kb_builder.encoders.imagebind.encoder:load_imagebind",
    "languagebind": "kb_builder.encoders.languagebind.encoder:load_languagebind",
    "point": "kb_builder.encoders.point.encoder:load_point",
    "imported": "kb_builder.encoders.imported:cannot_encode",
    "fp32": "kb_builder.encoders.sentence:load_fp32",
    "fp16": "kb_builder.encoders.sentence:load_fp16",
    "bf16": "kb_builder.encoders.sentence:load_bf16",
    "onnx": "kb_builder.encoders.onnx:load_onnx",
    "onnx-int8": "kb_builder.encoders.onnx:load_onnx_int8",
}
ON_CPU = {"onnx", "onnx-int8"}  # families that run on the CPU, on any device setting

# Encoders that stay loaded: the last small ones, and of large ones only the last.
_KEPT, _LARGE_PARAMETERS = 8, 100_000_000
_Key = tuple[str, tuple[str, ...]]
_kept: dict[_Key, tuple[Encoder, list[Note]]] = {}  # with the files that each was loaded from
_loading = threading.RLock()
_sources: dict[str, str] = {}  # module from outside -> hash of its file when it was first loaded


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
    | `NAME?dim=256&prompt=document` | of such a model the first dimensions, one of its prompts, or both |

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
    load = _loader(FACTORIES[family])
    each = [load(detail, device=device) for device in devices]
    return each[0] if len(each) == 1 else Replicas(each)


def _loader(named: str | Loader) -> Loader:
    """The function that a table's entry names. The file of one from outside is noted as read.

    So its vectors are out of date when that file changes, as they are when a file of ours does.
    """
    if callable(named):
        return named
    place, _, function = named.partition(":")
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place:  # a library that it needs
            raise
        raise InputError(f"the encoder {named!r}: Python finds no module {place}; set PYTHONPATH") from None
    if not place.startswith(f"{__name__}.") and module.__file__ is not None:
        source = reading(Path(module.__file__))
        if _sources.setdefault(place, hash_file(source)) != hash_file(source):
            raise InputError(f"{source} has changed since Python loaded it; start Python again")
    loader: Loader = getattr(module, function)
    return loader


__all__ = ["JOIN", "Encoder", "load_encoder", "release_encoders"]
