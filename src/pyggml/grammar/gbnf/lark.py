"""Rules in llguidance's dialect of Lark."""

from pyggml.errors import GrammarError

from .lexemes import choose_lexemes
from .nodes import Alt, Chars, Lexeme, Node, Ref, Repeat, Seq, Token
from .parse import parse
from .shortest import check_shortest

__all__ = ["gbnf_to_lark"]

LIMIT = 200_000  # characters; only repetition written out in full comes near


def gbnf_to_lark(text: str, *, max_rules: int, max_forced: int) -> str:
    """A Lark grammar of the same texts.

    Args:
        text: the GBNF grammar.
        max_rules: most rules.
        max_forced: longest text that any rule may demand at least.

    Raises:
        GrammarError: the text is not GBNF, or over a limit; the message says where.
    """
    rules = parse(text, max_rules=max_rules)
    check_shortest(rules, limit=max_forced)
    return _Writer(choose_lexemes(rules)).write()


class _Writer:
    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._names = {name: f"r{i}" for i, name in enumerate(rules)} | {"root": "start"}
        self._lexemes: dict[Node, str] = {}

    def write(self) -> str:
        lines = [f"{self._names[name]}: {self._expr(node)}" for name, node in self._rules.items()]
        for node, name in self._lexemes.items():
            # The lexer wants something to read: whether a lexeme may be absent is said where it is used.
            lines.append(f"{name}: /{_regex(node)}/" + (" & /(?s:.+)/" if _nullable(node) else ""))
        lark = "\n".join(lines) + "\n"
        if len(lark) > LIMIT:
            raise GrammarError(f"the GBNF grammar has {len(lark)} characters when written out: make it smaller")
        return lark

    def _expr(self, node: Node) -> str:
        match node:
            case Lexeme(item):
                return self._lexeme(item)
            case Ref(name):
                return self._names[name]
            case Token(text):
                return text
            case Seq(items):
                return " ".join(map(self._expr, items)) if items else '""'
            case Alt(items):
                return "(" + " | ".join(map(self._expr, items)) + ")"
            case Repeat(item, least, most):
                if most == 0:
                    return '""'
                return f"({self._expr(item)}){_count(least, most)}"
        raise TypeError(f"{node} is in no lexeme")

    def _lexeme(self, item: Node) -> str:
        if isinstance(item, Seq) and not item.items:
            return '""'
        name = self._lexemes.setdefault(item, f"T{len(self._lexemes)}")
        return f"{name}?" if _nullable(item) else name


def _count(least: int, most: int | None) -> str:
    simple = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    if (least, most) in simple:
        return simple[least, most]
    return f"{{{least},{'' if most is None else most}}}"


def _nullable(node: Node) -> bool:
    match node:
        case Seq(items):
            return all(map(_nullable, items))
        case Alt(items):
            return any(map(_nullable, items))
        case Repeat(item, least, _):
            return least == 0 or _nullable(item)
    return False


def _regex(node: Node) -> str:
    match node:
        case Chars(ranges):
            if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
                return _char(ranges[0][0])
            return "[" + "".join(_char(a) if a == b else f"{_char(a)}-{_char(b)}" for a, b in ranges) + "]"
        case Seq(items):
            return "".join(map(_regex, items))
        case Alt(items):
            return "(?:" + "|".join(map(_regex, items)) + ")"
        case Repeat(item, least, most):
            return f"(?:{_regex(item)}){_count(least, most)}"
    raise TypeError(f"{node} is not regular")


def _char(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\x{{{code:X}}}"
