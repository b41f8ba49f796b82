"""GBNF: what it means, against an independent reading of the notation, and what is wrong with it."""

import random
import re
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pyggml.errors import GrammarError
from pyggml.grammar import Grammar, GrammarCompiler
from pyggml.grammar.gbnf import gbnf_to_lark
from pyggml.tokenizer import Tokenizer

from .walks import accepts, byte_tokens, small_tokenizer, write

JSON = r"""
# Our own, in the style of the well-known ones.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( member ("," ws member)* )? "}" ws
member ::= string ":" ws value
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = """
root ::= sum "\n"
sum ::= product ([-+] product)*
product ::= atom ([*/] atom)*
atom ::= [0-9]+ | [a-z] [a-z0-9_]* | "(" sum ")" | "-" atom
"""
PROGRAM = r"""
root       ::= statement*
statement  ::= "if" space "(" expression ")" block ("else" block)? | simple ";"
simple     ::= name "=" expression | "return" space expression
block      ::= "{" statement* "}"
expression ::= name | [0-9]+ | "(" expression ("<" | "<=" | "==") expression ")"
name       ::= [a-z] [a-z0-9]*
space      ::= [ \n]+
"""


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (
            JSON,
            ['{"a": [1, -2.5e+3, true]}', '{"a":{}}', "{\n  }", '{"\\u00e9é":"\\n"}'],
            ["[1]", '{"a" 1}', '{"a": 01}'],
        ),
        (ARITHMETIC, ["1+2*(x1-3)\n", "a_b*-1\n"], ["1+\n", "(1\n", "1+2"]),
        (PROGRAM, ["if (x){x=1;}else{y=(x<=2);}", "ifx=1;return 12;", ""], ["if(x){}", "x=1", "returnx;"]),
        ('root ::= [a-z]+ "x"', ["abx", "xx"], ["x", "ab", "abxy"]),
        # The letters in front must leave the x alone, also inside of a recursion.
        ('root ::= w "x" | "(" root ")"\nw ::= [a-z]+', ["abx", "(xxx)", "((ax))"], ["(x)", "(abxy)"]),
        ('root ::= ("a" | "ab") "bc" | "[" root "]"', ["abc", "[abc]", "[abbc]"], ["ab", "[ac]"]),
        ('root ::= ("é" | "éa") "ab" | "[" root "]"', ["[éab]", "[éaab]"], ["[éb]"]),
        ("root ::= .", ["\n", "é", "😀"], ["", "ab"]),
        (
            'root ::= [^"\\\\a-c\\]-] [\\u00e9\\U0001F600\\x41] "\\t\\r\\"\\\\"',
            ['dé\t\r"\\', '[😀\t\r"\\'],
            ['-A\t\r"\\'],
        ),
        ("root ::= [a-] [-b]", ["--", "ab", "a-"], ["bb"]),
        ('root ::= "a"{2} "b"{1,} "c"{0,2} "d"{0}', ["aab", "aabbbcc"], ["ab", "aabccc", "aabd"]),
        ('root ::=\n  "a" | # or\n  "b" (\n "c" # so\n )? # done\n\n# bye', ["a", "b", "bc"], ["c"]),
        ('root ::= a-1 _b\na-1 ::= "x"\n_b ::= ""', ["x"], [""]),
        ('root ::= "a" root "b" |', ["", "aabb"], ["aab"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a"]),
        ('root ::= ("a"?)* "b" | "(" root ")"', ["b", "aab", "(aab)"], ["a"]),
        ('root ::= "int" " " name | name | "(" root ")"\nname ::= [a-z]+', ["(int x)", "(inty)", "(in)"], ["(int )"]),
        ('root ::= "//" [^\\n]* "\\n" | "/" | "(" root ")"', ["(//)\n)", "(/)"], ["(//)"]),
    ],
)  # fmt: skip
def test_meaning(
    compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: str, good: list[str], bad: list[str]
) -> None:
    matcher = compiler.compile(Grammar.gbnf(grammar))
    for text in good:
        assert accepts(matcher, byte_tokens(tokenizer, text)), text
    for text in bad:
        assert not accepts(matcher, byte_tokens(tokenizer, text)), text


def test_a_special_token(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.gbnf('root ::= "a"+ <|im_start|> x\nx ::= <[5]>'))
    (a,) = byte_tokens(tokenizer, "a")
    assert matcher.try_accept([a, a, 1, 5]) == 4
    assert matcher.is_stopped


def test_what_is_regular_becomes_one_lexeme() -> None:
    lark = gbnf_to_lark('root ::= w "x"\nw ::= [a-z]+', max_rules=9, max_forced=9)
    assert lark.count("T0: ") == 1 and "T1" not in lark


def test_lexemes_of_json_stay_whole() -> None:
    """Speed: a mask inside of a string must not take one rule per character."""
    lark = gbnf_to_lark(JSON, max_rules=50, max_forced=9)
    assert lark.count("\n") < 20
    assert re.search(r"^T\d+: /\\x\{22\}.*\\x\{22\}", lark, re.MULTILINE)


# -- random grammars against a reading of the notation by trying everything -----------------------------------

Part = tuple[object, ...]
RULES = ("root", "r1", "r2")

parts = st.recursive(
    st.one_of(
        st.tuples(st.just("lit"), st.text("ab", min_size=1, max_size=3)),
        st.tuples(st.just("class"), st.sampled_from(["ab", "a", "b"])),
        st.tuples(st.just("ref"), st.sampled_from(RULES[1:])),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("seq"), st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.tuples(st.just("alt"), st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.tuples(st.just("rep"), inner, st.sampled_from([(0, 1), (0, 9), (1, 9), (2, 2), (1, 3)])),
    ),
    max_leaves=6,
)


def show(part: Part) -> str:
    match part:
        case ("lit", text):
            return f'"{text}"'
        case ("class", chars):
            return f"[{chars}]"
        case ("ref", name):
            return str(name)
        case ("seq", items):
            return "(" + " ".join(map(show, items)) + ")"  # type: ignore[call-overload]
        case ("alt", items):
            return "(" + " | ".join(map(show, items)) + ")"  # type: ignore[call-overload]
        case ("rep", item, (low, high)):
            return show(item) + {(0, 1): "?", (0, 9): "*", (1, 9): "+"}.get((low, high), f"{{{low},{high}}}")  # type: ignore[arg-type]
    raise AssertionError(part)


class Reader:
    """Which texts of at most ``size`` characters each rule derives: grown until nothing is added."""

    def __init__(self, rules: dict[str, Part], *, size: int) -> None:
        self.size = size
        self.known: dict[str, frozenset[str]] = dict.fromkeys(rules, frozenset())
        while True:
            more = {name: self.texts(part) for name, part in rules.items()}
            if more == self.known:
                return
            self.known = more

    def texts(self, part: Part) -> frozenset[str]:
        match part:
            case ("lit", str(text)):
                return frozenset([text])
            case ("class", str(chars)):
                return frozenset(chars)
            case ("ref", str(name)):
                return self.known[name]
            case ("seq", tuple(items)):
                return self.join([self.texts(item) for item in items])
            case ("alt", tuple(items)):
                return frozenset().union(*map(self.texts, items))
            case ("rep", tuple(item), (int(low), int(high))):
                one = self.texts(item)
                # Nine times is as good as without end: texts are shorter.
                total, more = frozenset[str](), self.join([one] * low)
                for _ in range(low, high + 1):
                    total, more = total | more, self.join([more, one])
                return total
        raise AssertionError(part)

    def join(self, sets: list[frozenset[str]]) -> frozenset[str]:
        out = frozenset([""])
        for more in sets:
            out = frozenset(a + b for a in out for b in more if len(a + b) <= self.size)
        return out


def ending(rules: dict[str, Part]) -> set[str]:
    """The rules that derive any text."""

    def ends(part: Part) -> bool:
        match part:
            case ("ref", name):
                return name in found
            case ("seq", tuple(items)):
                return all(map(ends, items))
            case ("alt", tuple(items)):
                return any(map(ends, items))
            case ("rep", tuple(item), (low, _)):
                return low == 0 or ends(item)
        return True

    found: set[str] = set()
    while more := {name for name, part in rules.items() if name not in found and ends(part)}:
        found |= more
    return found


@lru_cache(maxsize=1)
def shared() -> tuple[GrammarCompiler, Tokenizer]:
    tokenizer = small_tokenizer()
    return GrammarCompiler(tokenizer), tokenizer


STRINGS = ["".join(letters) for n in range(4) for letters in product("ab()", repeat=n)]
STRINGS += ["".join(letters) for n in (4, 5) for letters in product("ab", repeat=n)]


@given(bodies=st.tuples(parts, parts, parts), wrap=st.booleans())
@settings(deadline=None, max_examples=50, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_random_grammars_mean_what_they_derive(bodies: tuple[Part, ...], wrap: bool) -> None:
    rules = dict(zip(RULES, bodies, strict=True))
    if wrap:  # recursion keeps the whole from being one regular expression
        rules["root"] = ("alt", (rules["root"], ("seq", (("lit", "("), ("ref", "root"), ("lit", ")")))))
    texts = Reader(rules, size=5).known["root"]
    grammar = "\n".join(f"{name} ::= {show(part)}" for name, part in rules.items())
    compiler, tokenizer = shared()
    try:
        matcher = compiler.compile(Grammar.gbnf(grammar))
    except GrammarError as error:
        assert "never ends" in str(error), grammar
        assert len(ending(rules)) < len(rules), grammar
        return
    assert len(ending(rules)) == len(rules), grammar
    for text in STRINGS:
        assert accepts(matcher, byte_tokens(tokenizer, text)) == (text in texts), (grammar, text)


@pytest.mark.parametrize("grammar", [JSON, ARITHMETIC, PROGRAM])
def test_random_texts_are_the_grammar_s(compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: str) -> None:
    """Also with tokens of several characters, which cross the borders of lexemes."""
    rng = random.Random(7)
    for _ in range(10):
        text = write(compiler.compile(Grammar.gbnf(grammar)), tokenizer, rng).decode()
        assert accepts(compiler.compile(Grammar.gbnf(grammar)), byte_tokens(tokenizer, text))


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("root = x", 1, 6, "expected ::="),
        ('root ::= "a', 1, 10, "not closed"),
        ("root ::= [a", 1, 10, "not closed"),
        ('root ::= ("a"', 1, 10, "not closed"),
        ('root ::= "a")', 1, 13, "end of the line"),
        ('root ::= "a"\nx y', 2, 3, "expected ::="),
        ("root ::= x\n", 1, 10, "no rule x"),
        ('root ::= "a"\nroot ::= "b"', 2, 1, "defined twice"),
        ('root ::= "\\q"', 1, 11, "unknown escape"),
        ('root ::= "\\x4"', 1, 11, "unknown escape"),
        ('root ::= "\\uD800"', 1, 17, "half a character"),
        ("root ::= [z-a]", 1, 14, "ascend"),
        ("root ::= []", 1, 10, "no character"),
        ("root ::= *", 1, 10, "nothing to repeat"),
        ('root ::= "a"{2,1}', 1, 13, "ascend"),
        ('root ::= "a"{}', 1, 13, "expected {n}"),
        ('root ::= "a"{9999}', 1, 13, "2000"),
        ('root ::= "a"' + "?" * 100, 1, 73, "repeated too often"),
        ("root ::= " + "(" * 100, 1, 70, "nested deeper"),
        ("root ::= !<x>", 1, 10, "not supported"),
        ("root ::= <x y>", 1, 10, "expected <name>"),
        ("root ::= %", 1, 10, "end of the line"),
        ("::=", 1, 1, "name of a rule"),
    ],
)
def test_mistakes(compiler: GrammarCompiler, text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)) as caught:
        compiler.compile(Grammar.gbnf(text))
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no rule root"),
        ('x ::= "a"', "no rule root"),
        ("root ::= root", "never ends"),
        ('root ::= "a" x\nx ::= "(" x ")"', "never ends"),
        ('root ::= "b" | (("a"{2000}){2000}){2000}', "demands more"),
        ("root ::= <|no_such_token|>", "refused"),
        ("\n".join(f'r{n} ::= "a"' for n in range(501)), "more than 500 rules"),
        ('root ::= "' + "a" * 40_000 + '"', "characters in the GBNF grammar"),
    ],
)
def test_mistakes_without_a_place(compiler: GrammarCompiler, text: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)):
        compiler.compile(Grammar.gbnf(text))
