"""Parameters for endpoints that do not take the usual ones: left out, renamed or added.

The later source wins: the usual names, a preset for a family of models (presets.toml), and the project file's
`parameters`. The result (`Shape`) changes the final request, and so its key, only where a parameter is left
out, renamed or added.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from kb_builder.ask.request import Request
from kb_builder.settings import OFF, PARAMETERS, Asking, Parameters

_FORMAT = "response_format"
# Wordings of servers that do not know a field, do not take it, or not together with another one.
_NOT_TAKEN = re.compile(
    r"unsupported|not support|n't support|unknown|unrecogni[sz]ed|unexpected|extra[_ ]forbidden"
    r"|(?:extra|additional) (?:inputs?|fields?|propert|parameter)|not permitted|not allowed|not accept"
    r"|cannot (?:both )?be|can't be|cannot find field|no such (?:field|parameter)|deprecated|not available"
    r"|only the default|not (?:a )?(?:valid|recogni[sz]ed)|invalid (?:parameter|argument|field)"
    r"|mutually exclusive|only (?:use )?one of",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\bboth\b|only (?:use )?one|mutually exclusive", re.IGNORECASE)
_INSTEAD = re.compile(r"\buse\s+[\"'`“‘]?([A-Za-z_][A-Za-z0-9_]*)[\"'`”’]?\s+instead", re.IGNORECASE)
_INSTEAD_QUOTED = re.compile(
    r"\b(?:use|did you mean)\s+[\"'`“‘]([A-Za-z_][A-Za-z0-9_]*)[\"'`”’]", re.IGNORECASE
)
_CODES = frozenset(
    {
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
        "extra_forbidden",
        "invalid_parameter",
    }
)
_NEAR = 120  # characters between a field's name and the wording of its refusal
_LONGEST = 20_000  # characters of a server's message that are searched
# Refusals of a request's content, whose text may quote any word.
_OF_CONTENT = re.compile(
    r"content[ _-]?(?:policy|filter|management)|responsible ?ai|safety|moderat|context[ _-]?length|"
    r"maximum context|context window|too many (?:input )?tokens|prompt is too long",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Shape:
    """How parameters are sent.

    `names`: parameter -> the name to send it under, None to leave it out; others keep their usual name.
    `extra`: additional fields of the body. `family`: that of the preset in use, or None.
    """

    names: Mapping[str, str | None] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None


def shape_for(settings: Asking, *, endpoint: str, model: str) -> Shape:
    """The shape of the requests of these settings to an endpoint (`endpoint_identity`) and a model."""
    family, preset = _preset(endpoint, model)
    own = settings.parameters or Parameters()
    said = {**preset, **own.sent_as()}
    usual = usual_names(endpoint)
    names = {
        name: None if said[name] == OFF else said[name]
        for name in PARAMETERS
        if name in said and said[name] != usual[name]
    }
    used = any(names.get(name, usual[name]) == _sent(value) for name, value in preset.items())
    return Shape(names, own.extra, family if used else None)


def _sent(value: str) -> str | None:
    return None if value == OFF else value


def usual_names(endpoint: str) -> dict[str, str]:
    """The default name of every parameter."""
    # OpenAI's own newer models refuse `max_tokens`; most compatible servers know only that name.
    limit = "max_completion_tokens" if urlsplit(endpoint).hostname == "api.openai.com" else "max_tokens"
    return {name: name for name in PARAMETERS} | {"max_tokens": limit}


def shaped(request: Request, shape: Shape) -> Request:
    """The final request of this shape, whose key covers what is left out, renamed or added."""
    if not shape.names and not shape.extra:
        return request
    given = {name for name in PARAMETERS[:-1] if getattr(request, name) is not None}
    if _FORMAT in request.extra:
        given.add(_FORMAT)
    # Without a schema `response_format` stays in `names`, to mark a request for several texts.
    names = {name: sent for name, sent in shape.names.items() if name in given and (sent or name == _FORMAT)}
    gone: dict[str, Any] = {
        name: None for name in given if name != _FORMAT and shape.names.get(name, name) is None
    }
    extra = dict(request.extra)
    if _FORMAT in given and shape.names.get(_FORMAT, _FORMAT) is None:
        del extra[_FORMAT]
    return replace(request, names=names, extra={**extra, **shape.extra}, **gone)


def body_of(request: Request, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON body of a final request."""
    usual = usual_names(request.endpoint)
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    for name in PARAMETERS[:-1]:
        value = getattr(request, name)
        if value is not None:
            body[request.names.get(name) or usual[name]] = value
    for name, value in request.extra.items():
        body[request.names.get(name) or name if name == _FORMAT else name] = value
    return body


def changes_line(settings: Asking, shape: Shape, *, endpoint: str, model: str) -> str | None:
    """One line that lists how requests differ from the usual ones; None where they do not."""
    parts = [f"no {name}" if sent is None else f"{name} sent as {sent}" for name, sent in shape.names.items()]
    parts += [f"{name} = {json.dumps(value)}" for name, value in shape.extra.items()]
    if not parts:
        return None
    line = f"[{settings.section}] requests to {model} at {endpoint}: {', '.join(parts)}"
    if shape.family is None:
        return line
    return f"{line}, as {shape.family} need it (a preset; `parameters` in the project file overrides it)"


# --- presets ---------------------------------------------------------------------------------------------


def _preset(endpoint: str, model: str) -> tuple[str | None, dict[str, str]]:
    """The family that matches an endpoint and a model, and its settings of parameters."""
    host = urlsplit(endpoint).hostname or ""
    for preset in presets():
        if (
            _fits(host, preset["hosts"])
            and _fits(model, preset["models"])
            and not _fits(model, preset.get("except", ()))
        ):
            return preset["family"], {name: preset[name] for name in PARAMETERS if name in preset}
    return None, {}


def _fits(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value.lower(), pattern) for pattern in patterns)


@cache
def presets() -> tuple[dict[str, Any], ...]:
    """presets.toml, in its order: the first match is used."""
    table = tomllib.loads((files(__package__) / "presets.toml").read_text(encoding="utf-8"))
    return tuple(table["preset"])


# --- refusals that name a parameter ----------------------------------------------------------------------


def remedy(
    settings: Asking, *, endpoint: str, model: str, said: str, param: str | None, code: str
) -> str | None:
    """What to write into the project file, if a refusal names a parameter that was sent; else None.

    `said` is the server's whole text; `param` and `code` are the fields of that name beside its message.
    """
    said = said[:_LONGEST]
    if _OF_CONTENT.search(said) or _OF_CONTENT.search(code):
        return None
    shape = shape_for(settings, endpoint=endpoint, model=model)
    sent = {
        name_sent: name
        for name, usual in usual_names(endpoint).items()
        if (name_sent := shape.names.get(name, usual)) is not None
    }
    refused = _refused(said, param, code, [*sent, *shape.extra])
    if not refused:
        return None
    own = settings.parameters or Parameters()
    lines = own.sent_as()
    extra = dict(own.extra)
    if {"temperature", "top_p"} <= {sent.get(name) for name in refused} and _BOTH.search(said):
        refused = [name for name in refused if sent.get(name) != "temperature"]
    for name in refused:
        if name in extra:
            del extra[name]
        else:
            lines[sent[name]] = _other_name(said, name, sent) or OFF
    subject = ", ".join(f"`{name}`" for name in refused)
    table = _toml(
        {name: lines[name] for name in PARAMETERS if name in lines} | ({"extra": extra} if extra else {})
    )
    how = f"write `parameters = {table}`" if lines or extra else "take `parameters` out"
    return f"this endpoint does not take {subject} as sent: {how} under [{settings.section}] and run again"


def _other_name(said: str, name: str, sent: Mapping[str, str]) -> str | None:
    """The name that the server asks for instead of a refused one."""
    found = _INSTEAD.search(said) or _INSTEAD_QUOTED.search(said)
    if found and found[1] not in sent and found[1].lower() not in {"it", "this", "that", "one", "only"}:
        return found[1]
    # A server that does not know the newer name knows the older one.
    return sent[name] if name != sent[name] else None


def _refused(said: str, param: str | None, code: str, sent: Sequence[str]) -> list[str]:
    """The sent fields that a refusal names, in the order in which they are sent."""
    by_location = _locations(said)
    named = (param or "").rsplit(".", 1)[-1]
    found = []
    for name in sent:
        if (
            name in by_location
            or (name == named and (code in _CODES or _NOT_TAKEN.search(said)))
            or _is_named(said, name)
        ):
            found.append(name)
    return found


def _locations(said: str) -> set[str]:
    """Fields that a validation error of FastAPI calls extra.

    Such as {"type": "extra_forbidden", "loc": ["body", "seed"]}. The error may be JSON inside a JSON text, so
    quotes may have backslashes before them.
    """
    plain = said.replace("\\", "")
    found = set()
    for match in re.finditer(r"(?:extra[_.]forbidden|value_error\.extra)", plain):
        around = plain[max(0, match.start() - 200) : match.end() + 200]
        for location in re.finditer(r"""["']loc["']\s*:\s*[\[(]([^\])]{0,200})[\])]""", around):
            parts = re.findall(r"""["']([^"']+)["']|(\d+)""", location[1])
            names = [text or number for text, number in parts]
            if names and names[0] == "body":
                names = names[1:]
            if len(names) == 1:
                found.add(names[0])
    return found


def _is_named(said: str, name: str) -> bool:
    """Whether a message says that the field `name` is not taken."""
    for match in re.finditer(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", said):
        before, after = (
            said[max(0, match.start() - _NEAR) : match.start()],
            said[match.end() : match.end() + _NEAR],
        )
        if not _NOT_TAKEN.search(before + name + after):
            continue
        # `seed` and `temperature` are words too: they must look like the name of a field.
        if (
            "_" in name
            or re.search(r"""["'`“‘\\.]$""", before)
            or re.match(r"""["'`”’\\]|\s*:""", after)
            or re.search(
                r"(?i)(?:parameter|argument|field|option|propert(?:y|ies)|input|name)s?\b[^.;]{0,40}$", before
            )
            or re.match(r"(?i)\s+(?:parameter|argument|field|option|property|and top_p)\b", after)
        ):
            return True
    return False


def _toml(value: Any) -> str:
    """An inline table, or a value in one."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_toml(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
