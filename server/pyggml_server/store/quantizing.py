"""Quantization in a child process: native code stays out of the service."""

import json
import subprocess
import sys
import threading
from pathlib import Path

from pyggml.convert import Mix
from pyggml_server.errors import BadRequestError, StoreError
from pyggml_server.store.progress import Progress, Report

__all__ = ["quantize_blob"]


def quantize_blob(source: Path, target: Path, mix: Mix, *, status: str, report: Report) -> None:
    """Quantize a GGUF file.

    Args:
        source: The file.
        target: The file to make.
        mix: What to make of it.
        status: The text for ``report``.
        report: Receives the progress; when it raises, the child is ended.

    Raises:
        BadRequestError: the weights cannot be quantized.
        StoreError: the child failed.
    """
    command = [sys.executable, "-m", "pyggml.quantize", str(source), str(target), mix.name]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        words = list[str]()
        reader = threading.Thread(target=lambda: words.append((child.stderr.read() if child.stderr else "")[-2000:]))
        reader.start()
        done = False
        try:
            for line in child.stdout or ():
                event = json.loads(line)
                if "error" in event:
                    raise BadRequestError(event["error"])
                done = bool(event.get("done"))
                if "total" in event:
                    report(Progress(status, event["completed"], event["total"]))
        finally:
            if not done:
                child.kill()
            child.wait()
            reader.join()
    if not done or child.returncode:
        last = words[0].strip().splitlines()[-1:] if words else []
        raise StoreError(f"quantizing ended with status {child.returncode}: {' '.join(last)}")
