"""Part `encode` of `make bench-store`: encode texts, compared with `SentenceTransformer.encode`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench.contest import Contest
from bench.rows import at_least, row
from bench.vectors import texts
from kb_builder.encoders import load_encoder
from kb_builder.encoders.tokens import minilm_folder
from kb_builder.encoders.workers import map_batches
from kb_builder.settings import Encode

TEXTS = 2_000
AGREEMENT = 0.9999
_CLIP_TEXTS, _CLIP_TOKENS = 256, 77


def measure_encode(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The rows."""
    return [*_minilm(int(TEXTS * scale), rounds), *_clip(int(_CLIP_TEXTS * scale), rounds)]


def _minilm(n: int, rounds: int) -> list[dict[str, Any]]:
    """Descriptions of 15 to 30 words; ours as in the stage `encode`."""
    written = texts(n)
    encoders: dict[str, Any] = {
        name: load_encoder(name) for name in ("minilm", "onnx:minilm", "onnx-int8:minilm")
    }
    published = SentenceTransformer(str(minilm_folder()), device="cpu", local_files_only=True)

    def ours(encoder: Any) -> Any:
        order = sorted(range(n), key=lambda row: len(written[row]))
        size = Encode().batch_size
        batches = [[written[row] for row in order[start : start + size]] for start in range(0, n, size)]
        found = np.empty((n, encoder.dim), np.float32)
        found[order] = np.concatenate(list(map_batches(encoder.encode, batches)))
        return found

    contenders = {
        "SentenceTransformer.encode": lambda: published.encode(written, show_progress_bar=False),
        **{f"ours, {name}": (lambda e=encoder: ours(e)) for name, encoder in encoders.items()},
    }
    vectors = {name: encode() for name, encode in contenders.items()}
    theirs_ND = vectors["SentenceTransformer.encode"]
    contest = Contest(contenders, rounds=rounds)
    rows = []
    for name in contenders:
        cosine = float(np.vecdot(vectors[name], theirs_ND).min())
        rows.append(
            row(
                f"encode {n:,} texts: {name}",
                contest.median(name),
                "s",
                runs=contest.seconds[name],
                note=f"{n / contest.median(name):.0f} texts/s; least cosine {cosine:.6f}",
            )
        )
        if name.startswith("ours") and "int8" not in name and cosine < AGREEMENT:
            raise AssertionError(f"{name}: cosine {cosine}")
    for name, goal in (("ours, minilm", 1.2), ("ours, onnx:minilm", 1.5), ("ours, onnx-int8:minilm", None)):
        ratio = contest.ratio(name, "SentenceTransformer.encode")
        rows.append(
            row(
                f"encode {n:,} texts: {name} against SentenceTransformer.encode",
                ratio,
                "times as fast",
                against="SentenceTransformer.encode",
                ratio=ratio,
                **(at_least(ratio, goal) if goal else {}),
            )
        )
    return rows


def _clip(n: int, rounds: int) -> list[dict[str, Any]]:
    """A text tower of CLIP's size (ViT-B/32, random weights): trimmed, and padded as in CLIP's code."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    config = CLIPTextConfig(eos_token_id=49407, bos_token_id=49406)
    model = CLIPTextModelWithProjection(config).eval().requires_grad_(False)
    draw = np.random.default_rng(0)
    lengths = np.sort(draw.integers(18, 40, n))  # 15 to 30 words
    ids = np.full((n, _CLIP_TOKENS), config.eos_token_id)
    for place, length in enumerate(lengths.tolist()):
        ids[place, 0], ids[place, 1 : length - 1] = 49406, draw.integers(1, 49000, length - 2)

    def encode(*, trim: bool) -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, n, 32):
                width = int(lengths[start : start + 32].max()) if trim else _CLIP_TOKENS
                given = torch.from_numpy(ids[start : start + 32, :width])
                mask = torch.from_numpy(np.arange(width) < lengths[start : start + 32, None]).long()
                found.append(model(input_ids=given, attention_mask=mask).text_embeds)
        return torch.nn.functional.normalize(torch.cat(found)).numpy()

    off = float(np.abs(encode(trim=True) - encode(trim=False)).max())
    if off > 1e-5:
        raise AssertionError(f"trimming changes the vectors by {off}")
    contest = Contest(
        {"trimmed": lambda: encode(trim=True), "padded": lambda: encode(trim=False)}, rounds=rounds
    )
    ratio = contest.ratio("trimmed", "padded")
    return [
        row(
            f"CLIP's text tower, {n} texts: trimmed against padded to {_CLIP_TOKENS}",
            ratio,
            "times as fast",
            against="padded",
            ratio=ratio,
            note=f"largest difference of a value {off:.1e}",
            **at_least(ratio, 2.0),
        )
    ]
