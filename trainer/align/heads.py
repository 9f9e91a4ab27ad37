"""The alignment heads: one map per modality from its encoder's space into the text space.

On disk, `heads.safetensors`: tensors `<modality>.weight` [D_text, D_in] and `<modality>.bias` [D_text],
float32; with a hidden layer also `<modality>.hidden.weight` [H, D_in] and `<modality>.hidden.bias` [H], and
the weight is [D_text, H]. Residual and low-rank heads are stored as linear ones. `<modality>.mean` [D_text]
is the mean of the modality's mapped train samples, `categories.mean` [D_text] that of the centers, and
`categories.basis` [R, D_text] the basis of the shared space; each only where it is taken off or projected
onto. One metadata entry `unibind` holds a canonical JSON object (one entry, because safetensors writes
several in no fixed order, and equal heads must be equal files).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from data.errors import TrainingError, first_line
from data.files import atomic_path, canonical_json
from data.reads import reading
from trainer.align.shared import SharedSpace
from trainer.records import Centers, Floats
from trainer.score.geometry import unit_rows

FORMAT = "unibind-heads-2"
# Facts in the metadata that each modality has of its own: its number of trained parameters, the epoch kept
# and its top-1 on val (null without val samples), the best top-1 of all epochs and the first epoch that
# reached it.
_BY_MODALITY = ("parameters", "epochs", "val_top1", "best_top1", "improved")
_CATEGORIES = "categories"  # no modality; the shared space's tensors have this name on disk


@dataclass(frozen=True)
class Heads:
    """The trained heads, by modality, the space that they map into, and where they come from."""

    weights: dict[str, Floats]  # modality -> [D_text, D_in]
    biases: dict[str, Floats]  # modality -> [D_text]
    metadata: dict[str, Any]  # format, encoders (role -> folder name), settings, epochs, parameters, …
    hidden: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)  # modality -> [H, D_in], [H]
    means: dict[str, Floats] = field(default_factory=dict)  # modality -> [D_text], taken off its mapped rows
    space: SharedSpace = field(default_factory=SharedSpace)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be mapped; text can without a head, for it is in the text space already."""
        return tuple(sorted({*self.weights, "text"}))

    def represent(self, centers: Centers) -> Centers:
        """The texts that stand for the categories, as unit rows of the shared space.

        Samples that `map` placed are compared with these alone, never with the texts' vectors as they are
        stored: their own mean is taken off (that of each control off its texts), as in training.
        """
        return self.space.represent(centers)

    def place_text(self, x_NT: Floats) -> Floats:
        """Words of a user as unit rows of the shared space, as texts about categories: [N, T]."""
        return self.space.place(x_NT)

    def map(self, modality: str, x_ND: Floats) -> Floats:
        """Rows of a modality's encoder (float32[N, D_in]) as unit rows of the shared space (float32[N, T]).

        The mean of the modality's train samples is taken off. Text without a head is projected, without the
        centers' mean where it had no train samples. A row that maps to zero stays zero. Raises TrainingError
        for a modality without a head, and for rows of another dimension than it was trained on.
        """
        if modality == "text" and modality not in {*self.weights, *self.means}:
            return self.place_text(x_ND)
        placed_NT = self.map_with_mean(modality, x_ND)
        if modality in self.means:
            return unit_rows(placed_NT - self.means[modality])
        return placed_NT

    def map_with_mean(self, modality: str, x_ND: Floats) -> Floats:
        """As `map`, before the modality's mean is taken off; raises what `map` raises."""
        if modality not in self.weights:
            if modality == "text":
                return unit_rows(self.space.project(unit_rows(x_ND)))
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

    def of(self, modalities: Collection[str]) -> Heads:
        """The heads of some modalities, with a copy of the metadata."""
        return replace(
            self,
            weights={m: w for m, w in self.weights.items() if m in modalities},
            biases={m: b for m, b in self.biases.items() if m in modalities},
            hidden={m: layer for m, layer in self.hidden.items() if m in modalities},
            means={m: mean for m, mean in self.means.items() if m in modalities},
            metadata=dict(self.metadata),
        )

    def parameters(self, modality: str) -> int:
        """The number of trained parameters of a modality; 0 without a head."""
        if modality not in self.weights:
            return 0
        whole = (self.weights[modality], self.biases[modality], *self.hidden.get(modality, ()))
        return int(self.metadata.get("parameters", {}).get(modality, sum(tensor.size for tensor in whole)))


def merge_heads(first: Heads, second: Heads) -> Heads:
    """The heads of both, with the facts about them; of a modality that both have, those of the second."""
    by_modality = {name: {**first.metadata[name], **second.metadata[name]} for name in _BY_MODALITY}
    return Heads(
        {**first.weights, **second.weights},
        {**first.biases, **second.biases},
        {**second.metadata, **by_modality},
        {**first.hidden, **second.hidden},
        {**first.means, **second.means},
        second.space,
    )


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
        written = metadata.get("format") if isinstance(metadata, dict) else None
        raise TrainingError(
            f"{path}: not a {FORMAT} file{f' but {written}' if written else ''}; run `unibind train` again"
        )
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
    tensors |= {f"{modality}.hidden.bias": bias for modality, (_, bias) in heads.hidden.items()}
    tensors |= {f"{modality}.mean": mean for modality, mean in heads.means.items()}
    of_space = {"mean": heads.space.mean_T, "basis": heads.space.basis_RT}
    return tensors | {
        f"{_CATEGORIES}.{name}": tensor for name, tensor in of_space.items() if tensor is not None
    }


def from_tensors(tensors: dict[str, Floats], metadata: dict[str, Any]) -> Heads:
    """The heads of the tensors that `to_tensors` returned."""
    weights, biases, means = (
        {n.removesuffix(kind): t for n, t in tensors.items() if n.endswith(kind)}
        for kind in (".weight", ".bias", ".mean")
    )
    space = SharedSpace(means.pop(_CATEGORIES, None), tensors.get(f"{_CATEGORIES}.basis"))
    hidden = {
        name.removesuffix(".hidden"): (weights.pop(name), biases.pop(name))
        for name in [name for name in weights if name.endswith(".hidden")]
    }
    return Heads(weights=weights, biases=biases, metadata=metadata, hidden=hidden, means=means, space=space)


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
    dims = {weight.shape[0] for weight in heads.weights.values()}
    if len(dims) > 1:
        return "heads into spaces of different dimensions"
    vectors = {**heads.means, _CATEGORIES: heads.space.mean_T}
    if (basis_RT := heads.space.basis_RT) is not None:
        if basis_RT.ndim != 2:
            return f"a basis of the shape {list(basis_RT.shape)}"
        vectors |= {f"{_CATEGORIES}.basis": row_T for row_T in basis_RT[:1]}
    for name, vector_T in vectors.items():
        if vector_T is None:
            continue
        if vector_T.dtype != np.float32 or vector_T.ndim != 1 or (dims and vector_T.shape[0] not in dims):
            return f"a mean or basis of {name} that does not fit: {vector_T.dtype}{list(vector_T.shape)}"
    every = [*heads.means.values(), heads.space.mean_T, heads.space.basis_RT]
    if not all(np.isfinite(tensor).all() for tensor in every if tensor is not None):
        return "means or a basis that are not finite"
    return None
