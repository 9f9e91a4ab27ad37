"""Text encoders run by ONNX Runtime: `onnx:NAME`, or with 8-bit weights `onnx-int8:NAME`.

The network is exported once and cached under the identity of its encoder. Its vectors of the glosses of
ImageNet's classes are compared with those of the original network: `agreement` is the least cosine.

ONNX Runtime's dynamic quantisation uses one scale for a whole batch, so a text's vector would depend on the
other texts (cosines down to 0.98). Here each row that enters a linear layer has its own scale, so a text has
one vector. Columns with outliers are reduced before, by factors fitted to some glosses, and inputs from a
GELU use all 256 levels, since they are bounded from below.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from data.errors import InputError, MissingDependencyError, first_line
from data.files import hash_json
from data.wordnet import read_classes
from kb_builder.encoders.base import Floats
from kb_builder.encoders.devices import as_published
from kb_builder.encoders.sentence import SentenceEncoder, load_sentence_encoder
from kb_builder.weights.identity import cache_folder

VERSION = {"onnx": 2, "onnx-int8": 3}  # of the export; part of the identity
AGREEMENT = 0.9999  # required of a float32 network; a quantised one only states its agreement
GELU_DEPTH = 0.17  # GELU is nowhere below its negative
_COMPARED = 64  # texts
_FITTED = 256  # texts to which the scales of an int8 network are fitted
# Columns of an input are divided by this power of their largest values: SmoothQuant (Xiao et al., 2023), but
# without the weights, so that layers with one input share its quantisation.
_EVENED = 0.6
_LEAST_COLUMN = 1e-5
_WEIGHTS, _ZERO_POINTS = 1, 5  # inputs of the operator MatMulIntegerToFloat
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

logger = logging.getLogger(__name__)


def load_onnx(name: str, *, device: str) -> SentenceEncoder:
    """`load_onnx_encoder` in float32. ONNX Runtime runs on the CPU, whatever the device."""
    return load_onnx_encoder(name, int8=False)


def load_onnx_int8(name: str, *, device: str) -> SentenceEncoder:
    """`load_onnx_encoder` in 8-bit integers."""
    return load_onnx_encoder(name, int8=True)


def load_onnx_encoder(name: str, *, int8: bool) -> SentenceEncoder:
    """The text encoder `name`, with its transformer in ONNX Runtime on the CPU, one thread per call.

    Raises MissingDependencyError without the extra `onnx`, and InputError if `name` is not a text transformer
    of sentence-transformers, if the export is damaged, and if float32 does not reach `AGREEMENT`.
    """
    if missing := [package for package in _PACKAGES if importlib.util.find_spec(package) is None]:
        raise MissingDependencyError(
            f"onnx:{name} needs {', '.join(missing)}: pip install --editable '.[onnx]'"
        )
    family = "onnx-int8" if int8 else "onnx"
    encoder = load_sentence_encoder(name, device="cpu")
    transformer: Any = encoder.model[0]
    inputs = encoder.model.preprocess(["a text", "a longer text"], prompt=None)
    names = [key for key in ("input_ids", "attention_mask", "token_type_ids") if key in inputs]
    if encoder.modalities != {"text"} or "input_ids" not in names or not hasattr(transformer, "model"):
        raise InputError(f"{family}:{name}: only text transformers can be exported, and {name!r} is not one")
    as_published(encoder.model)
    texts = [each.gloss for each in read_classes()[:_COMPARED]]
    wanted_ND = encoder.encode(texts)
    path = (
        cache_folder() / "onnx" / f"{encoder.identity[:24]}-{VERSION[family]}{'-int8' if int8 else ''}.onnx"
    )
    if not path.is_file():
        if int8:
            _scale_rows(encoder, transformer.model)
        _export(transformer.model, {key: inputs[key] for key in names}, path, int8=int8)
    transformer.model = _Session(path, names, transformer.model.config, signed=int8 and has_vnni())
    agreement = least_cosine(encoder.encode(texts), wanted_ND)
    logger.info("%s:%s agrees with %s: the least cosine is %.6f", family, name, name, agreement)
    if not int8 and agreement < AGREEMENT:
        raise InputError(
            f"{family}:{name}: its least cosine to {name} is {agreement:.6f}, below {AGREEMENT}; delete"
            f" {path} to export it again, or encode with {name}"
        )
    return replace(
        encoder,
        name=f"{family}:{name}",
        identity=hash_json([encoder.identity, family, VERSION[family]]),
        agreement=agreement,
    )


def least_cosine(a_ND: Floats, b_ND: Floats) -> float:
    """The least cosine between rows of the same index; both are unit rows."""
    return float(np.vecdot(a_ND.astype(np.float64), b_ND.astype(np.float64)).min())


def _export(body: nn.Module, inputs: dict[str, torch.Tensor], path: Path, *, int8: bool) -> None:
    """Export the network into one file, atomically."""
    logger.info("exporting the network to %s, once", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, tokens = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, _quiet():
        exported = Path(scratch) / "model.onnx"
        torch.onnx.export(
            _Plain(body, list(inputs)),
            tuple(inputs.values()),
            exported,
            input_names=list(inputs),
            output_names=["last_hidden_state"],
            dynamic_shapes=(({0: rows, 1: tokens},) * len(inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        if int8:
            exported = _quantize(exported)
        exported.replace(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about its internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _RowScaledLinear(nn.Linear):
    """`nn.Linear` that scales its input rows to [-1, 1] before the product, or to [0, 1] where GELU bounds
    them from below. Equal to the layer that it is made from by `_scale_rows_of`, up to rounding."""

    share_K: torch.Tensor  # of the input's columns, to which they are reduced
    lifted: bool

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(input * share) @ weight.T + bias; a lifted input is `GELU_DEPTH` higher."""
        rows = input + GELU_DEPTH if self.lifted else input * self.share_K
        largest = rows if self.lifted else rows.abs()
        scale = largest.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        return nn.functional.linear(rows / scale, self.weight) * scale + self.bias


def _scale_rows_of(layer: Any, *, least: float, most_K: torch.Tensor) -> None:
    """Make a layer a `_RowScaledLinear`, given its input's least value and each column's largest size."""
    layer.__class__ = _RowScaledLinear
    layer.lifted = least >= -GELU_DEPTH and float(most_K.max()) > 4 * GELU_DEPTH
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.data
    share_K = torch.ones(layer.in_features)
    if layer.lifted:
        bias = bias - GELU_DEPTH * layer.weight.data.sum(dim=1)
    else:  # powers of two, so that nothing is rounded
        share_K = torch.exp2(-torch.round(torch.log2(most_K.clamp(min=_LEAST_COLUMN) ** _EVENED)))
    layer.bias = nn.Parameter(bias, requires_grad=False)
    layer.weight = nn.Parameter(layer.weight.data / share_K, requires_grad=False)
    layer.register_buffer("share_K", share_K)


def _scale_rows(encoder: SentenceEncoder, body: nn.Module) -> None:
    """Make every linear layer a `_RowScaledLinear`, fitted to the inputs that some texts give it."""
    layers = [module for module in body.modules() if type(module) is nn.Linear]
    least: dict[nn.Module, float] = {}
    most: dict[nn.Module, torch.Tensor] = {}

    def watch(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])
        largest = rows.abs().amax(dim=0)
        least[layer] = min(least.get(layer, 0.0), float(rows.min()))
        most[layer] = torch.maximum(most[layer], largest) if layer in most else largest

    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    encoder.encode([each.gloss for each in read_classes()[_COMPARED : _COMPARED + _FITTED]])
    for hook in hooks:
        hook.remove()
    for layer in layers:
        if layer in most:  # others, as a pooler, do not serve the vectors
            _scale_rows_of(layer, least=least[layer], most_K=most[layer])


def _quantize(exported: Path) -> Path:
    """Quantise the products of the linear layers to 8-bit integers.

    Input rows get a step of 1/127 about zero, or of 1/255 from zero on where they were lifted. Weights are
    unsigned as well: on a processor without VNNI, ONNX Runtime adds signed products in 16 bits, which
    overflow: 5% of the sums, which alone lowered MiniLM's least cosine from 0.9946 to 0.9917.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(exported).graph
    scaled = {name for node in graph.node if node.op_type == "Div" for name in node.output}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[0] in scaled]
    path = exported.with_name("int8.onnx")
    quantize_dynamic(
        exported, path, weight_type=QuantType.QUInt8, per_channel=True, nodes_to_quantize=products
    )
    model = onnx.load(path)
    maker = {name: node for node in model.graph.node for name in node.output}
    values = {"step": np.array(1 / 127, np.float32), "zero": np.array(128, np.uint8)}
    values |= {"lifted_step": np.array(1 / 255, np.float32), "lifted_zero": np.array(0, np.uint8)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, f"row_{name}") for name, value in values.items()
    )
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            rows, (quantized, *measured) = node.input[0], node.output
            fixed = [f"row_{'lifted_' * _is_lifted(rows, maker)}{name}" for name in ("step", "zero")]
            renamed |= dict(zip(measured, fixed, strict=True))
            node.CopyFrom(onnx.helper.make_node("QuantizeLinear", [rows, *fixed], [quantized]))
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    _join_scales(model)
    onnx.save(model, path)
    return path


def has_vnni() -> bool:
    """Whether this processor multiplies unsigned by signed 8-bit integers and adds in 32 bits."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_vnni") or found.get("avx_vnni"))


def sign_weights(path: Path) -> bytes:
    """The quantised network with signed weights: 128 less, as are their zero points, so that every sum stays.

    With VNNI, ONNX Runtime has fast exact products for these (1.7 times as fast), and none for unsigned ones.
    """
    import onnx

    model = onnx.load(path)
    values = {value.name: value for value in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    for name in {node.input[place] for node in products for place in (_WEIGHTS, _ZERO_POINTS)}:
        unsigned = onnx.numpy_helper.to_array(values[name])
        signed = (unsigned.astype(np.int16) - 128).astype(np.int8)
        values[name].CopyFrom(onnx.numpy_helper.from_array(signed, name))
    return bytes(model.SerializeToString())


def _is_lifted(rows: str, maker: Mapping[str, Any]) -> bool:
    """Whether scaled rows are those of a lifted layer: their scale is no maximum of absolute values."""
    node = maker[maker[rows].input[1]]
    while node.op_type != "ReduceMax":
        node = maker[node.input[0]]
    return node.input[0] not in maker or maker[node.input[0]].op_type != "Abs"


def _join_scales(model: Any) -> None:
    """Let the integer products scale their columns themselves, instead of a cast and a product after them."""
    import onnx

    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    maker = {name: node for node in model.graph.node for name in node.output}
    gone = []
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            (cast,) = users[node.output[0]]
            (scaling,) = users[cast.output[0]]
            scales = maker[next(name for name in scaling.input if name != cast.output[0])]
            gone += [cast, scaling, scales]
            rows, weights, *zeros = node.input
            node.CopyFrom(
                onnx.helper.make_node(
                    "MatMulIntegerToFloat",
                    [rows, weights, *scales.input, *zeros],
                    [scaling.output[0]],
                    domain="com.microsoft",
                )
            )
    for node in gone:
        model.graph.node.remove(node)
    if not any(each.domain == "com.microsoft" for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


class _Plain(nn.Module):
    """The network with positional inputs and one output, as the exporter requires."""

    def __init__(self, body: nn.Module, names: list[str]) -> None:
        super().__init__()
        self._body, self._names = body, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._body(**dict(zip(self._names, inputs, strict=True))).last_hidden_state
        return found


class _Session(nn.Module):
    """The exported network in ONNX Runtime, as a replacement for the original module."""

    def __init__(self, path: Path, names: list[str], config: Any, *, signed: bool) -> None:
        super().__init__()
        import onnxruntime

        self.config = config  # sentence-transformers reads it from the network
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # batches run in parallel
        try:
            given = sign_weights(path) if signed else path
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions have no other common base
            reason = first_line(error)
            raise InputError(
                f"{path}: cannot be loaded ({reason}); delete it, and the next run exports it again"
            ) from error
        self._names = names

    def forward(self, **inputs: torch.Tensor) -> BaseModelOutput:
        given = {name: inputs[name].numpy() for name in self._names}
        (found_BTD,) = self._session.run(None, given)
        return BaseModelOutput(last_hidden_state=torch.from_numpy(found_BTD))
