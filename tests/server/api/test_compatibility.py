"""docs/compatibility.md is kept true: what it says works names tests, and they exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
ROWS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in TEXT.splitlines() if line[:3] > "| 0"]
ROWS = [row for row in ROWS if row[0].isdigit()]


@cache
def functions(path: str) -> frozenset[str]:
    file = ROOT / "tests" / f"{path}.py"
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_row_is_missing() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 173))


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_row(row: tuple[str, ...]) -> None:
    _, _, state, how, tests = row
    assert state in ("works", "differs", "not")
    assert state == "works" or how, "how it differs, or why it is not here"
    named = re.findall(r"`([\w/]+)::(\w+)`", tests)
    assert state == "not" or named, "no test is named"
    for path, name in named:
        assert name in functions(path), f"tests/{path}.py has no {name}"
