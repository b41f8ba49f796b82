"""Structured output: JSON, JSON schema, regular expression, choice, GBNF or Lark as a mask over the vocabulary.

The parsing is llguidance's (https://github.com/guidance-ai/llguidance): Earley over a lexer of derivatives, walked
along the trie of the vocabulary. Ours is what surrounds it: the vocabulary of a GGUF file, limits for input that is
not to be trusted, GBNF, the end of generation, masks computed while the device computes.
"""

import typing

from .limits import GrammarLimits
from .spec import Grammar, GrammarKind

if typing.TYPE_CHECKING:
    from .compiler import GrammarCompiler
    from .matcher import Matcher

__all__ = ["Grammar", "GrammarCompiler", "GrammarKind", "GrammarLimits", "Matcher"]


def __getattr__(name: str) -> typing.Any:
    # llguidance takes 6 MiB: it is loaded by who compiles a grammar, not by who may be handed one.
    if name == "GrammarCompiler":
        from .compiler import GrammarCompiler

        return GrammarCompiler
    if name == "Matcher":
        from .matcher import Matcher

        return Matcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
