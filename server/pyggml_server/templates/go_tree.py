"""What the parse tree of a Go template tells: which values it uses, where an answer goes, how long it may run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

from gotpl import TemplateError as GoError
from gotpl.parse.nodes import (
    ActionNode,
    BlockNode,
    FieldNode,
    ListNode,
    ParenthesizedNode,
    ParsedTemplate,
    TemplateCallNode,
    TextNode,
    VariableNode,
)
from gotpl.parse.parser import parse_template as parse_go

from pyggml.errors import TemplateError

__all__ = ["GoTree", "read_tree"]

_MAX_NODES: Final = 50_000


@dataclass(frozen=True, slots=True)
class GoTree:
    """Facts of a template.

    Attributes:
        names: Names of all fields and variables, in lower case.
        n_nodes: Nodes, those of templates that it calls counted at each call.
        cut: Bytes of the source up to the end of the action that prints ``.Response``, and the number of blocks that
            are open there; None: it prints none.
        think_tags: The literal texts around ``.Thinking``; None: it prints none.
    """

    names: frozenset[str]
    n_nodes: int
    cut: tuple[int, int] | None
    think_tags: tuple[str, str] | None


def read_tree(source: str, functions: Mapping[str, object]) -> GoTree:
    """Parse a template.

    Args:
        source: The template.
        functions: Those that it may call besides the built-in ones.

    Raises:
        TemplateError: it cannot be parsed, calls itself, or is too large.
    """
    try:
        parsed = parse_go(source, name="template", left_delimiter="{{", right_delimiter="}}", functions=functions)
    except (GoError, RecursionError, ValueError) as error:
        raise TemplateError(f"the Go template cannot be parsed: {error}") from error
    nodes = list(_walk(parsed))
    names = {name.lower() for node in nodes for name in _names(node)}
    return GoTree(frozenset(names), _size(parsed), _find_response(parsed.root, 0), _find_think_tags(nodes))


def _walk(node: object) -> Iterator[object]:
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(list(_children(node))))


def _children(node: object) -> Iterator[object]:
    if not is_dataclass(node):
        return
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, tuple):
            yield from (element for element in value if is_dataclass(element))
        elif is_dataclass(value):
            yield value


def _names(node: object) -> tuple[str, ...]:
    if isinstance(node, FieldNode):
        return node.fields
    if isinstance(node, VariableNode):
        return (node.name, *node.fields)
    return node.fields if isinstance(node, ParenthesizedNode) else ()


def _size(parsed: ParsedTemplate) -> int:
    """Nodes after all templates are put in where they are called.

    Raises:
        TemplateError: too many, or a template calls itself.
    """
    bodies = {definition.name: definition.body for definition in parsed.definitions}
    bodies |= {node.name: node.body for node in _walk(parsed) if isinstance(node, BlockNode)}
    sizes: dict[str, int] = {}
    under_way: set[str] = set()

    def size(body: object) -> int:
        total = 0
        for node in _walk(body):
            total += 1
            if isinstance(node, TemplateCallNode):
                total += named(node.name)
            if total > _MAX_NODES:
                raise TemplateError(f"the Go template has more than {_MAX_NODES} nodes")
        return total

    def named(name: str) -> int:
        if name in under_way or len(under_way) > 50:
            raise TemplateError(f"the Go template {name[:80]!r} calls itself, or templates are nested too deeply")
        if name not in sizes and name in bodies:
            under_way.add(name)
            sizes[name] = size(bodies[name])
            under_way.discard(name)
        return sizes.get(name, 1)

    return size(parsed.root)


def _find_response(node: object, depth: int) -> tuple[int, int] | None:
    """Where the first ``.Response`` that is printed ends, by document order, and in how many blocks."""
    if isinstance(node, ListNode):
        found = (_find_response(child, depth) for child in node.nodes)
        return next((place for place in found if place is not None), None)
    if isinstance(node, ActionNode):
        uses = any(isinstance(inner, FieldNode) and "Response" in inner.fields for inner in _walk(node))
        return (node.end, depth) if uses else None
    for name in ("body", "else_body"):
        body = getattr(node, name, None)
        if isinstance(body, ListNode):
            found_inside = _find_response(body, depth + 1)
            if found_inside is not None:
                return found_inside
    return None


def _find_think_tags(nodes: list[object]) -> tuple[str, str] | None:
    """The first and the last text of the innermost list that prints ``.Thinking``."""
    for node in nodes:
        if not isinstance(node, ListNode):
            continue
        prints = any(isinstance(child, ActionNode) and _prints_thinking(child) for child in node.nodes)
        texts = [child.text.strip() for child in node.nodes if isinstance(child, TextNode) and child.text.strip()]
        if prints and len(texts) >= 2:
            return texts[0], texts[-1]
    return None


def _prints_thinking(node: ActionNode) -> bool:
    return any(isinstance(inner, FieldNode | VariableNode) and "Thinking" in inner.fields for inner in _walk(node))
