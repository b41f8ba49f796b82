"""What a grammar may cost, whoever wrote it."""

from dataclasses import dataclass, fields

from pyggml.errors import ParameterError

__all__ = ["GrammarLimits"]


@dataclass(frozen=True)
class GrammarLimits:
    """Bounds for grammars of strangers; the defaults are far above what people write.

    Times were measured on one core of a small server. Those up to ``multiples`` are checked here, before llguidance
    sees the text: its own limits, the others, count the work of its lexer and parser, but neither its recursion over
    long chains of rules, which ends the process when the stack is full, nor looking ahead over what must come, nor
    what is quadratic in its compiler. The worst grammars known to us within all limits take about 2 s to compile and
    0.5 s for a mask.

    Attributes:
        schema_chars: length of a JSON schema as text.
        pattern_chars: length of one regular expression, and of all patterns of a schema together: 8,192 characters
            take 0.2 s at worst, twice as many four times as long.
        text_chars: length of a Lark or GBNF grammar.
        rules: rules of a Lark or GBNF grammar; references (``$ref``) to different places of a schema.
        choices: strings of a choice.
        forced_chars: characters that must come in one piece: counted repetition, constants.
        properties: properties of one object of a schema: 1,000 take 0.3 s, twice as many four times as long.
        multiples: sum of all ``multipleOf`` of a schema, without their decimal points: 100,000 take 1 s.
        items_in_row: possible readings at one place of the text.
        items_per_step: parser items for one mask; 500,000 take about 50 ms. GBNF that must be read character by
            character needs many: a tenth of it is not enough for a vocabulary of 262,144 tokens.
        lexer_fuel: work to set up the lexer; a million takes about 20 ms.
        lexer_fuel_per_step: work of the lexer for one mask; 200,000 take about 15 ms.
        lexer_states: states of the lexer over a whole generation, 1 to 2 kB each.
        symbols: size of the grammar after expansion.
    """

    schema_chars: int = 262_144
    pattern_chars: int = 8_192
    text_chars: int = 32_768
    rules: int = 500
    choices: int = 10_000
    forced_chars: int = 20_000
    properties: int = 1_000
    multiples: int = 100_000
    items_in_row: int = 2_000
    items_per_step: int = 500_000
    lexer_fuel: int = 1_000_000
    lexer_fuel_per_step: int = 200_000
    lexer_states: int = 50_000
    symbols: int = 200_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ParameterError(f"{field.name} must be 1 or more, got {getattr(self, field.name)}")
