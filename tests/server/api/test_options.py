"""Options and formats: what a request says, over what the model says."""

import json
import logging
import math
from typing import Any

import pytest

from pyggml_server.api.formats import parse_format
from pyggml_server.api.options import KNOWN_OPTIONS, merge_options
from pyggml_server.errors import BadRequestError


def test_request_over_model_over_defaults() -> None:
    merged = merge_options({"temperature": 0.1, "top_k": 5, "num_ctx": 99}, {"temperature": 0.7})
    assert merged.sampling == {"temperature": 0.7, "top_k": 5}
    assert merged.load.num_ctx == 99
    assert (merged.num_predict, merged.num_keep, merged.stop) == (-1, 4, ())


def test_integers_take_floats_and_null_is_absent() -> None:
    merged = merge_options({}, {"num_ctx": 512.9, "top_k": 3.0, "seed": None, "temperature": 1})
    assert merged.load.num_ctx == 512
    assert merged.sampling == {"top_k": 3, "temperature": 1.0}
    assert isinstance(merged.sampling["temperature"], float)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("num_ctx", "5", "integer"),
        ("num_ctx", True, "integer"),
        ("temperature", "hot", "float32"),
        ("use_mmap", 1, "boolean"),
        ("stop", 5, "array"),
        ("top_p", math.nan, "float32"),
        ("logit_bias", [1], "object"),
    ],
)
def test_wrong_types_have_ollamas_text(name: str, value: Any, kind: str) -> None:
    with pytest.raises(BadRequestError, match=f'option "{name}" must be of type {kind}'):
        merge_options({}, {name: value})


def test_arrays_hold_texts() -> None:
    with pytest.raises(BadRequestError, match='option "stop" must be of an array of strings'):
        merge_options({}, {"stop": ["a", 1]})
    assert merge_options({"stop": "###"}, {}).stop == ("###",)


def test_unknown_options_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        merge_options({}, {"wishes": 3, "f16_kv": True})
    assert "'wishes' is not known" in caplog.text
    assert "'f16_kv' no longer exists" in caplog.text


def test_automatic_values() -> None:
    load = merge_options({}, {"num_ctx": 0, "num_gpu": -1, "num_thread": 0, "main_gpu": -1}).load
    assert (load.num_ctx, load.num_gpu, load.num_thread, load.main_gpu) == (None, None, None, None)
    load = merge_options({}, {"num_ctx": 1, "num_gpu": 0, "main_gpu": 0}).load
    assert (load.num_ctx, load.num_gpu, load.main_gpu) == (4, 0, 0)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("seed", 2**63, "64 bits"),
        ("seed", -(2**64), "64 bits"),
        ("seed", 1e300, "64 bits"),
        ("seed", 10**400, "integer"),
        ("temperature", 10**400, "float32"),
        ("num_thread", 513, "512 or less"),
    ],
)
def test_numbers_that_nothing_can_hold(name: str, value: float, text: str) -> None:
    with pytest.raises(BadRequestError, match=text):
        merge_options({}, {name: value})


def test_minus_one_is_a_random_seed() -> None:
    assert "seed" not in merge_options({}, {"seed": -1}).sampling
    assert merge_options({}, {"seed": 7}).sampling["seed"] == 7


def test_probabilities_are_clamped() -> None:
    assert merge_options({}, {"top_p": 7, "min_p": -1}).sampling == {"top_p": 1.0, "min_p": 0.0}


@pytest.mark.parametrize(("num_predict", "limit"), [(-1, 1000), (0, 1000), (5, 5), (5000, 1000), (-2, 1000)])
def test_answers_are_bounded_by_ten_contexts(num_predict: int, limit: int) -> None:
    assert merge_options({}, {"num_predict": num_predict}).limit(100) == limit


def test_logit_bias() -> None:
    assert merge_options({}, {"logit_bias": {"5": 2, "7": False}}).sampling["logit_bias"] == {5: 2.0, 7: -math.inf}
    with pytest.raises(BadRequestError, match="must map token ids"):
        merge_options({}, {"logit_bias": {"five": 2}})


def test_adapters() -> None:
    assert merge_options({}, {}).adapter_scales(2) == {0: 1.0, 1: 1.0}
    assert merge_options({}, {"adapters": [0.5]}).adapter_scales(2) == {0: 0.5}
    with pytest.raises(BadRequestError, match="the model has 1"):
        merge_options({}, {"adapters": [1, 1]}).adapter_scales(1)


def test_every_sampling_option_is_a_field_of_the_sampler() -> None:
    from dataclasses import fields

    from pyggml.sampling import SamplingParams

    known = {field.name for field in fields(SamplingParams)}
    assert known <= set(KNOWN_OPTIONS), "an option of the sampler that no request can set"
    sampling = merge_options({}, {"temperature": 0.5, "mirostat": 2, "dry_multiplier": 0.8, "xtc_probability": 0.5})
    SamplingParams(**sampling.sampling)


@pytest.mark.parametrize("value", [None, ""])
def test_no_format(value: Any) -> None:
    assert parse_format(value) is None


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("json", "json_schema", '{"type":"object"}'),
        (
            {"type": "object", "properties": {}},
            "json_schema",
            '{"type": "object", "properties": {}, "additionalProperties": false}',
        ),
        ({"type": "string"}, "json_schema", '{"type": "string"}'),
        ({"type": "gbnf", "grammar": 'root ::= "a"'}, "gbnf", 'root ::= "a"'),
        ({"type": "lark", "grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"type": "regex", "pattern": "a+"}, "regex", "a+"),
        ({"type": "choice", "choices": ["a", "b"]}, "choice", '["a", "b"]'),
    ],
)
def test_formats(value: Any, kind: str, text: str) -> None:
    grammar = parse_format(value)
    assert grammar is not None
    assert (grammar.kind, grammar.text) == (kind, text)


def test_what_a_strict_schema_cannot_enforce_is_an_error() -> None:
    schema = {"type": "object", "properties": {}}
    for strict in (True, False, None):
        grammar = parse_format({"type": "json_schema", "schema": schema, "strict": strict})
        plain = parse_format(schema)
        assert grammar is not None
        assert plain is not None
        assert (grammar.text, grammar.lenient) == (plain.text, not strict)
    assert plain.lenient


@pytest.mark.parametrize(
    "value", [5, "yaml", [1], True, {"type": "gbnf"}, {"type": "json_schema"}, {"type": "choice", "choices": []}]
)
def test_bad_formats(value: Any) -> None:
    with pytest.raises(BadRequestError, match="invalid format: "):
        parse_format(value)


def test_schemas_are_closed_as_ollama_closes_them() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {
        "properties": {"x": inner, "properties": {"type": "string"}},
        "$defs": {"D": {"allOf": [inner, inner]}, "E": {"properties": {}, "additionalProperties": True}},
        "anyOf": [inner],
    }
    grammar = parse_format(schema)
    assert grammar is not None
    closed = json.loads(grammar.text)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["x"]["additionalProperties"] is False
    assert closed["properties"]["properties"] == {"type": "string"}
    assert closed["$defs"]["D"] == {"allOf": [inner, inner]}
    assert closed["$defs"]["E"]["additionalProperties"] is True
    assert closed["anyOf"][0]["additionalProperties"] is False
    assert "additionalProperties" not in schema
