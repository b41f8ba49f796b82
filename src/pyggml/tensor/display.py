"""What tensors and graphs look like: ``repr``, HTML for notebooks, Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyggml.errors import PyggmlError

from .dtype import can_dequantize, numpy_dtype

if TYPE_CHECKING:
    from .graph import Graph
    from .tensor import Tensor

__all__ = ["describe", "dot", "html"]

FIRST = 4
HTML_ROWS, HTML_COLUMNS = 8, 8


def describe(tensor: Tensor) -> str:
    """One line: name, type, operation, both shapes, where it is, and the first values once they are known."""
    if tensor.arena.closed:
        return f"<Tensor of a closed arena ({tensor.arena.closed})>"
    label = f" {tensor.name!r}" if tensor.name else ""
    where = tensor.buffer_name or "no memory"
    return (
        f"<Tensor{label} {tensor.dtype.name} {tensor.op} ggml{list(tensor.shape)} numpy{tensor.numpy_shape} "
        f"{where}{_first_values(tensor)}>"
    )


def _first_values(tensor: Tensor) -> str:
    dtype = tensor.dtype
    plain = numpy_dtype(dtype) is not None or can_dequantize(dtype)
    # An error's message holds the tensor's repr: nothing may fail here.
    if not (plain and tensor.is_allocated and tensor.n_elements and tensor.nb[0] == dtype.type_size):
        return ""
    values = tensor.first(FIRST)
    shown = ", ".join(f"{v:.4g}" for v in values.tolist())
    return f" [{shown}{', ...' if tensor.n_elements > len(values) else ''}]"


def html(tensor: Tensor) -> str:
    """A small table for notebooks: the description, and the first rows of the last two dimensions."""
    from html import escape  # here: its table of entities takes 300 KiB

    head = f"<div><code>{escape(describe(tensor))}</code></div>"
    if tensor.arena.closed or not tensor.is_allocated or not tensor.n_elements:
        return head
    try:
        values = tensor.numpy()
    except PyggmlError:  # a type or layout without conversion
        return head
    block = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else np.atleast_2d(values)
    rows = []
    for line in block[:HTML_ROWS, :HTML_COLUMNS].tolist():
        cells = "".join(f"<td>{value:.4g}</td>" for value in line)
        rows.append(f"<tr>{cells}{'<td>…</td>' if block.shape[1] > HTML_COLUMNS else ''}</tr>")
    if block.shape[0] > HTML_ROWS:
        rows.append("<tr><td>…</td></tr>")
    return f"{head}<table>{''.join(rows)}</table>"


def dot(graph: Graph) -> str:
    """Graphviz source: boxes are nodes, ellipses leaves, an arrow goes from each operand to its node."""
    lines = ["digraph ggml {", "  rankdir=TB; node [fontname=monospace fontsize=10];"]
    keys: dict[int, str] = {}
    for i, tensor in enumerate([*graph.leaves(), *graph.nodes()]):
        keys[tensor.address] = f"t{i}"
        shape = "ellipse" if tensor.op == "NONE" else "box"
        text = f"{tensor.op} {tensor.name}" if tensor.op != "NONE" else tensor.name
        label = f"{text}\\n{tensor.dtype.name} {list(tensor.shape)}".replace('"', "'")
        lines.append(f'  t{i} [shape={shape} label="{label}"];')
    for node in graph.nodes():
        for j, source in enumerate(node.sources()):
            if source.address in keys:
                lines.append(f'  {keys[source.address]} -> {keys[node.address]} [label="{j}"];')
    return "\n".join([*lines, "}"])
