"""The alignment heads: one map per modality from its encoder's space into the text space.

On disk, `heads.safetensors`: tensors `<modality>.weight` [D_text, D_in] and `<modality>.bias` [D_text],
float32; with a hidden layer also `<modality>.hidden.weight` [H, D_in] and `<modality>.hidden.bias` [H], and
the weight is [D_text, H]. Residual and low-rank heads are stored as linear ones. One metadata entry `unibind`
holds a canonical JSON object (one entry, because safetensors writes several in no fixed order, and equal
heads must be equal files).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from data.errors import TrainingError, first_line
from data.files import atomic_path, canonical_json
from data.reads import reading
from trainer.records import Floats
from trainer.score.geometry import unit_rows

FORMAT = "unibind-heads-1"


@dataclass(frozen=True)
class Heads:
    """The trained heads, by modality, and where they come from."""

    weights: dict[str, Floats]  # modality -> [D_text, D_in]
    biases: dict[str, Floats]  # modality -> [D_text]
    metadata: dict[str, Any]  # format, encoders (role -> folder name), settings, epoch, parameters, …
    hidden: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)  # modality -> [H, D_in], [H]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be mapped; text needs no head, for it is in the text space already."""
        return tuple(sorted({*self.weights, "text"}))

    def map(self, modality: str, x_ND: Floats) -> Floats:
        """Rows of a modality's encoder (float32[N, D_in]) as unit rows of the text space (float32[N, T]).

        Text is only scaled to unit length. A row that maps to zero stays zero. Raises TrainingError for a
        modality without a head, and for rows of another dimension than it was trained on.
        """
        if modality not in self.weights:
            if modality == "text":
                return unit_rows(x_ND)
            raise TrainingError(
                f"no head for {modality!r} (there are: {', '.join(sorted(self.weights))});"
                " add train samples of that modality and run `unibind train`"
            )
        first = self.hidden[modality][0] if modality in self.hidden else self.weights[modality]
        if x_ND.shape[1] != first.shape[1]:
            raise TrainingError(
                f"the {modality} head takes {first.shape[1]} dimensions, not {x_ND.shape[1]}:"
                " it was trained on another encoder; run `unibind train` again"
            )
        if modality in self.hidden:
            weight_HD, bias_H = self.hidden[modality]
            x_ND = np.maximum(x_ND @ weight_HD.T + bias_H, 0)
        return unit_rows(x_ND @ self.weights[modality].T + self.biases[modality])

    def parameters(self, modality: str) -> int:
        """The number of trained parameters of a modality; 0 without a head."""
        if modality not in self.weights:
            return 0
        whole = (self.weights[modality], self.biases[modality], *self.hidden.get(modality, ()))
        return int(self.metadata.get("parameters", {}).get(modality, sum(tensor.size for tensor in whole)))


def save_heads(run: Path, heads: Heads) -> Path:
    """Write `<run>/heads.safetensors` whole or not at all; equal heads give equal bytes."""
    tensors = to_tensors(heads)
    path = run / "heads.safetensors"
    with atomic_path(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)},
            temporary,
            metadata={"unibind": canonical_json({"format": FORMAT, **heads.metadata})},
        )
    return path


def has_heads(run: Path) -> bool:
    """Whether a run has trained heads."""
    return reading(run / "heads.safetensors").exists()


def load_heads(run: Path) -> Heads:
    """Read `<run>/heads.safetensors`; a missing, damaged or foreign file raises TrainingError."""
    path = reading(run / "heads.safetensors")
    if not path.exists():
        raise TrainingError(f"{path}: no trained heads; run `unibind train`")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("unibind", "{}"))
            tensors: dict[str, Floats] = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except Exception as error:  # SafetensorError, but also NumPy's errors for unknown types
        raise TrainingError(f"{path}: damaged ({first_line(error)}); run `unibind train` again") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise TrainingError(f"{path}: not a {FORMAT} file; run `unibind train` again")
    try:
        heads = from_tensors(tensors, metadata)
    except KeyError as missing:
        raise TrainingError(f"{path}: damaged (no tensor {missing}); run `unibind train` again") from None
    if wrong := _inconsistency(heads):
        raise TrainingError(f"{path}: damaged ({wrong}); run `unibind train` again")
    return heads


def to_tensors(heads: Heads) -> dict[str, Floats]:
    """The heads' tensors, by their names on disk."""
    tensors = {f"{modality}.weight": weight for modality, weight in heads.weights.items()}
    tensors |= {f"{modality}.bias": bias for modality, bias in heads.biases.items()}
    tensors |= {f"{modality}.hidden.weight": weight for modality, (weight, _) in heads.hidden.items()}
    return tensors | {f"{modality}.hidden.bias": bias for modality, (_, bias) in heads.hidden.items()}


def from_tensors(tensors: dict[str, Floats], metadata: dict[str, Any]) -> Heads:
    """The heads of the tensors that `to_tensors` returned."""
    weights, biases = (
        {n.removesuffix(kind): t for n, t in tensors.items() if n.endswith(kind)}
        for kind in (".weight", ".bias")
    )
    hidden = {
        name.removesuffix(".hidden"): (weights.pop(name), biases.pop(name))
        for name in [name for name in weights if name.endswith(".hidden")]
    }
    return Heads(weights=weights, biases=biases, metadata=metadata, hidden=hidden)


def _inconsistency(heads: Heads) -> str | None:
    """The first inconsistency of metadata or tensors; None where there is none."""
    for key in ("encoders", "parameters"):
        if not isinstance(heads.metadata.get(key, {}), dict):
            return f"{key} that are not a JSON object"
    for modality in sorted({*heads.weights, *heads.biases}):
        layers = [(heads.weights.get(modality), heads.biases.get(modality))]
        if modality in heads.hidden:
            layers.insert(0, heads.hidden[modality])
        inner: int | None = None
        for weight, bias in layers:
            if weight is None or bias is None:
                return f"no {'weight' if weight is None else 'bias'} for {modality}"
            if weight.dtype != np.float32 or bias.dtype != np.float32:
                return f"numbers of {modality} that are not float32"
            if weight.ndim != 2 or bias.shape != weight.shape[:1] or inner not in {None, weight.shape[1]}:
                return f"shapes of {modality} that do not fit: {list(weight.shape)}, {list(bias.shape)}"
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                return f"numbers of {modality} that are not finite"
            inner = weight.shape[0]
    if len({weight.shape[0] for weight in heads.weights.values()}) > 1:
        return "heads into spaces of different dimensions"
    return None
