"""State dicts from checkpoints: safetensors, or a `.pth` that holds only tensors and plain containers."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import InputError, first_line
from kb_builder.weights.identity import check_memory, refuse_pointers

State = dict[str, torch.Tensor]
_WRAPPED = ("state_dict", "model")  # where training scripts put the state dict inside a checkpoint
_SHOWN = 3  # keys of each kind in an error
_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def load_state(path: Path) -> State:
    """The tensors of a checkpoint, on the CPU. Archives are memory-mapped.

    Raises InputError for a file that is not a checkpoint, holds more than tensors, or does not fit into
    memory. No code in a pickle is run (`weights_only`).
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    refuse_pointers(path)
    check_memory(str(path), path.stat().st_size)
    value = _read(path)
    for key in _WRAPPED:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict) or not value:
        raise InputError(
            f"{path}: holds a {type(value).__name__}, not a state dict; name the model's weights"
        )
    state = {key: tensor for key, tensor in value.items() if isinstance(tensor, torch.Tensor)}
    if len(state) < len(value):
        other = next(key for key in value if key not in state)
        raise InputError(
            f"{path}: no state dict: {str(other)[:60]!r} is a {type(value[other]).__name__}, not a tensor"
        )
    return state


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        # Files of old torch versions are not archives and cannot be mapped.
        with path.open("rb") as file:
            mapped = file.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings():  # about old pickles; harmful ones are refused
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: not a file of weights alone (no checkpoint, or a pickle with more than tensors in it,"
            " which is not read since it may run any code); fetch it from its publisher"
        ) from error
    except Exception as error:  # on damaged bytes torch's unpickler can raise anything
        reason = first_line(error)
        raise InputError(f"{path}: cannot be read as weights ({reason}); fetch it again") from error


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def without_prefix(state: State, prefixes: Iterable[str]) -> State:
    """The entries under the first prefix that any key has, without that prefix; else all entries."""
    for prefix in prefixes:
        under = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if under:
            return under
    return state


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], *, where: str, what: str) -> None:
    """Load a state dict into a network on the meta device, as float32; float32 tensors are not copied.

    Raises InputError if names or shapes differ; `what` names the architecture.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        raise InputError(mismatch_line(where, what, missing, unexpected, misshapen))
    network.load_state_dict({key: _to_float32(value) for key, value in state.items()}, assign=True)
    network.eval().requires_grad_(False)


def _to_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def mismatch_line(
    where: str, what: str, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[str]
) -> str:
    """The message for weights that do not fit an architecture."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    parts = []
    for kind, keys in kinds:
        names = sorted(keys)
        if names:
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            parts.append(f"{len(names):,} {kind}: {', '.join(names[:_SHOWN])}{more}")
    return f"{where}: not the weights of {what} ({'; '.join(parts)}); name the right file"


def weights_file(place: Path, shown: str) -> Path:
    """A file of weights: `place` itself, or the only one in that folder. Else raises InputError."""
    if place.is_file():
        refuse_pointers(place)  # reported before any other missing file
        return place
    files = sorted(path for path in place.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(f"{shown}: {place} should hold one file of weights ({found} found); name the file")
    refuse_pointers(files[0])
    return files[0]
