"""kb_builder.ask.batch.files: what goes out and comes in of a batch, line by line."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.errors import (
    DescriberError,
    RequestError,
    RunError,
    SampleError,
    ThrottledError,
    TransientError,
)
from data.files import hash_file
from kb_builder.ask.batch.files import BatchFile, read_lines, read_result, write_file
from kb_builder.ask.request import Request, request_key
from kb_builder.describers.choose import openai_client
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.settings import DescribeSamples

ASKED = Request(
    endpoint="http://127.0.0.1:1/v1",
    model="fake-1",
    messages=(("system", "Be plain."), ("user", 'Describe a "café".')),
    temperature=0.5,
    top_p=None,
    max_tokens=40,
    seed=0,
    sample_index=0,
    extra={"response_format": {"type": "text"}},
)
BODY = {
    "model": "fake-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Ça va."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def numbered(*seeds: int) -> list[tuple[str, Request]]:
    """Requests whose lines are of one length, with their keys."""
    asked = [replace(ASKED, seed=100 + seed) for seed in seeds]
    return [(request_key(request), request) for request in asked]


def write(path: Path, requests: list[tuple[str, Request]], *, most_bytes: int, load: Any = None) -> BatchFile:
    client = openai_client(
        model="fake-1", base_url="http://127.0.0.1:1/v1", api_key_env="UNIBIND_NONE", load=load
    )
    return write_file(path, requests, client.body_for, most_bytes=most_bytes)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a batch file; each must end with its line feed."""
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


# --- on the way out ---------------------------------------------------------------------------------------


def test_a_line_is_the_request_and_its_key(tmp_path: Path) -> None:
    """One POST a line in the order asked, as the endpoint would get it online; the size is the file's."""
    asked = numbered(2, 0, 1)
    file = write(tmp_path / "b.jsonl", asked, most_bytes=10_000)
    assert file == BatchFile(tuple(key for key, _ in asked), {}, (), (tmp_path / "b.jsonl").stat().st_size)
    for line, (key, request) in zip(lines_of(tmp_path / "b.jsonl"), asked, strict=True):
        assert line == {
            "custom_id": key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "fake-1",
                "messages": [
                    {"role": "system", "content": "Be plain."},
                    {"role": "user", "content": 'Describe a "café".'},
                ],
                "temperature": 0.5,
                "max_tokens": 40,
                "seed": request.seed,
                "response_format": {"type": "text"},
            },
        }


def test_the_limit_cuts_between_two_lines(tmp_path: Path) -> None:
    """A file holds as many whole lines as its limit allows, to the byte; what is left out is not touched."""
    asked = numbered(*range(5))
    whole = write(tmp_path / "all.jsonl", asked, most_bytes=10_000).bytes
    line = whole // 5
    assert 5 * line == whole
    for most, count in ((3 * line, 3), (3 * line - 1, 2), (line, 1), (whole, 5)):
        file = write(tmp_path / "cut.jsonl", asked, most_bytes=most)
        assert file == BatchFile(tuple(key for key, _ in asked[:count]), {}, (), count * line)
        assert (tmp_path / "cut.jsonl").stat().st_size == file.bytes
        assert [each["custom_id"] for each in lines_of(tmp_path / "cut.jsonl")] == list(file.keys)


def test_a_request_that_no_file_can_hold_is_refused_alone(tmp_path: Path) -> None:
    """Its reason names both sizes; the shorter ones before and after it are in the file."""
    (first, one), (large, two), (last, three) = numbered(0, 1, 2)
    asked = [(first, one), (large, replace(two, messages=(("user", "x" * 2000),))), (last, three)]
    file = write(tmp_path / "b.jsonl", asked, most_bytes=1500)
    assert file.keys == (first, last)
    assert list(file.refused) == [large]
    assert file.refused[large].endswith("bytes, a batch file holds 1500")
    assert [each["custom_id"] for each in lines_of(tmp_path / "b.jsonl")] == [first, last]
    nothing = write(tmp_path / "b.jsonl", asked, most_bytes=10)
    assert (nothing.keys, nothing.bytes, set(nothing.refused)) == ((), 0, {first, large, last})
    assert lines_of(tmp_path / "b.jsonl") == []


def test_media_are_read_as_their_line_is_written(sensor_files: Path) -> None:
    """A picture becomes a data URL; a file that cannot be read is left out, and is no refusal."""
    settings = DescribeSamples(describer="openai", model="fake-1")
    uris = {"photo.png": "image", "warm.tif": "thermal", "drawn.png": "event"}
    contents = {uri: hash_file(sensor_files / uri) for uri in uris}
    asked = []
    for uri, modality in uris.items():
        media = media_for({"modality": modality, "uri": uri, "sha256": contents[uri]}, settings)
        request = replace(ASKED, messages=(("user", (*media, "What is it?")),))
        asked.append((request_key(request), request))
    files = MediaFiles(sensor_files, [(sha256, uri) for uri, sha256 in contents.items()])
    (sensor_files / "warm.tif").unlink()
    path = sensor_files / "b.jsonl"
    file = write(path, asked, most_bytes=1_000_000, load=files.part)
    photo, warm, drawn = (key for key, _ in asked)
    assert (file.keys, file.unreadable, file.refused) == ((photo, drawn), (warm,), {})
    sizes = []
    for line in lines_of(path):
        part, words = line["body"]["messages"][0]["content"]
        assert words == {"type": "text", "text": "What is it?"}
        data = part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            sizes.append(picture.size)
    assert sizes == [(448, 299), (336, 448)]
    assert "warm.tif: No such file" in next(iter(files.unreadable.values()))


def test_no_more_media_are_read_than_the_file_takes(tmp_path: Path) -> None:
    """The first line beyond the limit ends the reading; a request that cannot be made up is refused."""
    read = []

    def body_for(request: Request) -> dict[str, Any]:
        read.append(request.seed)
        if request.seed == 101:
            raise SampleError("gone.png: no such file")
        if request.seed == 102:
            raise RequestError("takes no such field")
        return {"data": "x" * 500}

    asked = numbered(0, 1, 2, 3, 4, 5)
    keys = [key for key, _ in asked]
    file = write_file(tmp_path / "b.jsonl", iter(asked), body_for, most_bytes=1500)
    assert file.keys == (keys[0], keys[3])
    assert file.unreadable == (keys[1],)
    assert file.refused == {keys[2]: "takes no such field"}
    assert read == [100, 101, 102, 103, 104]


# --- on the way in ----------------------------------------------------------------------------------------


def result(status: Any = 200, body: Any = BODY, **line: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return {"custom_id": "k", "response": response, "error": None, **line}


def refusal(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": "invalid_request_error"}}


def test_an_answer_is_its_body() -> None:
    """What a result of status 200 holds is the chat completion, whatever letters are in it."""
    assert json.loads(read_result(result(), where="batch b")) == BODY


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (
            result(response=None, error={"code": "batch_expired", "message": "could not\nbe executed"}),
            TransientError,
            "batch b: batch_expired: could not be executed",
        ),
        (result(response=None), TransientError, "neither response nor error"),
        ({"custom_id": "k"}, TransientError, "neither response nor error"),
        (result(500, refusal("had an error")), TransientError, "batch b: status 500: had an error"),
        (result(None, "torn"), TransientError, "status None: torn"),
        (result(408, None), TransientError, "status 408: None"),
        (result(429, refusal("slow down")), ThrottledError, "status 429: slow down"),
        (result(429, refusal("paid up", "insufficient_quota")), RunError, "raise the account's quota"),
        (result(400, refusal("unsafe", "content_policy_violation")), RequestError, "status 400: unsafe"),
        (result(400, {"error": "only words"}), RequestError, "status 400: {'error': 'only words'}"),
        (result(401, refusal("wrong key")), RunError, "check the API key"),
        (result(404, refusal("no such model", "model_not_found")), RunError, "check `model`"),
        (result(200, {"error": {"message": "overloaded"}}), TransientError, "batch b: overloaded"),
        (result(200, {"error": {"message": "too long", "code": 400}}), RequestError, "batch b: too long"),
        (result(200, {"choices": []}), TransientError, "has no choices"),
        (result(200, {"choices": [{"index": 0}]}), TransientError, "has no message"),
        (result(200, "torn"), TransientError, "not a JSON object"),
        (result(200, None), TransientError, "not a JSON object"),
    ],
)
def test_what_is_no_answer_is_told_as_it_would_be_online(
    value: dict[str, Any], error: type[DescriberError], says: str
) -> None:
    """Expired, failed, throttled, refused, hopeless or empty: the class decides what becomes of it."""
    with pytest.raises(error) as caught:
        read_result(value, where="batch b")
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    """Each whole line counts, wherever a torn one stands; its request counts as not answered."""
    path = tmp_path / "results.jsonl"
    whole = [json.dumps(result(custom_id=name)).encode() for name in ("a", "b", "c")]
    torn = [
        whole[1][:60],
        b"",
        b"[1, 2]",
        b'"a"',
        b"null",
        b"{}",
        b'{"custom_id": 7}',
        b"\xff\xfe\x00broken",
        b"<html>502</html>",
    ]
    path.write_bytes(b"\n".join([whole[0], *torn, whole[1], whole[2][:-1]]))
    with path.open("rb") as file:
        found = list(read_lines(file))
    assert [key for key, _ in found] == ["a", "b"]
    assert all(json.loads(read_result(value, where="b")) == BODY for _, value in found)


def test_the_last_line_needs_no_line_feed(tmp_path: Path) -> None:
    """A results file that ends without one loses nothing."""
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(result(custom_id="a")) + "\r\n" + json.dumps(result(custom_id="b")))
    with path.open("rb") as file:
        assert [key for key, _ in read_lines(file)] == ["a", "b"]
