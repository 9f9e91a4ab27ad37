"""A small chat-completions server on loopback: deterministic answers, scripted faults, a request count."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import tifffile
from PIL import Image

from data.files import hash_json, hash_text, write_json
from data.manifest.read import Manifest
from data.modality import Modality
from data.sample import Category, Sample
from kb_builder.ask.ledger import Entry, new_entry, open_ledger
from kb_builder.ask.request import Request
from kb_builder.describe.rows import JudgedText, RowOrigin, RowQuestion, description_row
from kb_builder.describers.fake import fake_answer
from kb_builder.encoders.tokens import count_tokens
from kb_builder.gates.verdict import Verdict
from kb_builder.store.table import write_vectors
from kb_builder.tables.controls import write_controls
from kb_builder.tables.ingest import ingest
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import (
    CATEGORIES,
    CENTERS,
    DESCRIPTIONS,
    GIVEN_DESCRIPTIONS,
    REJECTS,
    SAMPLES,
    write_table,
)
from tests.planted import write_categories

KEY = "sk-planted-0123456789"

Fault = dict[str, Any]  # status, body, headers, hang (seconds)


class ChatServer:
    """`script(body, nth)` names the fault of the nth request of that body (from 1), or None for an answer."""

    def __init__(self, script: Callable[[dict[str, Any], int], Fault | None], delay: float) -> None:
        self.script = script
        self.delay = delay
        self.seen: Counter[int] = Counter()  # by seed: every request has its own
        self.answered: Counter[int] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.guard = threading.Lock()
        self.url = ""

    def reply(self, raw: bytes, authorization: str) -> tuple[int, dict[str, str], bytes]:
        body = json.loads(raw)
        seed = body["seed"]
        with self.guard:
            self.seen[seed] += 1
            nth = self.seen[seed]
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            time.sleep(self.delay)
            if authorization != f"Bearer {KEY}":
                message = f"Incorrect API key provided: {authorization.removeprefix('Bearer ')}"
                return (
                    401,
                    {},
                    json.dumps({"error": {"message": message, "code": "invalid_api_key"}}).encode(),
                )
            fault = self.script(body, nth)
            if fault is None:
                messages = tuple((m["role"], m["content"]) for m in body["messages"])
                answer = json.dumps(fake_answer(messages, hash_json(body), model=body["model"])).encode()
                with self.guard:
                    self.answered[seed] += 1
                return 200, {}, answer
            time.sleep(fault.get("hang", 0.0))
            content = fault.get("body", {"error": {"message": "scripted"}})
            text = content if isinstance(content, str) else json.dumps(content)
            return fault.get("status", 200), fault.get("headers", {}), text.encode()
        finally:
            with self.guard:
                self.in_flight -= 1


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ChatServer]]:
    """Start servers on free loopback ports; they run until the test ends. OPENAI_API_KEY is right."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ExitStack() as servers:
        yield lambda script=lambda body, nth: None, delay=0.0: servers.enter_context(_serve(script, delay))


@contextmanager
def _serve(script: Callable[[dict[str, Any], int], Fault | None], delay: float) -> Iterator[ChatServer]:
    chat = ChatServer(script, delay)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            status, headers, payload = chat.reply(raw, self.headers.get("authorization", ""))
            try:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was killed or has given up

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            return  # a client that was killed in the middle of a request

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def run_on_real_files(real_files: Path) -> Callable[[str, Path], dict[str, Any]]:
    """`run(script, folder)`: a script in a process of its own, given the folder and real files by modality.

    What it prints as JSON, `peak` bytes of memory among it.
    """

    def run(script: str, folder: Path) -> dict[str, Any]:
        files = {
            "image": "image_dog.jpg",
            "video": "video_education.mp4",
            "audio": "audio_airplane.wav",
            "thermal": "thermal_people.jpg",
            "event": "event_gerenuk.png",
            "point": "point_airplane.pt",
        }
        given = json.dumps({modality: str(real_files / file) for modality, file in files.items()})
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), given],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        told: dict[str, Any] = json.loads(done.stdout)
        print(f"\npeak memory {told['peak'] / 2**30:.1f} GiB")
        return told

    return run


@pytest.fixture
def described_kb(tmp_path: Path) -> Path:
    """A knowledge base of three categories and three samples, as stage 1 would leave it, without running it.

    `ball` and `bell`: an answer of four texts (one of them a near duplicate, one an exact one), an answer of
    one text, and a request that failed. `bell` has a contrast part that repeats its texts. Two answers of
    earlier settings are in the ledger. Of the samples, one was measured, one given, one rejected.
    """
    kb = tmp_path / "kb"
    write_categories(kb, {"ball": "ball", "bell": "bell"})
    samples = [
        {
            "sample_id": name,
            "object_id": None,
            "modality": "image",
            "uri": f"{name}.png",
            "category_id": "ball",
            "split": "train",
            "sha256": hash_text(name),
            "bytes": 7,
        }
        for name in ("measured", "given", "torn")
    ]
    write_table(kb / "samples.parquet", samples, SAMPLES)
    given = [{"sample_id": "given", "text": "A red ball on the grass."}]
    write_table(kb / "given_descriptions.parquet", given, GIVEN_DESCRIPTIONS)
    rejects = [{"sample_id": "torn", "stage": "describe", "reason": "torn.png: ends early"}]
    write_table(kb / "rejects" / "describe-00000.parquet", rejects, REJECTS)
    asked = {
        "ball": _answers("ball"),
        "bell": _answers("bell"),
        "contrast": _answers("bell", " not ball")[:1],
    }

    async def record() -> None:
        async with open_ledger(kb) as ledger:
            for entry in [*chain(*asked.values()), *_answers("earlier")[:2]]:
                await ledger.submit(entry)

    asyncio.run(record())
    for number, name in enumerate(("ball", "bell")):
        rows = [row for entry in asked[name] for row in _rows_of(entry, name)]
        for row in rows[1:3]:
            row["dup_of"] = rows[0]["row_id"]
        write_part(kb, "category", f"part-{number:05d}", rows)
    again = _rows_of(asked["contrast"][0], "bell")
    again[0]["status"] = "dup_exact"
    for row in again[:3]:
        row["dup_of"] = rows[0]["row_id"]
    write_part(kb, "category", "contrast-00000", again)
    measured = [("measured", "facts", "A plain picture in red."), ("given", "manifest", given[0]["text"])]
    write_part(kb, "sample", "part-00000", [_unasked(*each) for each in measured])
    return kb


def _answers(name: str, other: str = "") -> list[Entry]:
    """An answer of four texts, an answer of one, and a failure."""
    whole = f"The {name} is round and rolls away over the lawn."
    texts = [
        whole,
        f"The {name} is round and rolls away over the lawns.",
        whole.upper(),
        f"One {name} bounces.",
    ]
    several = {"response_format": {"type": "json_schema"}}
    asked = [
        (1, several, json.dumps({"descriptions": texts})),
        (2, {}, f"The {name} shines in the sun like a mirror."),
        (3, {}, None),
    ]
    return [
        new_entry(
            Request(
                endpoint="fake:",
                model="fake-1",
                messages=(("system", "Be brief."), ("user", f'Describe "{name}"{other}.')),
                temperature=0.5,
                top_p=None,
                max_tokens=40,
                seed=seed,
                sample_index=seed,
                extra=extra,
            ),
            provider="fake",
            source="fake",
            run_id="r",
            attempts=2,
            latency_ms=12.5,
            answer=None if content is None else json.dumps(_body(content)),
            error="status 400: no" if content is None else None,
            cost_usd=None if content is None else 0.004,
        )
        for seed, extra, content in asked
    ]


def _body(content: str) -> dict[str, Any]:
    return {
        "model": "fake-1-2026",
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 20},
    }


def _rows_of(entry: Entry, category: str) -> list[dict[str, Any]]:
    """What stage 1 writes of an entry, put together by hand."""
    request = json.loads(entry.request)
    if entry.answer is None:
        texts, statuses = [""], ["failed"]
    else:
        content = json.loads(entry.answer)["choices"][0]["message"]["content"]
        texts = json.loads(content)["descriptions"] if content.startswith("{") else [content]
        statuses = ["ok", "dup_near", "dup_exact", "boilerplate"] if len(texts) > 1 else ["ok"]
    reasons = {"failed": entry.error, "dup_near": "3-gram Jaccard 0.98", "boilerplate": "says no more"}
    question = RowQuestion(
        kind="category",
        subject_id=category,
        modality=None,
        template_id="t",
        template_version="1",
        aspect="sight",
        prompt_hash=hash_json(request["messages"]),
        request_key=entry.key,
    )
    origin = RowOrigin(
        provider=entry.provider,
        model_requested="fake-1",
        model_resolved="fake-1" if entry.answer is None else "fake-1-2026",
        temperature=0.5,
        max_tokens=40,
        seed=request["seed"],
        finish_reason="error" if entry.answer is None else "stop",
        prompt_tokens=None if entry.answer is None else 9,
        completion_tokens=None if entry.answer is None else 20,
        attempts=2,
        latency_ms=12.5,
        created_at=entry.time,
        source="fake",
        run_id="r",
    )
    return [
        description_row(
            question,
            origin,
            JudgedText(
                text,
                count_tokens([text])[0],
                Verdict(status, reason=reasons.get(status)),
                item=item,
                cost_usd=None if entry.cost_usd is None else entry.cost_usd / len(texts),
            ),
        )
        for item, (text, status) in enumerate(zip(texts, statuses, strict=True))
    ]


def _unasked(sample: str, source: str, text: str) -> dict[str, Any]:
    provider, model = ("unibind", "facts-1") if source == "facts" else ("manifest", "given")
    question = RowQuestion(
        kind="sample",
        subject_id=sample,
        modality="image",
        template_id=source,
        template_version="1",
        prompt_hash="0" * 64,
        request_key=hash_json([provider, model, sample, hash_text(sample), text]),
    )
    origin = RowOrigin(
        provider=provider,
        model_requested=model,
        model_resolved=model,
        finish_reason="stop",
        attempts=1,
        latency_ms=0.0,
        created_at=datetime(1970, 1, 1, tzinfo=UTC),
        source=source,
        run_id="r",
    )
    return description_row(question, origin, JudgedText(text, count_tokens([text])[0], Verdict("ok")))


@pytest.fixture
def sensor_files(tmp_path: Path) -> Path:
    """A folder with one small file of each modality, and an event picture that somebody else drew."""
    folder = tmp_path / "data"
    folder.mkdir()
    draw = np.random.default_rng(0)
    red_left = np.full((60, 90, 3), (200, 30, 30), np.uint8)
    red_left[:, 45:] = (30, 30, 200)
    Image.fromarray(red_left).save(folder / "photo.png")
    time_T = np.arange(16_000) / 16_000
    soundfile.write(folder / "tone.flac", 0.3 * np.sin(2 * np.pi * 440 * time_T), 16_000)
    ball_N3 = draw.normal(size=(2_000, 3))
    np.save(folder / "ball.npy", (ball_N3 / np.linalg.norm(ball_N3, axis=1)[:, None]).astype(np.float32))
    heat_HW = np.full((48, 64), 29_000, np.uint16)
    heat_HW[12:36, 16:48] = 31_000
    tifffile.imwrite(folder / "warm.tif", heat_HW, metadata={"unit": "kelvin", "scale": 0.01})
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            frame = np.full((48, 64, 3), 255, np.uint8)
            frame[:, 6 * number : 6 * number + 12] = (20, 120, 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    x_N, y_N = draw.integers(20, 60, 400), draw.integers(20, 50, 400)
    events = np.stack([x_N, y_N, np.arange(400) * 100, x_N > 40], axis=1)
    np.savez(folder / "events.npz", event_data=events.astype(np.int64))
    drawn = np.zeros((40, 30, 3), np.uint8)
    drawn[10:30, 10:20] = (0, 160, 160)
    Image.fromarray(drawn).save(folder / "drawn.png")
    (folder / "words.txt").write_text("A brass bell with a wooden handle.", encoding="utf-8")
    return folder


_SENSOR_SAMPLES: tuple[tuple[str, Modality, str], ...] = (
    ("drawn", "event", "drawn.png"),
    ("event", "event", "events.npz"),
    ("image", "image", "photo.png"),
    ("point", "point", "ball.npy"),
    ("sound", "audio", "tone.flac"),
    ("text", "text", "words.txt"),
    ("thermal", "thermal", "warm.tif"),
    ("video", "video", "clip.mp4"),
)


@pytest.fixture
def sensor_kb(sensor_files: Path) -> Path:
    """A knowledge base of `sensor_files`, with two categories; the files lie in `<kb>/../data`."""
    samples = tuple(Sample(name, modality, uri) for name, modality, uri in _SENSOR_SAMPLES)
    categories = (Category("bell", "brass bell"), Category("ball", "ball"))
    kb = sensor_files.parent / "kb"
    ingest(Manifest(sensor_files, samples, categories), kb)
    return kb


@pytest.fixture
def browsed_kb(tmp_path: Path) -> Path:
    """A knowledge base of two categories in a folder whose name is hostile to globs, quotes and terminals.

    Seven accepted texts, `A dog is number 0.` … `5.` and `A cat is small.`, whose vectors lie on a quarter of
    the unit circle, 10 degrees apart.
    """
    kb = tmp_path / "it's a=1 [k]*b?\x1b[31m"
    categories = [
        {"category_id": name, "name": name.upper(), "aliases": [f"{name}gy"], "parent": None, "notes": None}
        for name in ("cat", "dog")
    ]
    write_table(kb / "categories.parquet", categories, CATEGORIES)
    sample = {
        "sample_id": "s",
        "object_id": None,
        "modality": "image",
        "uri": "a.png",
        "category_id": "dog",
        "split": "test",
        "sha256": "0",
        "bytes": 1,
    }
    write_table(kb / "samples.parquet", [sample], SAMPLES)
    reject = {"sample_id": "t", "stage": "ingest", "reason": "t.png: no such file"}
    write_table(kb / "rejects" / "ingest.parquet", [reject], REJECTS)
    texts = [_text_row("dog", f"A dog is number {n}.") for n in range(6)]
    texts += [_text_row("cat", "A cat is small.")]
    refused = [_text_row("cat", "I cannot say \x1b[31m that.", "refusal")]
    folder = kb / "descriptions" / "category"
    write_table(folder / "part-00000.parquet", texts[:4], DESCRIPTIONS)
    write_table(folder / "part-00001.parquet", texts[4:] + refused, DESCRIPTIONS)
    encoder = kb / "embeddings" / "minilm-0123456789ab-float16"
    angle_N = np.deg2rad(10.0 * np.arange(len(texts)))
    write_vectors(
        encoder / "category_texts",
        ids=[row["row_id"] for row in texts],
        groups=[row["category_id"] for row in texts],
        contents=[hash_text(row["text"]) for row in texts],
        vectors_ND=np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float32),
        encoder="0123456789ab",
    )
    card = {"name": "minilm", "identity": "0123456789ab", "dim": 2, "dtype": "float16"}
    write_json(encoder / "encoder.json", {**card, "modalities": ["text"]})
    roles = {"text": encoder.name, "samples": None, "zero_shot": None}
    write_json(kb / "embeddings" / "encoders.json", roles)
    center = {
        "category_id": "dog",
        "rank": 0,
        "row_id": texts[0]["row_id"],
        "score": 0.5,
        "rule": "visual",
        "guided_by": "train",
        "encoder": "minilm",
    }
    write_table(kb / "centers.parquet", [center], CENTERS)
    write_controls(kb, count=2, seed=0)
    return kb


def _text_row(category_id: str, text: str, status: str = "ok") -> dict[str, Any]:
    question = RowQuestion(
        kind="category",
        subject_id=category_id,
        modality=None,
        template_id="t",
        template_version="1",
        prompt_hash="p",
        request_key=hash_text(text),
    )
    origin = RowOrigin(
        provider="local",
        model_requested="SmolLM2",
        model_resolved="SmolLM2",
        finish_reason="stop",
        attempts=1,
        latency_ms=1.0,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        source="local",
        run_id="test",
    )
    return description_row(question, origin, JudgedText(text, 5, Verdict(status)))
