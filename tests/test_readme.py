"""README.md shows the examples as they are, and they are run by tests of their own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["library.py", "matmul.py"])
def test_the_examples_are_the_files(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    code = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert code in blocks
    assert len(code.splitlines()) <= 24


def test_the_two_commands_come_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^    scripts/(\w+).*\n    scripts/(\w+)", text, re.M)
    assert first is not None
    assert first.groups() == ("demo", "test")
    assert all((ROOT / "scripts" / name).is_file() for name in first.groups())
