"""Another process on the loopback address that offers its CPU."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rpc_server"]

SERVER = "import sys; from pyggml.tensor import rpc; rpc.serve('127.0.0.1', int(sys.argv[1]), n_threads=1)"


@contextmanager
def rpc_server() -> Iterator[str]:
    """Start one; yields ``127.0.0.1:port``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        assert process.poll() is None, "the server ended"
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
