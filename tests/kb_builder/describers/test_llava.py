"""kb_builder.describers.llava: tiny models with random weights, made on disk and loaded as a user would."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from data.errors import InputError, RequestError, RunError, SampleError
from kb_builder.ask.request import Media, Request, request_key
from kb_builder.describers import llava
from kb_builder.describers.llava import LlavaDescriber, load_model, model_folder
from kb_builder.parse.answers import read_answer

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GRID = [[32, 64], [64, 32], [64, 64]]
SIDE = {"height": 32, "width": 32}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs learned from three sentences; every byte is a token, so any text can be read."""
    pairs = Tokenizer(models.BPE(unk_token="<unk>"))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    said = ["A red ball lies on a table.", "Describe the picture in one sentence.", "The dog runs."]
    pairs.train_from_iterator(said, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=TEMPLATE,
    )


def text_sizes(size: int) -> dict[str, int]:
    return {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }


def save_llava(folder: Path) -> None:
    """LLaVA: a CLIP tower and a Llama."""
    words = tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=LlamaConfig(**text_sizes(len(words))),
        image_token_index=4,
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDE),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def save_llava_next(folder: Path) -> None:
    """LLaVA-NeXT: the same, looking at a picture in tiles."""
    words = tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=LlamaConfig(**text_sizes(len(words))),
        image_token_index=4,
        image_seq_length=16,
        image_grid_pinpoints=GRID,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDE, image_grid_pinpoints=GRID),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def save_llava_onevision(folder: Path) -> None:
    """LLaVA-OneVision: a SigLIP tower and a Qwen2. Its processor cannot be made here as a whole: half of it
    reads videos and needs torchvision. So its files are written one by one, as they lie on the hub."""
    words = tokenizer()
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(**text_sizes(len(words))),
        image_token_index=4,
        video_token_index=5,
        image_grid_pinpoints=GRID,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=GRID).save_pretrained(folder)
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
        "image_token": "<image>",
        "video_token": "<video>",
    }
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": SIDE}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video), encoding="utf-8")


FAMILIES: dict[str, Callable[[Path], None]] = {
    "llava": save_llava,
    "llava-next": save_llava_next,
    "llava-onevision": save_llava_onevision,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint of each family."""
    torch.manual_seed(0)
    made = {}
    for name, save in FAMILIES.items():
        made[name] = tmp_path_factory.mktemp("models") / name
        save(made[name])
    return made


def picture(media: Media) -> tuple[str, bytes]:
    """A picture whose look follows from the medium's hash."""
    noise = np.random.default_rng(int(media.sha256, 16)).integers(0, 256, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return "image/png", file.getvalue()


def request(
    describer: LlavaDescriber,
    index: int,
    *,
    look: int | None = None,
    temperature: float = 0.9,
    words: str = "Describe the picture",
    max_tokens: int = 8,
) -> Request:
    media = Media("image", f"{index if look is None else look:x}", "{}")
    return Request(
        endpoint=describer.endpoint,
        model=describer.model,
        messages=(("system", "Be plain."), ("user", (media, f"{words}{' please' * index}."))),
        temperature=temperature,
        top_p=0.95,
        max_tokens=max_tokens,
        seed=index,
        sample_index=index,
    )


def describer(folder: Path, batch_size: int = 4) -> LlavaDescriber:
    return LlavaDescriber(model=str(folder), load=picture, batch_size=batch_size, device="cpu")


def ask(made: LlavaDescriber, requests: list[Request]) -> list[str]:
    async def together() -> list[str]:
        try:
            return [reply.body for reply in await asyncio.gather(*map(made.answer, requests))]
        finally:
            await made.close()

    return asyncio.run(together())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_from_disk_answers(folders: dict[str, Path], family: str) -> None:
    """Each family loads without torchvision and answers as a chat endpoint would, tokens counted."""
    made = describer(folders[family])
    bodies = ask(made, [request(made, index) for index in range(3)])
    for index, body in enumerate(bodies):
        answer = read_answer(body)
        assert answer.model == family
        assert answer.finish_reason in {"stop", "length"}
        assert answer.completion_tokens is not None
        assert 1 <= answer.completion_tokens <= 8
        assert answer.prompt_tokens is not None
        # A byte-pair tokenizer of three sentences: about a token a letter, and at least 16 for the picture.
        assert answer.prompt_tokens > 16 + index


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_mates_change_nothing(folders: dict[str, Path], family: str) -> None:
    """Each request has its own seed: alone or among others, drawn or greedy, the answer is the same."""
    made = describer(folders[family], batch_size=5)
    requests = [request(made, index, temperature=0.0 if index == 2 else 1.0) for index in range(5)]
    together = ask(made, requests)
    assert len(set(together)) == 5
    for index in (2, 4):
        alone = describer(folders[family], batch_size=1)
        assert ask(alone, [requests[index]]) == [together[index]]


def test_requests_share_forward_passes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten requests in batches of four are three or four calls of the model, padded on the left."""
    sizes: list[int] = []
    generate = llava._generate

    def counted(loaded: Any, questions: Any, *, model: str) -> Any:
        sizes.append(len(questions))
        inputs = llava._inputs(loaded, questions)
        assert bool((inputs["attention_mask"][:, -1] == 1).all())
        return generate(loaded, questions, model=model)

    monkeypatch.setattr(llava, "_generate", counted)
    made = describer(folders["llava"])
    assert len(ask(made, [request(made, index) for index in range(10)])) == 10
    assert sum(sizes) == 10
    assert max(sizes) == 4
    assert len(sizes) <= 4


def test_the_picture_is_looked_at(folders: dict[str, Path]) -> None:
    """Another picture under the same question gives other logits; the same one gives the same."""
    loaded = load_model(folders["llava"], device="cpu")
    made = describer(folders["llava"])
    logits = []
    for look in (1, 2, 1):
        question = made._question(request(made, 0, look=look))
        with torch.inference_mode():
            logits.append(loaded.model(**llava._inputs(loaded, [question])).logits[0, -1])
    assert torch.equal(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_drawing_follows_the_probabilities() -> None:
    """Gumbel noise draws from the softmax at that temperature, within `top_p`; temperature 0 stays greedy."""
    logits_V = torch.tensor([2.0, 1.0, 0.0, -3.0])
    base = Request("e", "m", (), 0.7, 1.0, 8, 0, 0)
    counts = torch.zeros(4)
    draw = llava._draw([base])
    for _ in range(4000):
        counts[draw(torch.zeros(1, 1), logits_V[None].clone()).argmax()] += 1
    expected = (logits_V / 0.7).softmax(0)
    assert (counts / 4000 - expected).abs().max() < 0.03
    narrow = llava._draw([Request("e", "m", (), 1.0, 0.8, 8, 0, 0)])
    drawn = {int(narrow(torch.zeros(1, 1), logits_V[None].clone()).argmax()) for _ in range(500)}
    assert drawn == {0, 1}  # 0.64 and 0.24: the second passes the 0.8
    greedy = llava._draw([Request("e", "m", (), 0.0, 0.8, 8, 0, 0)])
    assert torch.equal(greedy(torch.zeros(1, 1), logits_V[None]), logits_V[None])


def test_each_row_stops_at_its_own_limit(folders: dict[str, Path]) -> None:
    """In one batch, a request of 3 tokens gets 3 at most, whatever its mates may use."""
    made = describer(folders["llava"])
    short, long = ask(made, [request(made, 1, max_tokens=3), request(made, 2, max_tokens=12)])
    assert read_answer(short).completion_tokens == 3
    assert (read_answer(long).completion_tokens or 0) > 3


def test_little_memory_makes_smaller_batches(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a batch does not fit, half of it is tried, and later batches stay small; nothing is lost."""
    generate = llava._generate
    sizes: list[int] = []

    def cramped(loaded: Any, questions: Any, *, model: str) -> Any:
        sizes.append(len(questions))
        if len(questions) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(loaded, questions, model=model)

    monkeypatch.setattr(llava, "_generate", cramped)
    made = describer(folders["llava"], batch_size=8)
    requests = [request(made, index) for index in range(8)]
    bodies = ask(made, requests)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert "2 samples per batch" in caplog.text
    monkeypatch.setattr(llava, "_generate", generate)
    assert ask(describer(folders["llava"], batch_size=8), requests) == bodies


def test_memory_for_not_even_one_sample(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the run stops with what to change."""

    def cramped(loaded: Any, questions: Any, *, model: str) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(llava, "_generate", cramped)
    made = describer(folders["llava"])
    with pytest.raises(RunError, match="lower `max_side`"):
        ask(made, [request(made, 0)])


def test_an_unreadable_picture_is_its_own_requests_error(folders: dict[str, Path]) -> None:
    """The others in the batch are answered."""

    def load(media: Media) -> tuple[str, bytes]:
        if media.sha256 == "1":
            raise SampleError("1.png: torn")
        return picture(media)

    async def together() -> list[Any]:
        made = LlavaDescriber(model=str(folders["llava"]), load=load, batch_size=4, device="cpu")
        try:
            asked = [made.answer(request(made, index)) for index in range(3)]
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await made.close()

    first, torn, last = asyncio.run(together())
    assert isinstance(torn, SampleError)
    assert read_answer(first.body).text is not None or read_answer(last.body).text is not None


def test_the_key_knows_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    """A copy elsewhere is the same model, other weights are another one."""
    first = describer(folders["llava"])
    copy = tmp_path / "llava"
    save_llava(copy)  # other random weights under the same name
    other = describer(copy)
    assert first.model == other.model == "llava"
    assert first.endpoint.startswith("llava:llava@")
    assert request_key(request(first, 0)) != request_key(request(other, 0))
    for path in folders["llava"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert describer(copy).endpoint == first.endpoint


def test_models_that_cannot_be_used(folders: dict[str, Path], tmp_path: Path) -> None:
    """A name that is nowhere, a text model, a torn file, pickled weights, a device: one line each."""
    with pytest.raises(InputError, match="hf download nobody/nothing"):
        model_folder("nobody/nothing")
    text = tmp_path / "text"
    LlamaConfig(**text_sizes(300)).save_pretrained(text)
    with pytest.raises(InputError, match="pickle"):
        describer(text)
    with pytest.raises(RunError, match="'llama' model does not write texts about pictures"):
        load_model(text, device="cpu")
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in folders["llava"].iterdir():
        (torn / path.name).write_bytes(path.read_bytes())
    (torn / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="cannot be loaded"):
        load_model(torn, device="cpu")
    with pytest.raises(RunError, match="device = 'warp'"):
        load_model(folders["llava"], device="warp")
    untold = tmp_path / "untold"
    untold.mkdir()
    for path in folders["llava"].iterdir():
        if path.name != "chat_template.jinja":
            (untold / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunError, match="chat template"):
        load_model(untold, device="cpu")


def test_fields_of_other_servers_are_refused(folders: dict[str, Path]) -> None:
    """Nothing that was asked for is dropped in silence."""
    made = describer(folders["llava"])
    asked = request(made, 0)
    with pytest.raises(RequestError, match="min_p"):
        made._question(Request(**{f: getattr(asked, f) for f in asked.__slots__} | {"extra": {"min_p": 1}}))
