"""Tools and the choice between them, from OpenAI's two forms and Anthropic's, in the one that templates know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pyggml_server.api.v1.errors import FieldError

__all__ = ["Toolbox"]

Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools a model may call.

    Attributes:
        tools: ``{"type": "function", "function": {"name", "description", "parameters"}}`` each.
        choice: ``auto``; ``required``: at least one call; or a name: a call of this tool. The latter two are enforced
            by a grammar.
        parallel: whether several calls may be made in one answer.
    """

    tools: tuple[Tool, ...] = ()
    choice: str | dict[str, str] = "auto"
    parallel: bool = True

    @classmethod
    def from_openai(
        cls, tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any] | None, parallel: bool | None
    ) -> Self:
        """From ``tools`` (of chat completions, or flat as in responses), ``tool_choice``, ``parallel_tool_calls``.

        Raises:
            FieldError: a tool that is no function, a choice that is unknown or cannot be made.
        """
        box = cls(
            tuple(_function(tool, index) for index, tool in enumerate(tools or ())), "auto", parallel is not False
        )
        if isinstance(choice, str) or choice is None:
            return box._choose(choice or "auto")
        kind = choice.get("type")
        if kind == "function":
            named = choice.get("function")
            return box._choose_name((named if isinstance(named, Mapping) else choice).get("name"))
        if kind == "allowed_tools":
            inner = choice.get("allowed_tools", choice)
            names = {_name_of(tool) for tool in inner.get("tools", ())}
            kept = tuple(tool for tool in box.tools if tool["function"]["name"] in names)
            return replace(box, tools=kept)._choose(inner.get("mode", "auto"))
        raise FieldError(f"tool_choice.type {str(kind)[:40]!r} is not supported: only functions", param="tool_choice")

    @classmethod
    def from_anthropic(cls, tools: Sequence[Mapping[str, Any]] | None, choice: Mapping[str, Any] | None) -> Self:
        """From ``tools`` and ``tool_choice`` of Anthropic's messages.

        Raises:
            FieldError: a tool that the caller does not run, a choice that is unknown or cannot be made.
        """
        flat = []
        for index, tool in enumerate(tools or ()):
            if tool.get("type") not in (None, "custom"):
                message = (
                    f"tools.{index}: {str(tool['type'])[:60]!r} would run here; only tools of your own (custom) work"
                )
                raise FieldError(message, param=f"tools.{index}.type")
            schema = tool.get("input_schema")
            flat.append({**tool, "type": "function", "parameters": schema})
        choice = choice or {"type": "auto"}
        parallel = not choice.get("disable_parallel_tool_use", False)
        box = cls(tuple(_function(tool, index) for index, tool in enumerate(flat)), "auto", parallel)
        if choice.get("type") == "tool":
            return box._choose_name(choice.get("name"))
        word = {"auto": "auto", "any": "required", "none": "none"}.get(str(choice.get("type")), "")
        return box._choose(word)

    def _choose(self, word: object) -> Self:
        if word == "auto":
            return self
        if word == "none":
            # without the tools in the prompt there is nothing to call
            return replace(self, tools=())
        if word == "required":
            if not self.tools:
                raise FieldError("tool_choice wants a call, but there are no tools", param="tool_choice")
            return replace(self, choice="required")
        raise FieldError("tool_choice must be none, auto, required or the name of a tool", param="tool_choice")

    def _choose_name(self, name: object) -> Self:
        if not any(tool["function"]["name"] == name for tool in self.tools):
            raise FieldError(f"tool_choice names {str(name)[:80]!r}, which is not among the tools", param="tool_choice")
        return replace(self, choice={"name": str(name)})


def _name_of(tool: object) -> object:
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function")
    return (inner if isinstance(inner, Mapping) else tool).get("name")


def _function(tool: Mapping[str, Any], index: int) -> Tool:
    path = f"tools[{index}]"
    if tool.get("type", "function") != "function":
        raise FieldError(
            f"{path}.type {str(tool['type'])[:40]!r} is not supported: only functions", param=f"{path}.type"
        )
    inner = tool.get("function", tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name:
        raise FieldError(f"{path}: the function has no name", param=f"{path}.name")
    parameters = inner.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise FieldError(f"{path}: the parameters are not a JSON schema (an object)", param=f"{path}.parameters")
    function: Tool = {"name": name, "description": str(inner.get("description") or "")}
    # a function without parameters takes none; templates and grammars want to read that
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}
