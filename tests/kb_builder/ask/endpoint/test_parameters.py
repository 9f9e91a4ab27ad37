"""How parameters are sent: presets, the project's own words, and what refusals advise."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

import pytest

from kb_builder.ask.endpoint.parameters import (
    Shape,
    body_of,
    changes_line,
    presets,
    remedy,
    shape_for,
    shaped,
)
from kb_builder.ask.request import Request, asks_for_list, request_from_json, request_json, request_key
from kb_builder.describe.prompts import several_texts
from kb_builder.settings import PARAMETERS, Asking, DescribeCategories, Parameters

HERE = "http://127.0.0.1:8000/v1"
AZURE = "https://x.openai.azure.com/openai/v1"
OPENAI = "https://api.openai.com/v1"
REQUEST = Request(
    endpoint=HERE,
    model="m",
    messages=(("user", "Describe the dog."),),
    temperature=0.9,
    top_p=0.95,
    max_tokens=40,
    seed=7,
    sample_index=0,
    extra={"response_format": several_texts(3)},
)
MESSAGES = [{"role": "user", "content": "Describe the dog."}]


def sent(parameters: Parameters | None, *, endpoint: str = HERE, model: str = "m") -> dict[str, Any]:
    """The body that is sent by these settings, without model and messages."""
    settings = Asking(model=model, parameters=parameters)
    request = replace(REQUEST, endpoint=endpoint, model=model)
    body = body_of(shaped(request, shape_for(settings, endpoint=endpoint, model=model)), MESSAGES)
    assert (body.pop("model"), body.pop("messages")) == (model, MESSAGES)
    return body


def test_the_usual_request_keeps_its_key() -> None:
    """The key of a request of today's ledgers, as it was computed before parameters could be renamed."""
    request = replace(REQUEST, extra={})
    assert request_key(request) == "8ff76438ee1ce3da81ea618c26aaf9c4e04a2718d5d7f94c3c1d65a122cb5a49"
    assert request_key(REQUEST) == "49834103552e2bdbc12b3c98863828b0015be57e7888cc6b46f50fb0d785f0fa"
    assert "names" not in json.loads(request_json(request))
    assert shaped(request, Shape()) is request
    same = Parameters(top_p="top_p", max_tokens="max_tokens", extra={})
    assert shape_for(Asking(parameters=same), endpoint=HERE, model="m") == Shape()
    openai = Asking(parameters=Parameters(max_tokens="max_completion_tokens"))
    assert shape_for(openai, endpoint=OPENAI, model="gpt-4.1") == Shape()  # OpenAI is sent that name anyway


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_can_be_left_out_or_renamed(name: str) -> None:
    """Exactly that field of the body is gone, or has another name; each is another request."""
    usual = sent(None)
    assert set(usual) == set(PARAMETERS)
    off = Parameters(**{name: "off"})
    assert sent(off) == {key: value for key, value in usual.items() if key != name}
    renamed = Parameters(**{name: "another_name"})
    assert sent(renamed) == {("another_name" if key == name else key): value for key, value in usual.items()}
    keys = {
        request_key(shaped(REQUEST, shape_for(Asking(parameters=each), endpoint=HERE, model="m")))
        for each in (None, off, renamed)
    }
    assert len(keys) == 3


def test_more_can_be_added() -> None:
    """Beside the usual fields, nested values too."""
    extra = {"reasoning_effort": "low", "provider": {"order": ["a", "b"]}}
    assert sent(Parameters(extra=extra)) == sent(None) | extra


def test_a_list_is_known_as_one_without_its_schema() -> None:
    """`kb verify` reads from the stored request whether several texts were asked for."""
    for parameters in (
        None,
        Parameters(response_format="off"),
        Parameters(response_format="format"),
        Parameters(response_format="off", extra={"response_format": {"type": "json_object"}}),
    ):
        shape = shape_for(Asking(parameters=parameters), endpoint=HERE, model="m")
        request = shaped(REQUEST, shape)
        assert asks_for_list(json.loads(request_json(request)))
        assert request_from_json(request_json(request)) == request
        alone = shaped(replace(REQUEST, extra={}), shape)
        assert not asks_for_list(json.loads(request_json(alone)))
    assert body_of(request, MESSAGES)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("endpoint", "model", "gone", "names"),
    [
        (OPENAI, "o3-mini", {"temperature", "top_p"}, {"max_completion_tokens"}),
        (OPENAI, "gpt-5-mini", {"temperature", "top_p"}, {"max_completion_tokens"}),
        (OPENAI, "gpt-5-chat-latest", set(), {"max_completion_tokens"}),
        (OPENAI, "gpt-4.1-mini", set(), {"max_completion_tokens"}),
        (OPENAI, "gpt-5.1", set(), {"max_completion_tokens"}),
        (
            "https://x.openai.azure.com/openai/v1",
            "o4-mini",
            {"temperature", "top_p"},
            {"max_completion_tokens"},
        ),
        (AZURE, "gpt-4o", set(), {"max_tokens"}),
        ("https://api.mistral.ai/v1", "mistral-small-latest", {"seed"}, {"random_seed", "max_tokens"}),
        ("https://api.anthropic.com/v1", "claude-opus-4-5-20251101", {"top_p"}, {"temperature", "seed"}),
        ("https://api.anthropic.com/v1", "claude-3-7-sonnet-latest", set(), {"temperature", "top_p"}),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash", {"seed"}, {"top_p"}),
        ("https://openrouter.ai/api/v1", "openai/o3-mini", set(), {"temperature", "max_tokens", "seed"}),
        (HERE, "o3-mini", set(), {"temperature", "top_p", "max_tokens", "seed"}),
    ],
)
def test_known_families_have_presets(endpoint: str, model: str, gone: set[str], names: set[str]) -> None:
    """By host and model: what is refused there is not sent, and other endpoints are sent the usual."""
    body = sent(None, endpoint=endpoint, model=model)
    assert not gone & set(body)
    assert names <= set(body)
    settings = Asking(model=model)
    line = changes_line(
        settings, shape_for(settings, endpoint=endpoint, model=model), endpoint=endpoint, model=model
    )
    assert (line is None) == (not gone)
    if line is not None:
        assert "\n" not in line and "preset" in line and model in line


def test_the_project_overrules_a_preset() -> None:
    """Each parameter by itself; what the preset says of the others stays."""
    body = sent(Parameters(temperature="temperature", seed="off"), endpoint=OPENAI, model="o3")
    assert "temperature" in body and "top_p" not in body and "seed" not in body


def test_the_presets_are_well_formed() -> None:
    """Every entry names hosts, models and at least one parameter; a mistyped name would do nothing."""
    for preset in presets():
        assert set(preset) <= {"family", "hosts", "models", "except", *PARAMETERS}
        assert preset["hosts"] and preset["models"] and set(preset) & set(PARAMETERS)
        Parameters(**{name: preset[name] for name in PARAMETERS if name in preset})


REFUSALS = [
    ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
     "instead.",
     "max_tokens", "unsupported_parameter", 'parameters = { max_tokens = "max_completion_tokens" }'),
    ("Unsupported value: 'temperature' does not support 0.9 with this model. Only the default (1) value is "
     "supported.", "temperature", "unsupported_value", 'parameters = { temperature = "off" }'),
    ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", None, "",
     'parameters = { top_p = "off" }'),
    ("temperature and top_p cannot both be specified for this model. Please use only one.", None, "",
     'parameters = { top_p = "off" }'),
    ('{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}',
     None, "", 'parameters = { seed = "off" }'),
    ('{\\"detail\\":[{\\"type\\":\\"extra_forbidden\\",\\"loc\\":[\\"body\\",\\"seed\\"],\\"msg\\":\\"Extra '
     'inputs are not permitted\\"}]}', None, "1000", 'parameters = { seed = "off" }'),
    ("extra_forbidden: body.seed: Extra inputs are not permitted", None, "", 'parameters = { seed = "off" }'),
    ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', None, "",
     'parameters = { seed = "off" }'),
    ("Unrecognized request argument supplied: seed", None, "", 'parameters = { seed = "off" }'),
    ("top_p: Extra inputs are not permitted", None, "", 'parameters = { top_p = "off" }'),
    ("property 'seed' is unsupported", None, "", 'parameters = { seed = "off" }'),
    ("Unknown parameter: 'response_format'.", "response_format", "unknown_parameter",
     'parameters = { response_format = "off" }'),
    ("The seed parameter is not allowed here", None, "", 'parameters = { seed = "off" }'),
    ('Unknown name "seed": Cannot find field.\nUnknown name "top_p": Cannot find field.', None, "",
     'parameters = { top_p = "off", seed = "off" }'),
]  # fmt: skip


@pytest.mark.parametrize(("said", "param", "code", "line"), REFUSALS)
def test_a_refusal_that_names_a_parameter_says_what_to_write(
    said: str, param: str | None, code: str, line: str
) -> None:
    """The line is valid in a project file, and the section that it belongs into is named."""
    settings = DescribeCategories(model="m")
    found = remedy(settings, endpoint=HERE, model="m", said=said, param=param, code=code)
    assert found is not None
    assert f"`{line}`" in found and "[describe.categories]" in found
    assert Parameters(**tomllib.loads(line)["parameters"])


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens; max_tokens "
        "is not supported beyond it",
        "Your input was flagged by our content policy: the 'seed' is not allowed",
        "A picture of a poppy seed is not allowed in this country",
        "the file is too large",
        "Invalid image: the temperature map cannot be decoded",
        "bad request",
        "model `m` is not supported",
    ],
)
def test_what_speaks_of_the_request_itself_advises_nothing(said: str) -> None:
    """Words that are names of parameters, too, stop no run."""
    assert remedy(Asking(model="m"), endpoint=HERE, model="m", said=said, param=None, code="") is None


def test_the_advice_keeps_what_the_project_says_already() -> None:
    """One line takes the place of the present one; an added field that is refused goes out of it."""
    own = Parameters(temperature="off", extra={"reasoning_effort": "low", "top_k": 5})
    settings = Asking(model="m", parameters=own)

    def advice(said: str) -> str:
        return str(remedy(settings, endpoint=HERE, model="m", said=said, param=None, code=""))

    assert (
        'parameters = { temperature = "off", seed = "off", extra = { reasoning_effort = "low", top_k = 5 } }'
        in advice("body.seed: extra_forbidden")
    )
    assert 'parameters = { temperature = "off", extra = { top_k = 5 } }' in advice(
        "Unknown parameter: 'reasoning_effort'."
    )
    # What is not sent is not refused, and a name that a server does not know goes back to the older one.
    assert (
        remedy(settings, endpoint=HERE, model="m", said="'temperature' unknown", param=None, code="") is None
    )
    renamed = Asking(model="m", parameters=Parameters(max_tokens="max_completion_tokens"))
    said = "max_completion_tokens: Extra inputs are not permitted"
    line = str(remedy(renamed, endpoint=HERE, model="m", said=said, param=None, code=""))
    assert 'parameters = { max_tokens = "max_tokens" }' in line
