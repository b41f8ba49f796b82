"""Go templates within bounds: anybody may have written them, so what they can read, call and repeat is limited."""

import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from gotpl import Environment, ExecutionBudget, SandboxPolicy
from gotpl import TemplateError as GoError
from gotpl.runtime.sync_vm import _builtin_functions

from pyggml.errors import TemplateError
from pyggml_server.templates.go_tree import GoTree, read_tree
from pyggml_server.templates.go_values import json_text, type_script_type

__all__ = ["GoTemplate"]

_MAX_SOURCE: Final = 256 * 1024
_MAX_TEXT: Final = 16 * 1024 * 1024
_MAX_MADE: Final = 4 * 1024 * 1024
"""Characters that functions may be given and make in one rendering; what is only printed does not count."""

_MAX_STEPS: Final = 2_000_000
_MAX_CALLS: Final = 100_000
_SECONDS: Final = 10.0
_GROWING: Final = ("html", "js", "print", "printf", "println", "urlquery")
"""Built-in functions whose result may be longer than what they are given."""

_WIDE: Final = re.compile(r"%[^a-zA-Z%]*(\d{5,}|\*)")


class GoTemplate:
    """A template in the language of Go's ``text/template``, with Ollama's functions. Safe to share between threads.

    Fields that do not exist are empty. Values print as Ollama's types do: tools and arguments as JSON.

    Args:
        source: The template.
        clock: The time for ``currentDate``.

    Raises:
        TemplateError: it cannot be parsed, calls itself, or is too large.
    """

    def __init__(self, source: str, *, clock: Callable[[], datetime] = datetime.now) -> None:
        if len(source) > _MAX_SOURCE:
            raise TemplateError(f"the Go template has {len(source)} characters; at most {_MAX_SOURCE} are allowed")
        self.source: Final = source
        functions = _functions(clock)
        self.tree: Final[GoTree] = read_tree(source, functions)
        budget = ExecutionBudget(
            max_output_chars=_MAX_TEXT,
            # what one pass can cost grows with the template
            max_iterations=min(100_000, max(200, _MAX_STEPS // self.tree.n_nodes)),
            max_template_depth=60,
            max_function_calls=_MAX_CALLS,
        )
        policy = SandboxPolicy.strict(
            allow_functions=tuple(functions), allow_custom_lookup=True, max_template_chars=_MAX_SOURCE
        )
        try:
            environment = Environment(missing_key="zero", functions=functions, sandbox=policy, budget=budget)
            self._template: Final = environment.from_string(source)
        except (GoError, RecursionError, ValueError) as error:
            raise TemplateError(f"the Go template cannot be compiled: {error}") from error

    def render(self, values: Mapping[str, Any]) -> str:
        """The text of the template for some values.

        Raises:
            TemplateError: it failed, or went beyond a limit.
        """
        writer = _Writer(time.monotonic() + _SECONDS)
        token = _under_way.set(writer)
        try:
            self._template.render_to(writer, dict(values))  # type: ignore[arg-type]
        except GoError as error:
            raise TemplateError(f"the Go template: {error}") from error
        except (RecursionError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise TemplateError(f"the Go template: {type(error).__name__}: {error}") from error
        finally:
            _under_way.reset(token)
        return "".join(writer.pieces)


class _Writer:
    """Collects the output of one rendering, and looks at the clock."""

    def __init__(self, deadline: float) -> None:
        self.pieces: Final[list[str]] = []
        self._deadline: Final = deadline
        self._made = 0

    def write(self, text: str) -> int:
        self.pieces.append(text)
        self.count(0)
        return len(text)

    def count(self, n: int) -> None:
        """Count characters that a function is given or makes.

        Raises:
            TemplateError: there were too many, or the time is over.
        """
        self._made += n
        if self._made > _MAX_MADE:
            raise TemplateError(f"the Go template's functions make more than {_MAX_MADE} characters")
        if time.monotonic() > self._deadline:
            raise TemplateError(f"the Go template takes more than {_SECONDS} seconds")


_under_way: Final[ContextVar[_Writer]] = ContextVar("rendering")


def _functions(clock: Callable[[], datetime]) -> Mapping[str, Callable[..., object]]:
    builtin = _builtin_functions("go")
    guarded = {name: _guard(name, builtin[name]) for name in _GROWING}
    guarded["json"] = _guard("json", json_text)
    own: dict[str, Callable[..., object]] = {
        "currentDate": lambda *_: clock().strftime("%Y-%m-%d"),
        "yesterdayDate": lambda *_: (clock() - timedelta(days=1)).strftime("%Y-%m-%d"),
        "toTypeScriptType": type_script_type,
    }
    return MappingProxyType({**guarded, **own})


def _guard(name: str, function: Callable[..., Any]) -> Callable[..., str]:
    """A function that makes texts, with a look at their size before and after."""

    def guarded(*values: object) -> str:
        if name == "printf" and values and _WIDE.search(str(values[0])):
            raise TemplateError("the Go template formats with a width of five digits or a computed one")
        rendering = _under_way.get()
        rendering.count(sum(len(value) for value in values if isinstance(value, str)))
        text = str(function(*values))
        rendering.count(len(text))
        return text

    return guarded
