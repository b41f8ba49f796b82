"""Chat templates: a conversation to the text that a model was trained on."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from pyggml.chat.budget import Budget, TemplateLimits
from pyggml.chat.sandbox import TemplateRaised, TemplateSandbox
from pyggml.errors import TemplateError

__all__ = ["ChatTemplate"]

_FILENAME = "<chat template>"


class ChatTemplate:
    """A Jinja template in the dialect of Hugging Face's ``apply_chat_template``. Safe to share between threads.

    The template may come from an untrusted file: it can read nothing but what it is given, and is stopped when it
    goes beyond :class:`~pyggml.chat.TemplateLimits`.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        limits: TemplateLimits | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """
        Args:
            source: the template.
            bos_token: text of the BOS token, for templates that print it.
            eos_token: text of the EOS token.
            limits: what a rendering may use.
            clock: the time for ``strftime_now``.

        Raises:
            TemplateError: the template is too long or cannot be parsed; the message gives the line.
        """
        self.source = source
        self._limits = limits or TemplateLimits()
        self._variables = {"bos_token": bos_token, "eos_token": eos_token}
        if len(source) > self._limits.source:
            raise TemplateError(
                f"the chat template has {len(source)} characters; at most {self._limits.source} are allowed"
            )
        self._sandbox = TemplateSandbox(clock)
        self._template = self._compile(source)

    @classmethod
    def from_metadata(
        cls,
        metadata: Mapping[str, object],
        *,
        name: str | None = None,
        limits: TemplateLimits | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> "ChatTemplate":
        """The template of a GGUF file, with the texts of its BOS and EOS tokens.

        Args:
            metadata: the file's metadata.
            name: one of the named templates that some files have beside the main one, such as ``tool_use``.
            limits: what a rendering may use.
            clock: the time for ``strftime_now``.

        Raises:
            TemplateError: the file has no such template, or it cannot be parsed.
        """
        key = "tokenizer.chat_template" + (f".{name}" if name else "")
        source = metadata.get(key)
        if not isinstance(source, str):
            raise TemplateError(f"the model has no chat template ({key} is missing); give one, or use plain prompts")
        return cls(
            source,
            bos_token=_token_text(metadata, "bos"),
            eos_token=_token_text(metadata, "eos"),
            limits=limits,
            clock=clock,
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt for ``messages``.

        Args:
            messages: each with ``role`` and ``content``, and what else the template knows (``tool_calls``, ...);
                never changed.
            tools: definitions of tools, for templates that describe them to the model.
            add_generation_prompt: end with the beginning of the assistant's answer.
            extra: other variables of the template (``enable_thinking``, ``documents``, ...). Values must be such
                as JSON has.

        Raises:
            TemplateError: the template refused the conversation (the message is its own), failed, or went beyond a
                limit; or a value is not such as JSON has.
        """
        variables: dict[str, Any] = {**self._variables, "documents": None, **extra}
        variables |= {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        plain = {name: _plain(value) for name, value in variables.items()}
        budget = Budget(self._limits, input_size=_text_size(plain))
        with self._sandbox.within(budget):
            try:
                return self._run(budget, plain)
            except TemplateRaised as error:
                raise TemplateError(str(error)) from None
            except Exception as error:  # a template can raise anything that Python's operators raise
                raise TemplateError(f"{_place(error)}{type(error).__name__}: {error}") from error

    def _run(self, budget: Budget, variables: dict[str, Any]) -> str:
        pieces: list[str] = []
        length = 0
        for piece in self._template.generate(variables):
            length += len(piece)
            budget.check_length(length)
            pieces.append(piece)
        return "".join(pieces)

    def _compile(self, source: str) -> Template:
        try:
            code = self._sandbox.compile(source, filename=_FILENAME)
            return Template.from_code(self._sandbox, code, self._sandbox.make_globals(None))
        except TemplateSyntaxError as error:
            raise TemplateError(f"the chat template, line {error.lineno}: {error.message}") from error
        except (RecursionError, MemoryError, SyntaxError, ValueError, UnicodeError) as error:
            # Python gives up on the compiled code: nested too deeply, or lone surrogates in a name.
            raise TemplateError(f"the chat template cannot be compiled: {error}") from error


def _plain(value: Any) -> Any:
    """A copy made of dicts, lists, strings, numbers, booleans and None."""
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    try:
        if isinstance(value, Mapping):
            return {str(key): _plain(element) for key, element in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [_plain(element) for element in value]
    except RecursionError:
        raise TemplateError("a value for the chat template is nested too deeply") from None
    raise TemplateError(
        f"a value for the chat template is of type {type(value).__name__}; only JSON's types can be used"
    )


def _text_size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_text_size, value.values())) + sum(map(len, value))
    return sum(map(_text_size, value)) if isinstance(value, list) else 1


def _place(error: BaseException) -> str:
    """The line of the template in which ``error`` came up, as the beginning of a message."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILENAME]
    return f"the chat template, line {lines[-1]}: " if lines else "the chat template: "


def _token_text(metadata: Mapping[str, object], role: str) -> str:
    tokens = metadata.get("tokenizer.ggml.tokens")
    id = metadata.get(f"tokenizer.ggml.{role}_token_id")
    if isinstance(tokens, Sequence) and not isinstance(tokens, str) and id is not None:
        try:
            return str(tokens[int(str(id))]) if int(str(id)) >= 0 else ""
        except (IndexError, ValueError):
            pass
    return ""
