"""Structured answers: check a JSON schema as OpenAI does, and make a valid value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

_DEEPEST = 20  # a schema may refer to itself
_KINDS = {"object", "array", "string", "number", "integer", "boolean", "null"}


class SchemaError(Exception):
    """This server does not support the schema; the message says where."""


def check_strict(schema: Any, where: str = "()") -> None:
    """Raise `SchemaError` unless every object of the schema is closed and requires all its properties."""
    if not isinstance(schema, Mapping):
        raise SchemaError(f"In context={where}, the schema is not an object.")
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        if schema.get("additionalProperties") is not False:
            raise SchemaError(
                f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
            )
        missing = [name for name in properties or {} if name not in schema.get("required", ())]
        if missing:
            raise SchemaError(
                f"In context={where}, 'required' is required to be supplied and to be an array including "
                f"every key in properties. Missing '{missing[0]}'."
            )
    for name, inner in {**(properties or {}), **schema.get("$defs", {})}.items():
        check_strict(inner, f"({where.strip('()')}, '{name}')")
    if "items" in schema:
        check_strict(schema["items"], f"({where.strip('()')}, 'items')")


def make_value(schema: Any, draw: Random, text: Callable[[], str]) -> Any:
    """A value that is valid against the schema; `text` makes its free strings.

    Supported are type, enum, const, properties, items, minItems, maxItems, minLength, maxLength, minimum,
    maximum, anyOf, oneOf, and $ref into the schema's own $defs.
    """
    return _value(schema, schema, draw, text, 0)


def _value(schema: Any, root: Any, draw: Random, text: Callable[[], str], depth: int) -> Any:
    if not isinstance(schema, Mapping):
        raise SchemaError(f"a schema must be an object, not {schema!r}")
    if depth > _DEEPEST:
        raise SchemaError("the schema is nested too deeply")
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, draw, text, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][int(draw.random() * len(schema["enum"]))]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _value(schema[choice][0], root, draw, text, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = kind[0]
    if kind not in _KINDS:
        raise SchemaError(f"schema type {kind!r} is not known")
    if kind == "object":
        return {
            name: _value(inner, root, draw, text, depth + 1)
            for name, inner in schema.get("properties", {}).items()
        }
    if kind == "array":
        fewest = schema.get("minItems", min(3, schema.get("maxItems", 3)))
        most = schema.get("maxItems", fewest)
        count = fewest + int(draw.random() * (most - fewest + 1))
        items = schema.get("items", {"type": "string"})
        return [_value(items, root, draw, text, depth + 1) for _ in range(count)]
    if kind == "string":
        said = text()[: schema.get("maxLength")]
        return said.ljust(schema.get("minLength", 0), ".")
    if kind in {"number", "integer"}:
        return _number(schema, draw, whole=kind == "integer")
    return draw.random() < 0.5 if kind == "boolean" else None


def _number(schema: Mapping[str, Any], draw: Random, *, whole: bool) -> float | int:
    low = schema.get("minimum", min(0, schema.get("maximum", 0)))
    high = schema.get("maximum", max(low, 100))
    return draw.randint(int(-(-low // 1)), int(high // 1)) if whole else low + draw.random() * (high - low)


def _resolve(reference: str, root: Any) -> Any:
    value = root
    for name in reference.removeprefix("#/").split("/") if reference != "#" else []:
        if not isinstance(value, Mapping) or name not in value:
            raise SchemaError(f"$ref {reference!r} leads nowhere")
        value = value[name]
    return value
