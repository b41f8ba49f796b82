"""Values as Go templates see them: fields by their Go names, printed as Go prints Ollama's types."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gotpl import GoSeq2

from pyggml_server.templates.messages import Message

__all__ = ["ToolList", "json_text", "message_value", "type_script_type"]


def json_text(value: object) -> str:
    """JSON as Go writes it, in the order of the request; ``<``, ``>`` and ``&`` stay, since models were not trained on
    their escapes.
    """
    return json.dumps(_raw(value), ensure_ascii=False, separators=(",", ":"), default=str)


class Struct:
    """An object with fields; prints as JSON.

    Args:
        raw: What it prints.
        fields: Values by Go name; others are empty.
    """

    __slots__ = ("_fields", "raw")

    def __init__(self, raw: object, fields: Mapping[str, object]) -> None:
        self.raw: Final = raw
        self._fields: Final = fields

    def __gotemplate_lookup__(self, name: str) -> object:
        return self._fields.get(name, "")

    def __str__(self) -> str:
        return json_text(self.raw)


class Map(GoSeq2[str, object]):
    """A map from names to values, in the order of the request; prints as JSON.

    Args:
        raw: What it prints.
        values: What ``range`` gives.
    """

    __slots__ = ("_by_name", "raw")

    def __init__(self, raw: object, values: Mapping[str, object]) -> None:
        super().__init__(list(values.items()))
        # the base is frozen
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "_by_name", values)

    def __gotemplate_lookup__(self, name: str) -> object:
        by_name: Mapping[str, object] = self._by_name  # type: ignore[attr-defined]
        return by_name.get(name, "")

    def __len__(self) -> int:
        return len(self._by_name)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return json_text(self)


class ToolList:
    """The tools; prints as JSON."""

    __slots__ = ("_tools", "raw")

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self.raw: Final = list(tools)
        self._tools: Final = [_tool(tool) for tool in tools]

    def __iter__(self) -> Iterator[Struct]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __str__(self) -> str:
        return json_text(self.raw)


def message_value(message: Message) -> dict[str, object]:
    """A message with the fields that Ollama's templates know."""
    return {
        "Role": message.role,
        "Content": message.content,
        "Thinking": message.thinking,
        "Images": [{} for _ in message.images],
        "ToolCalls": [
            Struct(
                {"function": {"name": call.name, "arguments": dict(call.arguments)}},
                {
                    "ID": call.id,
                    "Function": Struct(
                        {"name": call.name, "arguments": dict(call.arguments)},
                        {"Name": call.name, "Index": call.index, "Arguments": _map(call.arguments)},
                    ),
                },
            )
            for call in message.tool_calls
        ],
        "ToolName": message.tool_name,
        "ToolCallID": message.tool_call_id,
    }


def type_script_type(value: object) -> str:
    """The type of a tool's parameter as TypeScript writes it."""
    schema = _raw(value)
    if not isinstance(schema, Mapping):
        return "any"
    choices = schema.get("anyOf")
    if isinstance(choices, list) and choices:
        return " | ".join(type_script_type(choice) for choice in choices)
    types = schema.get("type")
    names = types if isinstance(types, list) else [types]
    return " | ".join(_type_name(name, schema) for name in names) or "any"


def _type_name(name: object, schema: Mapping[str, Any]) -> str:
    if name == "array":
        items = schema.get("items")
        return f"{type_script_type(items) if isinstance(items, Mapping) else 'any'}[]"
    known = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
    return known.get(str(name), "Record<string, any>" if name == "object" else "any")


def _raw(value: object) -> object:
    if isinstance(value, Struct | Map | ToolList):
        raw: object = value.raw  # type: ignore[union-attr]
        return raw
    if isinstance(value, list | tuple):
        return [_raw(element) for element in value]
    if isinstance(value, Mapping):
        return {str(key): _raw(element) for key, element in value.items()}
    return value


def _map(raw: Mapping[str, Any]) -> Map:
    # what is nested prints as JSON too, where Go would print map[…]
    return Map(dict(raw), {str(key): _element(value) for key, value in raw.items()})


def _element(value: object) -> object:
    return _map(value) if isinstance(value, Mapping) else value


def _tool(tool: Mapping[str, Any]) -> Struct:
    function = tool.get("function")
    function = function if isinstance(function, Mapping) else {}
    parameters = function.get("parameters")
    parameters = parameters if isinstance(parameters, Mapping) else {}
    described = Struct(
        function,
        {
            "Name": function.get("name", ""),
            "Description": function.get("description", ""),
            "Parameters": _schema(parameters),
        },
    )
    return Struct(tool, {"Type": tool.get("type", "function"), "Function": described})


def _schema(schema: Mapping[str, Any]) -> Struct:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    types = schema.get("type", "")
    return Struct(
        schema,
        {
            # several types print as JSON, one as its name
            "Type": json_text(types) if isinstance(types, list) else types,
            "Required": schema.get("required") or [],
            "Properties": Map(properties, {str(k): _schema(v) for k, v in properties.items() if isinstance(v, Mapping)})
            if properties
            else {},
            "Description": schema.get("description", ""),
            "Enum": schema.get("enum") or [],
            "Items": schema.get("items", ""),
            "Defs": schema.get("$defs", ""),
        },
    )
