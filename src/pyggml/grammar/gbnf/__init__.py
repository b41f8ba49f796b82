"""GBNF, the grammar notation of llama.cpp (``grammars/README.md`` there), as a grammar for llguidance."""

from .lark import gbnf_to_lark

__all__ = ["gbnf_to_lark"]
