"""Compiles templates so that whatever can take time or memory passes through the environment.

Jinja's sandbox already routes calls, attributes and (some) operators that way; comparisons, ``~``, slices, tuples,
dicts and loops are compiled to plain Python, and here they are not.
"""

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.ext import Extension
from jinja2.parser import Parser

__all__ = ["GenerationTag", "GuardedCodeGenerator", "add_ticks"]


class GuardedCodeGenerator(CodeGenerator):
    """Emits calls to the ``guarded_*`` methods of the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """``a ~ b``"""
        self._call("guarded_concat", node.nodes, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        """``a < b <= c``; all operands are evaluated, which only a chain can tell."""
        self.write("environment.guarded_compare(")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", ({operators[operand.op]!r}, ")
            self.visit(operand.expr, frame)
            self.write(")")
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        """``a[1:2]``; other subscripts already go through the environment."""
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        missing = nodes.Const(None)
        self._call("guarded_slice", [node.node, *(part or missing for part in parts)], frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        """``(a, b)``, unless it is the target of an assignment."""
        if node.ctx == "load":
            self._call("guarded_tuple", node.items, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        """``{a: b}``"""
        self._call("guarded_dict", [part for pair in node.items for part in (pair.key, pair.value)], frame)

    def _call(self, name: str, arguments: list[nodes.Expr], frame: Frame) -> None:
        self.write(f"environment.{name}(")
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


class GenerationTag(Extension):
    """``{% generation %}``: marks what the model wrote, for training; here it only prints its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        """The body as a call block, so that it has a scope of its own, as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("print_body"), [], [], body).set_lineno(line)

    def print_body(self, caller: Any) -> Any:
        """What the tag does at rendering."""
        return caller()


def add_ticks(tree: nodes.Template) -> nodes.Template:
    """Make, in place, every pass of every loop, and of every loop's condition, count as a step."""
    for loop in list(tree.find_all(nodes.For)):
        loop.body.insert(0, nodes.ExprStmt(_tick(loop), lineno=loop.lineno))
        if loop.test is not None:
            loop.test = nodes.And(_tick(loop), loop.test, lineno=loop.lineno)
    return tree


def _tick(loop: nodes.For) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute("guarded_pass"), [], [], None, None)
    call.set_lineno(loop.lineno)
    return call
