"""``python -m pyggml.quantize SOURCE TARGET MIX``: quantize in a process of its own.

Standard output has one JSON object per line: ``{"completed": bytes, "total": bytes}``, at the end ``{"done": true}``
or ``{"error": text, "kind": class}``.
"""

import json
import sys
import time
from typing import Any, Final

from pyggml.convert import find_mix
from pyggml.errors import PyggmlError
from pyggml.quantize.file import quantize_file

_INTERVAL: Final = 0.1


class _Lines:
    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, completed: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _INTERVAL or completed == total:
            self._last = now
            _say({"completed": completed, "total": total})


def _say(document: dict[str, Any]) -> None:
    # a reader that is gone ends this process: BrokenPipeError
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run; the exit status is 0 after success."""
    if len(sys.argv) != 4:
        sys.stderr.write("usage: python -m pyggml.quantize SOURCE TARGET MIX\n")
        return 2
    source, target, mix = sys.argv[1:]
    try:
        quantize_file(source, target, find_mix(mix), progress=_Lines())
    except (PyggmlError, OSError) as error:
        _say({"error": str(error), "kind": type(error).__name__})
        return 1
    _say({"done": True})
    return 0


if __name__ == "__main__":
    sys.exit(main())
