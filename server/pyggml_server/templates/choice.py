"""Which of a model's templates writes its prompts."""

import logging
from typing import Final

from pyggml.errors import TemplateError
from pyggml_server.templates.capabilities import template_capabilities
from pyggml_server.templates.detection import detect_family
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.vocabulary import ModelFacts
from pyggml_server.templates.writers import PlainWriter, Writer

__all__ = ["choose_writers"]

_log: Final = logging.getLogger(__name__)


def choose_writers(facts: ModelFacts, template: str | None, *, label: str) -> tuple[Writer, GoWriter | None]:
    """The writer of conversations, and the Go template that came with the model.

    A Go template is preferred, unless the Jinja template of the weights' file can do more than it: tools, or thoughts.
    Without either, the Jinja template tells the family, of which there may be a Go template here; at the last, texts
    are taken as they are.

    Args:
        facts: Of the model.
        template: The Go template in the store; None: there is none.
        label: Name of the model, for the log.
    """
    go = _compiled_go(template, label=label) if template is not None and template.strip() else None
    jinja = _compiled_jinja(facts, label=label)
    if go is not None and (jinja is None or not _can_more(jinja, go)):
        return go, go
    if jinja is not None:
        return jinja, go
    family = detect_family(facts.chat_template or "")
    return (GoWriter(family.template) if family is not None else PlainWriter()), go


def _can_more(jinja: JinjaWriter, go: GoWriter) -> bool:
    return bool(template_capabilities(jinja.for_probes()) - template_capabilities(go))


def _compiled_go(source: str, *, label: str) -> GoWriter | None:
    try:
        return GoWriter(source)
    except TemplateError as error:
        _log.warning("%s: the template in the store is not used: %s", label, error)
        return None


def _compiled_jinja(facts: ModelFacts, *, label: str) -> JinjaWriter | None:
    if facts.chat_template is None:
        return None
    try:
        return JinjaWriter(facts.chat_template, bos=facts.bos, eos=facts.eos)
    except TemplateError as error:
        _log.warning("%s: the template in the weights' file is not used: %s", label, error)
        return None
