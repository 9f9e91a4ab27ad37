"""LLaVA and other image-text models in this process, through `transformers`.

Any checkpoint of `AutoModelForImageTextToText` with safetensors weights: LLaVA, LLaVA-NeXT, LLaVA-OneVision,
SmolVLM, Qwen-VL ... Given as a folder, or as the hub name of a model that was downloaded before. Nothing is
downloaded, no code of the model is run, and no pickle is read. Neither torchvision nor accelerate is needed:
`transformers` has Pillow versions of its picture processors and uses them if torchvision is missing. Only the
*video* processors of newer models have none; they are left out, since a video is sent as a sheet of its
frames.

Requests that wait at the same time share forward passes. Each row of a batch samples its tokens with its own
generator, seeded by its request. So an answer depends on the rest of its batch only through rounding: padding
and batch size change the last bits, which may swap two nearly equal tokens. The tables do not depend on that:
every answer is in the ledger and is never made twice.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError, MissingDependencyError, RequestError, RunError
from data.show import shorten
from kb_builder.ask.request import Media, Reply, Request
from kb_builder.weights.identity import hash_weights

if TYPE_CHECKING:
    import torch
    from PIL import Image

INSTALL = "describer = \"llava\" needs transformers: pip install --editable '.[llava]' in this repository"
_EXAMPLES = "llava-hf/llava-1.5-7b-hf or HuggingFaceTB/SmolVLM-256M-Instruct"
# Seconds that an incomplete batch waits for pictures that are still being decoded.
LINGER_S = 0.02

logger = logging.getLogger(__name__)

LoadPicture = Callable[[Media], tuple[str, bytes]]  # media -> (MIME type, the file's bytes)


@dataclass(frozen=True, slots=True)
class _VisionQuestion:
    """A request with its decoded pictures."""

    request: Request
    text: str
    pictures: tuple[Image.Image, ...]


@dataclass(frozen=True)
class _Loaded:
    model: Any
    processor: Any
    stop_ids: frozenset[int]


class LlavaDescriber:
    """The `Describer` behind `describer = "llava"`. The model is loaded at the first request.

    Raises InputError for a missing model and MissingDependencyError without `transformers`. `answer` raises
    RunError for a model that cannot be loaded or does not fit into memory.
    """

    provider = "llava"
    source = "local"

    def __init__(self, *, model: str, load: LoadPicture, batch_size: int, device: str = "auto") -> None:
        self._folder = model_folder(model)
        self.model = self._folder.name if Path(model).is_dir() else model
        self.endpoint = f"llava:{self.model}@{hash_weights(self._folder)}"
        self._load_picture = load
        self.concurrency = 2 * batch_size  # pictures of the next batch are decoded during inference
        self._batch_size = batch_size  # halved when memory runs out
        self._device = device
        self._loaded: _Loaded | None = None
        self._waiting: deque[tuple[_VisionQuestion, asyncio.Future[Reply]]] = deque()
        self._batches: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llava")

    async def answer(self, request: Request) -> Reply:
        """A chat completion, after a batch with this request has run. Raises SampleError for its file."""
        question = await asyncio.to_thread(self._question, request)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        if self._batches is None or self._batches.done():
            self._batches = asyncio.create_task(self._run_batches())
        return await answered

    async def close(self) -> None:
        """Cancel the batches and release the model."""
        if self._batches is not None:
            self._batches.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self._loaded = None

    def _question(self, request: Request) -> _VisionQuestion:
        if request.extra:
            raise RequestError(f"an image-text model takes no {', '.join(sorted(request.extra))}")
        pictures: list[Image.Image] = []
        texts: list[str] = []  # the system message comes first: not every chat template knows that role
        for _, content in request.messages:
            for part in (content,) if isinstance(content, str) else content:
                if isinstance(part, str):
                    texts.append(part)
                else:
                    pictures.append(_open(self._load_picture(part)[1]))
        return _VisionQuestion(request, "\n\n".join(texts), tuple(pictures))

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if len(self._waiting) < self._batch_size:
                await asyncio.sleep(LINGER_S)
            batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
            wanted = [(question, answered) for question, answered in batch if not answered.done()]
            try:
                replies = await loop.run_in_executor(self._thread, self._infer, [q for q, _ in wanted])
            except Exception as error:
                for _, answered in wanted:
                    if not answered.done():
                        answered.set_exception(error)
            else:
                for (_, answered), reply in zip(wanted, replies, strict=True):
                    if not answered.done():
                        answered.set_result(reply)

    def _infer(self, questions: Sequence[_VisionQuestion]) -> list[Reply]:
        """Answer a batch; in smaller batches if memory runs out."""
        import torch

        if self._loaded is None:
            self._loaded = load_model(self._folder, device=self._device)
        replies: list[Reply] = []
        while len(replies) < len(questions):
            batch = questions[len(replies) : len(replies) + self._batch_size]
            try:
                replies += _generate(self._loaded, batch, model=self.model)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise RunError(
                        f"{self.model}: memory does not suffice for one sample; lower `max_side` or "
                        '`max_tokens`, set device = "cpu", or name a smaller model'
                    ) from None
                self._batch_size = len(batch) // 2
                logger.warning("out of memory: continuing with %d samples per batch", self._batch_size)
                torch.cuda.empty_cache()
        return replies


def model_folder(model: str) -> Path:
    """The folder of a model: itself, or that of a model downloaded before. Raises InputError."""
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingDependencyError(INSTALL) from None
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise InputError(
            f"model {model!r} is neither a folder nor a model that was downloaded before; "
            f"to fetch one from the hub: hf download {model}"
        ) from None


def load_model(folder: Path, *, device: str) -> _Loaded:
    """The model in evaluation mode: bfloat16 (float16 on older cards) on a GPU, float32 on a CPU.

    `device` is a torch device, or `auto`: a CUDA GPU if there is one, else the CPU. Raises RunError for a
    model of another kind, and for one that cannot be loaded.
    """
    try:
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    except ImportError:
        raise MissingDependencyError(INSTALL) from None
    transformers.utils.logging.disable_progress_bar()  # of loading weights; the stage has its own bar
    where = _device(device)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise RunError(
                f"{folder}: a {config.model_type!r} model does not write texts about pictures; "
                f"name an image-text model, such as {_EXAMPLES}"
            )
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=_dtype(where), use_safetensors=True, local_files_only=True
        )
        processor = load_processor(folder, config)
        model = model.to(where).eval().requires_grad_(False)
    except RunError:
        raise
    except Exception as error:  # a damaged or foreign checkpoint can raise anything
        reason = shorten(str(error)) or type(error).__name__
        raise RunError(f"the model in {folder} cannot be loaded: {reason}") from error
    if processor.chat_template is None:
        raise RunError(f"{folder}: has no chat template; use a checkpoint with chat_template.jinja")
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"  # generation continues after the last token of every row
    # Tokens are sampled by `_draw`, row by row; other settings of the checkpoint (penalties) stay.
    settings = model.generation_config
    settings.do_sample = False
    settings.temperature = settings.top_p = settings.top_k = settings.min_p = settings.typical_p = None
    settings.pad_token_id = tokenizer.pad_token_id
    stop = settings.eos_token_id if settings.eos_token_id is not None else tokenizer.eos_token_id
    return _Loaded(model, processor, frozenset(stop if isinstance(stop, list) else [stop]))


def load_processor(folder: Path, config: Any) -> Any:
    """The model's processor, without its video part if that needs torchvision, which is missing."""
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except ImportError:
        whole = PROCESSOR_MAPPING.get(type(config), None)
        if whole is None or "video_processor" not in whole.get_attributes():
            raise
    halves = [name for name in whole.get_attributes() if name != "video_processor"]
    pictures_only = type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda cls: halves)})
    return pictures_only.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"device = {name!r} cannot be used: {shorten(str(error), 120)}") from None


def _dtype(device: torch.device) -> torch.dtype:
    import torch

    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _open(content: bytes) -> Image.Image:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGB")


def _generate(loaded: _Loaded, questions: Sequence[_VisionQuestion], *, model: str) -> list[Reply]:
    """Run one batch through the model."""
    import torch

    inputs = _inputs(loaded, questions)
    prompt_lengths_B = inputs["attention_mask"].sum(dim=1).tolist()
    limits = [question.request.max_tokens or 256 for question in questions]
    with torch.inference_mode():
        tokens_BT = loaded.model.generate(
            **inputs,
            max_new_tokens=max(limits),
            logits_processor=[_draw([question.request for question in questions])],
        )
    new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :].tolist()
    return [
        _reply(loaded, question.request, row_T[:limit], prompt_tokens=prompt, model=model)
        for question, row_T, limit, prompt in zip(questions, new_BT, limits, prompt_lengths_B, strict=True)
    ]


def _inputs(loaded: _Loaded, questions: Sequence[_VisionQuestion]) -> Any:
    """The batch as tensors on the model's device, padded on the left."""
    chats = [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": picture} for picture in question.pictures),
                    {"type": "text", "text": question.text},
                ],
            }
        ]
        for question in questions
    ]
    inputs = loaded.processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )
    return inputs.to(loaded.model.device, dtype=loaded.model.dtype)


def _draw(requests: Sequence[Request]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Turn the greedy choice of `generate` into sampling, for every row with its request's seed.

    The largest of (logit / temperature + Gumbel noise) is a draw from the softmax (Maddison, Tarlow and
    Minka, "A* Sampling", 2014, section 2). `top_p` keeps the likeliest tokens that together have that
    probability (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020). Temperature 0 stays
    greedy.
    """
    import torch

    generators = [torch.Generator().manual_seed(request.seed or 0) for request in requests]

    def draw(tokens_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        drawn_BV = scores_BV.float().cpu()
        for logits_V, request, generator in zip(drawn_BV, requests, generators, strict=True):
            temperature = 1.0 if request.temperature is None else request.temperature
            if temperature == 0.0:
                continue
            logits_V /= temperature
            if request.top_p is not None and request.top_p < 1.0:
                likely_V, order_V = logits_V.softmax(0).sort(descending=True)
                before_V = likely_V.cumsum(0) - likely_V  # the likeliest token always stays
                logits_V[order_V[before_V >= request.top_p]] = -torch.inf
            logits_V -= torch.empty_like(logits_V).exponential_(generator=generator).log()
        return drawn_BV.to(scores_BV.device)

    return draw


def _reply(loaded: _Loaded, request: Request, row_T: list[int], *, prompt_tokens: int, model: str) -> Reply:
    """A chat completion as a server would send it."""
    ends = [place for place, token in enumerate(row_T) if token in loaded.stop_ids]
    words_T = row_T[: ends[0]] if ends else row_T
    text = loaded.processor.tokenizer.decode(words_T, skip_special_tokens=True)
    body = {
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop" if ends else "length",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(words_T) + bool(ends)},
    }
    return Reply(json.dumps(body))
