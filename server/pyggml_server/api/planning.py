"""From a task to a prompt: what can be checked and rendered before the model computes anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pyggml_server.api.catalog import OpenModel
from pyggml_server.api.formats import parse_format
from pyggml_server.api.options import Options, merge_options
from pyggml_server.api.tasks import ChatTask, PromptTask, Settings, Task
from pyggml_server.errors import BadRequestError, CapabilityError, ContextTooLongError
from pyggml_server.protocol import GrammarText
from pyggml_server.templates import GoTemplate, Message, RenderedPrompt, fit_messages, tool_choice_grammar

__all__ = ["Plan", "Prompt", "plan_task", "render_task"]

_LEVELS: Final = ("low", "medium", "high", "max")
MAX_LOGPROBS: Final = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """A task that passed every check that needs no weights.

    Attributes:
        task: The task, with the model's own messages in it.
        options: Its options.
        think: Whether or how much to think; None: the model cannot.
        grammar: What the answer, after any thinking, must look like.
        max_calls: Most tool calls in the answer; None: no limit.
        calls: The grammar demands calls of tools.
    """

    task: Task
    options: Options
    think: bool | str | None
    grammar: GrammarText | None
    max_calls: int | None = None
    calls: bool = False

    @property
    def settings(self) -> Settings:
        """The settings of the task."""
        return self.task.settings

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that the model is told of."""
        if isinstance(self.task, PromptTask) or self.task.tool_choice == "none":
            return ()
        return tuple(self.task.tools)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and as tokens.

    Attributes:
        text: What the template wrote.
        tokens: Its ids.
        add_special: Whether the vocabulary's special tokens were put round it.
        dropped_messages: Messages that had to be left out of it.
        n_images: Images in it.
    """

    text: str
    tokens: list[int]
    add_special: bool = True
    dropped_messages: int = 0
    n_images: int = 0


def plan_task(task: Task, model: OpenModel) -> Plan:
    """Check a task against what the model can do.

    Raises:
        CapabilityError: the model cannot do what is asked.
        BadRequestError: the task contradicts itself, or an option is wrong.
        TemplateError: the template of the task is wrong.
    """
    settings = task.settings
    if settings.logprobs is not None and not 0 <= settings.logprobs <= MAX_LOGPROBS:
        raise BadRequestError(f"top_logprobs must be between 0 and {MAX_LOGPROBS}")
    options = merge_options(model.stored.params, settings.options, draft=model.stored.draft)
    grammar = parse_format(settings.format)
    if isinstance(task, PromptTask):
        _check_prompt(task, model)
        think = None if task.raw else _think(task, model)
        return Plan(task, options, think, grammar)
    _check_chat(task, model)
    plan = Plan(_with_own_messages(task, model), options, _think(task, model), grammar)
    return _with_tool_choice(plan, task, model)


def render_task(plan: Plan, model: OpenModel, *, n_ctx: int) -> Prompt:
    """Write the prompt of a plan and turn it into tokens. Takes milliseconds: not for the event loop.

    Args:
        plan: From :func:`plan_task`.
        model: The model.
        n_ctx: Positions that a sequence has.

    Raises:
        ContextTooLongError: it does not fit and must not be truncated.
        TemplateError: the template refuses the messages.
    """
    if isinstance(plan.task, ChatTask):
        prompt = _render_chat(plan, plan.task.messages, model, n_ctx=n_ctx)
    elif isinstance(plan.task.prompt, str):
        prompt = _render_prompt(plan, plan.task, plan.task.prompt, model, n_ctx=n_ctx)
    else:
        prompt = Prompt("", list(plan.task.prompt))
    if not plan.settings.truncate and len(prompt.tokens) > n_ctx:
        raise ContextTooLongError(
            f"the input length exceeds the context length: {len(prompt.tokens)} tokens, the context has {n_ctx} "
            "(raise num_ctx, send less, or allow truncate)",
            error="ContextFullError",
        )
    return prompt


def _check_prompt(task: PromptTask, model: OpenModel) -> None:
    if task.raw and (task.template or task.system or task.context):
        raise BadRequestError("raw mode does not support template, system, or context")
    if not model.can("completion"):
        raise CapabilityError(f'"{task.model}" does not support generate')
    if task.template:
        GoTemplate(task.template)  # a wrong one is refused before anything is loaded
    if task.suffix and not model.can("insert") and not task.template:
        raise CapabilityError(f"{model.full_name} does not support insert")
    if task.images:
        raise _no_images(task.model)
    vocabulary = range(model.tokenizer.n_vocab)
    given = [*task.context, *(() if isinstance(task.prompt, str) else task.prompt)]
    if any(token not in vocabulary for token in given):
        raise BadRequestError(f"a token is not in the vocabulary of {len(vocabulary)} tokens")


def _check_chat(task: ChatTask, model: OpenModel) -> None:
    if not model.can("completion"):
        raise CapabilityError(f'"{task.model}" does not support chat')
    if task.tools and not model.can("tools"):
        raise CapabilityError(f"{model.full_name} does not support tools")
    if any(message.images for message in task.messages):
        raise _no_images(task.model)
    for index, tool in enumerate(task.tools):
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise BadRequestError(f"tools[{index}] must be an object with a function that has a name")


def _no_images(name: str) -> CapabilityError:
    return CapabilityError(f'"{name}" does not support images: this server reads text only')


def _think(task: Task, model: OpenModel) -> bool | str | None:
    think = task.settings.think
    if isinstance(think, str) and think not in _LEVELS:
        raise BadRequestError(
            f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)'
        )
    if model.can("thinking"):
        return True if think is None else think
    if think:
        raise CapabilityError(f'"{task.model}" does not support thinking')
    return None


def _with_own_messages(task: ChatTask, model: OpenModel) -> ChatTask:
    """The model's SYSTEM and MESSAGE entries in front, as Ollama puts them."""
    stored = model.stored
    messages = [*_stored_messages(model), *task.messages]
    if stored.system and not (task.messages and task.messages[0].role == "system"):
        messages.insert(0, Message(role="system", content=stored.system))
    return replace(task, messages=messages)


def _stored_messages(model: OpenModel) -> list[Message]:
    return [Message(role=m.get("role", "user"), content=m.get("content", "")) for m in model.stored.messages]


def _with_tool_choice(plan: Plan, task: ChatTask, model: OpenModel) -> Plan:
    choice = task.tool_choice
    limit = None if task.parallel_tool_calls else 1
    if choice in (None, "auto", "none"):
        return replace(plan, max_calls=limit)
    if not task.tools:
        raise BadRequestError("tool_choice demands a call, but there are no tools")
    if plan.grammar is not None:
        raise BadRequestError("format and a tool_choice that demands a call exclude each other")
    grammar = tool_choice_grammar(model.renderer, task.tools, _choice(choice, task), parallel=task.parallel_tool_calls)
    return replace(plan, grammar=grammar, max_calls=limit, calls=True)


def _choice(choice: str | Mapping[str, Any] | None, task: ChatTask) -> str | Mapping[str, Any]:
    """``"required"``, or ``{"name": …}`` of a tool that exists."""
    if choice in ("required", "any"):
        return "required"
    name: Any = None
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    names = [tool.get("function", {}).get("name") for tool in task.tools]
    if name not in names or not isinstance(name, str):
        raise BadRequestError(
            f"tool_choice must be auto, none, required or the name of one of the tools, got {str(choice)[:200]}"
        )
    return {"name": name}


def _render_chat(plan: Plan, messages: Any, model: OpenModel, *, n_ctx: int, template: str | None = None) -> Prompt:
    arguments: dict[str, Any] = {"tools": plan.tools, "think": plan.think, "template": template}
    if not plan.settings.truncate:
        rendered, dropped = model.renderer.render_chat(messages, **arguments), 0
    else:
        count: Callable[[str], int] = lambda text: len(model.tokenizer.encode(text, add_special=False))  # noqa: E731
        room = n_ctx - model.tokenizer.adds_bos
        fitted = fit_messages(model.renderer, messages, count=count, n_ctx=room, **arguments)
        rendered, dropped = fitted.prompt, fitted.n_dropped
    return _encode(rendered, model, dropped=dropped)


def _render_prompt(plan: Plan, task: PromptTask, prompt: str, model: OpenModel, *, n_ctx: int) -> Prompt:
    if task.raw:
        return _encode(RenderedPrompt(text=prompt, adds_bos=False, n_images=0), model)
    system = model.stored.system if task.system is None else task.system
    if model.stored.messages and not task.context and not task.suffix:
        messages = [*_stored_messages(model), Message(role="user", content=prompt)]
        if system:
            messages.insert(0, Message(role="system", content=system))
        return _render_chat(plan, messages, model, n_ctx=n_ctx, template=task.template)
    rendered = model.renderer.render_generate(
        prompt=prompt,
        suffix=task.suffix,
        system=system,
        template=task.template,
        think=plan.think,
        context_text=model.tokenizer.decode(task.context, skip_special=False) if task.context else "",
    )
    return _encode(rendered, model)


def _encode(rendered: RenderedPrompt, model: OpenModel, *, dropped: int = 0) -> Prompt:
    add_special = not rendered.adds_bos
    tokens = model.tokenizer.encode(rendered.text, add_special=add_special)
    return Prompt(rendered.text, tokens, add_special, dropped, rendered.n_images)
