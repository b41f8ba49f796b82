"""Wrong calls in a child process: each is refused with an error that says what is wrong, and the process lives."""

import subprocess
import sys
from pathlib import Path


def test_wrong_calls() -> None:
    child = Path(__file__).with_name("abuse_child.py")
    done = subprocess.run([sys.executable, str(child)], capture_output=True, text=True, timeout=250)
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert not failures, "\n".join(failures)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.rsplit(maxsplit=1)[-1]) >= 250
