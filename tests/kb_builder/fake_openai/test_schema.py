"""Values made for JSON schemas, judged by an independent validator."""

from __future__ import annotations

from random import Random
from typing import Any

import jsonschema
import pytest

from kb_builder.fake_openai.schema import SchemaError, check_strict, make_value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "minLength": 30, "maxLength": 40},
        {"type": "string", "maxLength": 3},
        {"enum": ["a", 2, None]},
        {"const": {"x": 1}},
        {"type": "integer", "minimum": 3, "maximum": 5},
        {"type": "integer", "maximum": -7},
        {"type": "number", "minimum": 0.25, "maximum": 0.5},
        {"type": "boolean"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 9},
        {"type": "array", "maxItems": 1},
        {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
        {
            "type": "object",
            "properties": {
                "descriptions": {
                    "type": "array",
                    "minItems": 4,
                    "maxItems": 4,
                    "items": {"$ref": "#/$defs/text"},
                },
                "sure": {"type": "boolean"},
                "inner": {
                    "type": "object",
                    "properties": {"level": {"enum": ["low", "high"]}},
                    "required": ["level"],
                },
            },
            "required": ["descriptions", "sure", "inner"],
            "additionalProperties": False,
            "$defs": {"text": {"type": "string", "minLength": 1}},
        },
    ],
)
def test_values_are_valid(schema: dict[str, Any]) -> None:
    """Whatever is drawn, the validator accepts it."""
    for seed in range(20):
        jsonschema.validate(make_value(schema, Random(seed), lambda: "A text."), schema)


def test_the_number_of_items_lies_between_the_limits() -> None:
    """Each allowed number comes up."""
    schema = {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 4}
    assert {len(make_value(schema, Random(seed), str)) for seed in range(50)} == {2, 3, 4}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "picture"},
        "string",
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
    ],
)
def test_schemas_that_cannot_be_followed(schema: Any) -> None:
    """Unknown types, references that lead nowhere or to themselves are errors, not endless loops."""
    with pytest.raises(SchemaError):
        make_value(schema, Random(0), str)


def test_strict_objects_are_closed_and_require_everything() -> None:
    """The message names the place, as OpenAI's does."""
    open_inside = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    with pytest.raises(SchemaError, match=r"'a', 'items'.*additionalProperties"):
        check_strict(open_inside)
    with pytest.raises(SchemaError, match="Missing 'a'"):
        check_strict({"type": "object", "properties": {"a": {}}, "additionalProperties": False})
