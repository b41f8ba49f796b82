"""A file fits in the head: the budget of lines, and the table that shows where it goes."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    "src/pyggml",
    "server/pyggml_server",
    "tests",
    "vendor/ggml",
    "scripts",
    "benchmarks",
    "examples",
    "CMakeLists.txt",
)
KINDS = (".py", ".c", ".h", ".cmake", ".txt", "")
LIMIT, MEDIAN, LONG_FUNCTION = 500, 150, 30
# A file over the limit needs its reason here. Tables and stubs may have one; logic may not.
REASONS: dict[str, str] = {}


def files(place: str) -> Iterator[Path]:
    top = ROOT / place
    for path in [top] if top.is_file() else sorted(top.rglob("*")):
        inside = path.relative_to(ROOT).as_posix()
        skipped = inside.startswith(("vendor/ggml/src/", "vendor/ggml/download/")) or "/data/" in inside
        if path.is_file() and path.suffix in KINDS and not skipped and "__pycache__" not in inside:
            yield path


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_over_the_limit() -> None:
    over = {p.relative_to(ROOT).as_posix(): n for place in PLACES for p in files(place) if (n := n_lines(p)) > LIMIT}
    assert set(over) == set(REASONS), f"split these, or say why not in REASONS: {over}"


@pytest.mark.parametrize("package", ["src/pyggml", "server/pyggml_server"])
def test_the_median_file_is_small(package: str) -> None:
    sizes = [n_lines(path) for path in files(package) if path.suffix == ".py"]
    assert statistics.median(sizes) < MEDIAN


@pytest.mark.parametrize("package", ["src/pyggml", "server/pyggml_server"])
def test_functions_are_rarely_long(package: str) -> None:
    found = [
        (n, f"{path.name}:{name}") for path in files(package) if path.suffix == ".py" for name, n in functions(path)
    ]
    long = sorted((item for item in found if item[0] > LONG_FUNCTION), reverse=True)
    assert len(long) <= 0.05 * len(found), long


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints; fails only when a place is empty."""
    rows = []
    for place in PLACES:
        sizes = sorted((n_lines(path), path.name) for path in files(place))
        if not sizes:
            continue
        counts = [n for n, _ in sizes]
        rows.append((place, len(counts), sum(counts), int(statistics.median(counts)), f"{sizes[-1][1]} {counts[-1]}"))
    with capsys.disabled():
        print(f"\n{'place':<24}{'files':>6}{'lines':>8}{'median':>8}  largest")
        for place, n, total, median, largest in rows:
            print(f"{place:<24}{n:>6}{total:>8}{median:>8}  {largest}")
    assert {"src/pyggml", "server/pyggml_server", "tests"} <= {row[0] for row in rows}
