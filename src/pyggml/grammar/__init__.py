"""Structured output: JSON, JSON schema, regular expression, choice, GBNF or Lark as a mask over the vocabulary.

The parsing is llguidance's (https://github.com/guidance-ai/llguidance): Earley over a lexer of derivatives, walked
along the trie of the vocabulary. Ours is what surrounds it: the vocabulary of a GGUF file, limits for input that is
not to be trusted, GBNF, the end of generation, masks computed while the device computes.
"""

from .compiler import GrammarCompiler
from .limits import GrammarLimits
from .matcher import Matcher
from .spec import Grammar, GrammarKind

__all__ = ["Grammar", "GrammarCompiler", "GrammarKind", "GrammarLimits", "Matcher"]
