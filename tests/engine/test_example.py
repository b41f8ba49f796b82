"""The example that the README shows runs, and says what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.tiny import TinyModel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "library.py"


def run(model: Path) -> list[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLE), str(model)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout.splitlines()


def test_it_fits_on_a_screen() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 20


def test_with_a_tiny_model(llama: TinyModel) -> None:
    lines = run(llama.path)
    logits = [float(line.split()[0]) for line in lines[:3]]
    assert logits == sorted(logits, reverse=True)
    assert re.fullmatch(r"\d+\.\d tokens/s; (\d+) of (\d+) prompt tokens were cached", lines[-1])


@pytest.mark.model
def test_with_a_real_model(smollm2_path: Path) -> None:
    lines = run(smollm2_path)
    assert lines[0].endswith("' Paris'")
    assert "Paris" in lines[3]
    assert lines[-1].endswith("4 of 5 prompt tokens were cached")
