"""Which parts of a grammar the lexer may take in one piece.

llguidance's lexer takes the longest match and never reconsiders, whereas GBNF means every derivation. Cutting texts
into single characters is exact and slow (milliseconds for a mask), so parts without recursion become lexemes, and
those are taken apart again for which the longest match could be wrong: where a text of one lexeme can be continued by
another (or by itself) with a character that may also begin what follows it.
"""

from collections.abc import Iterable, Iterator

from .automaton import Alphabet, Automaton, TooLargeError, bits
from .nodes import Alt, Chars, Lexeme, Node, Ref, Repeat, Seq, Token

__all__ = ["choose_lexemes"]

Rules = dict[str, Node]
SIZE = 2_000  # nodes of one lexeme, its rules put in
BUDGET = 50_000  # steps of two lexemes side by side, in all: less than a second


def choose_lexemes(rules: Rules) -> Rules:
    """The rules that ``root`` needs, their parts marked as :class:`Lexeme`, none of which the lexer can overrun."""
    recursive = _recursive(rules)
    marked = {name: _mark(node, rules, recursive) for name, node in _reachable(rules)}
    if isinstance(marked["root"], Lexeme):
        return {"root": marked["root"]}
    meetings = _Meetings(marked.values())
    try:
        while wrong := _Analysis(marked, meetings).overrun():
            marked = {name: _take_apart(node, wrong) for name, node in marked.items()}
    except TooLargeError:
        return {name: _take_apart(node, None) for name, node in marked.items()}
    return marked


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Seq(items) | Alt(items):
            return items
        case Repeat(item, _, _) | Lexeme(item):
            return (item,)
    return ()


def _walk(node: Node) -> Iterator[Node]:
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(_children(node))


def _reachable(rules: Rules) -> list[tuple[str, Node]]:
    """The rules that ``root`` leads to, it first."""
    found = {"root": None}
    todo = ["root"]
    while todo:
        for node in _walk(rules[todo.pop()]):
            if isinstance(node, Ref) and node.name not in found:
                found[node.name] = None
                todo.append(node.name)
    return [(name, rules[name]) for name in found]


def _recursive(rules: Rules) -> set[str]:
    """Rules that are no regular expression: they lead to themselves, or to a special token."""
    uses = {name: {n.name for n in _walk(node) if isinstance(n, Ref)} for name, node in rules.items()}
    good = {name for name, node in rules.items() if not any(isinstance(n, Token) for n in _walk(node))}
    plain: set[str] = set()
    while more := {name for name in good - plain if uses[name] <= plain}:
        plain |= more
    return set(rules) - plain


def _mark(node: Node, rules: Rules, recursive: set[str]) -> Node:
    budget = [SIZE]
    try:
        return Lexeme(_put_in(node, rules, recursive, budget))
    except TooLargeError:
        pass
    match node:
        case Seq(items):
            return Seq(tuple(_mark(item, rules, recursive) for item in items))
        case Alt(items):
            return Alt(tuple(_mark(item, rules, recursive) for item in items))
        case Repeat(item, least, most):
            return Repeat(_mark(item, rules, recursive), least, most)
    return node


def _put_in(node: Node, rules: Rules, recursive: set[str], budget: list[int]) -> Node:
    """``node`` with rules replaced by what they say.

    Raises:
        TooLargeError: it is recursive, or grows beyond the budget.
    """
    budget[0] -= 1
    if budget[0] < 0:
        raise TooLargeError
    match node:
        case Ref(name):
            if name in recursive:
                raise TooLargeError
            return _put_in(rules[name], rules, recursive, budget)
        case Token():
            raise TooLargeError
        case Seq(items):
            return Seq(tuple(_put_in(item, rules, recursive, budget) for item in items))
        case Alt(items):
            return Alt(tuple(_put_in(item, rules, recursive, budget) for item in items))
        case Repeat(item, least, most):
            return Repeat(_put_in(item, rules, recursive, budget), least, most)
    return node


def _take_apart(node: Node, wrong: set[Node] | None) -> Node:
    """Make the parts of each lexeme in ``wrong`` lexemes of their own; None: everything down to characters."""
    match node:
        case Lexeme(Chars()):
            return node
        case Lexeme(item) if wrong is None or item in wrong:
            return _take_apart(_parts(item), wrong) if wrong is None else _parts(item)
        case Seq(items):
            return Seq(tuple(_take_apart(item, wrong) for item in items))
        case Alt(items):
            return Alt(tuple(_take_apart(item, wrong) for item in items))
        case Repeat(item, least, most):
            return Repeat(_take_apart(item, wrong), least, most)
    return node


def _parts(node: Node) -> Node:
    match node:
        case Seq(items):
            return Seq(tuple(map(Lexeme, items)))
        case Alt(items):
            return Alt(tuple(map(Lexeme, items)))
        case Repeat(item, least, most):
            return Repeat(Lexeme(item), least, most)
    return Lexeme(node)


class _Meetings:
    """How lexemes run side by side; what is found once stays true when others are taken apart."""

    def __init__(self, rules: Iterable[Node]) -> None:
        self.alphabet = Alphabet({node for rule in rules for node in _walk(rule) if isinstance(node, Chars)})
        self._automata: dict[Node, Automaton | None] = {}
        self._found: dict[tuple[Automaton, Automaton], int] = {}
        self._budget = BUDGET

    def automaton(self, item: Node) -> Automaton | None:
        """The automaton of a lexeme; None if it is too large."""
        if item not in self._automata:
            try:
                self._automata[item] = Automaton(item, self.alphabet)
            except TooLargeError:
                self._automata[item] = None
        return self._automata[item]

    def overrun(self, longer: Automaton, other: Automaton) -> int:
        """The characters with which ``longer`` can go on after a whole text of ``other``.

        Raises:
            TooLargeError: the budget of all meetings together is spent.
        """
        key = longer, other
        if key not in self._found:
            self._spend()
            self._found[key] = self._meet(longer, other)
        return self._found[key]

    def _meet(self, one: Automaton, two: Automaton) -> int:
        chars = 0
        seen = {(one.start, two.start)}
        todo = list(seen)
        while todo:
            mine, theirs = todo.pop()
            for part in bits(one.next_chars(mine) & two.next_chars(theirs)):
                self._spend()
                (here, _), (there, ends) = one.step(mine, part), two.step(theirs, part)
                if ends:
                    chars |= one.next_chars(here)
                if (here, there) not in seen:
                    seen.add((here, there))
                    todo.append((here, there))
        return chars

    def _spend(self) -> None:
        self._budget -= 1
        if self._budget < 0:
            raise TooLargeError


class _Analysis:
    """What may begin and follow each lexeme."""

    def __init__(self, rules: Rules, meetings: _Meetings) -> None:
        self._rules = rules
        self._meetings = meetings
        lexemes = {node.item for rule in rules.values() for node in _walk(rule) if isinstance(node, Lexeme)}
        self._automata = {item: found for item in lexemes if (found := meetings.automaton(item))}
        self._too_large = lexemes - set(self._automata)
        # name -> (may be empty, characters it may begin with)
        self._heads: dict[str, tuple[bool, int]] = dict.fromkeys(rules, (False, 0))
        self._tails: dict[str, int] = dict.fromkeys(rules, 0)
        self._after: dict[Automaton, int] = dict.fromkeys(self._automata.values(), 0)

    def overrun(self) -> set[Node]:
        """The lexemes that can run over the end of another.

        Raises:
            TooLargeError: finding out takes too long.
        """
        if self._too_large:
            return self._too_large
        self._solve()
        foreign = self._meetings.alphabet.foreign
        after = [(other, mask | (foreign if mask & foreign else 0)) for other, mask in self._after.items() if mask]
        return {
            item
            for item, longer in self._automata.items()
            if not isinstance(item, Chars)
            and any(mask & self._meetings.overrun(longer, other) for other, mask in after)
        }

    def _solve(self) -> None:
        """Least fixed points: first the heads, then what follows. Rules come before those that they use."""
        changed = True
        while changed:
            changed = False
            for name in reversed(self._rules):
                head = self._head(self._rules[name])
                changed |= head != self._heads[name]
                self._heads[name] = head
        changed = True
        while changed:
            before = dict(self._tails)
            for name, node in self._rules.items():
                self._spread(node, self._tails[name])
            changed = self._tails != before

    def _head(self, node: Node) -> tuple[bool, int]:
        match node:
            case Lexeme(item):
                automaton = self._automata[item]
                return automaton.nullable, automaton.next_chars(automaton.start)
            case Ref(name):
                return self._heads[name]
            case Seq(items):
                chars = 0
                for item in items:
                    empty, more = self._head(item)
                    chars |= more
                    if not empty:
                        return False, chars
                return True, chars
            case Alt(items):
                heads = [self._head(item) for item in items]
                return any(empty for empty, _ in heads), _union(chars for _, chars in heads)
            case Repeat(item, least, most):
                empty, chars = self._head(item)
                return (empty or least == 0, chars if most != 0 else 0)
        return False, 0  # a special token begins with no character

    def _spread(self, node: Node, after: int) -> None:
        """Note that ``after`` may follow ``node``."""
        match node:
            case Lexeme(item):
                self._after[self._automata[item]] |= after
            case Ref(name):
                self._tails[name] |= after
            case Seq(items):
                for item in reversed(items):
                    self._spread(item, after)
                    empty, chars = self._head(item)
                    after = chars | after if empty else chars
            case Alt(items):
                for item in items:
                    self._spread(item, after)
            case Repeat(item, _, most):
                self._spread(item, after | self._head(item)[1] if most is None or most > 1 else after)


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total
