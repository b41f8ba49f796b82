"""Microseconds of CPU that a streamed token costs the service: socket of the runner, scheduler, API, HTTP.

    python benchmarks/service_cpu.py [--clients N] [--tokens N] [--step-ms MS] [--path /api/chat] [--model NAME]

Method: the real application behind uvicorn, in a process of its own, with a runner that computes nothing: it answers
every request with one token per step, all requests in one write, as the real one does. Clients are processes that only
read. What counts is the CPU time (user and system) of the service's process over the number of tokens, without what it
takes while idle. Then the floor on the same machine: a process that wakes at each step and sends as many bytes over as
many sockets, and does nothing else.
"""

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEXT = " word"
CLIENT = "import socket,sys\nlink=socket.socket(fileno=int(sys.argv[1]))\nwhile link.recv(1<<16): pass"


def run_stub() -> None:
    """The runner: knows the protocol, and no model."""
    from pyggml_server.protocol import (
        VERSION,
        Done,
        FrameReader,
        Generate,
        Hello,
        Load,
        Loaded,
        Ping,
        Pong,
        Shutdown,
        Text,
        ToRunner,
        pack,
    )  # fmt: skip

    link = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket") + 1]))
    step = float(os.environ["STEP_SECONDS"])
    reader, left, due = FrameReader(ToRunner), dict[int, int](), 0.0
    link.sendall(pack([Hello(VERSION, os.getpid())]))
    while True:
        ready, _, _ = select.select([link], [], [], max(0.0, due - time.monotonic()) if left else None)
        for message in reader.feed(link.recv(1 << 16)) if ready else ():
            if isinstance(message, Load):
                sizes = {"n_vocab": 1, "n_embd": 1, "size": 1, "size_vram": 0, "load_ns": 1, "n_ctx_train": 8192}
                link.sendall(pack([Loaded(message.id, n_ctx=8192, n_parallel=64, flash_attn=True, **sizes)]))
            elif isinstance(message, Generate):
                left[message.id] = message.max_tokens or 1
            elif isinstance(message, Ping):
                link.sendall(pack([Pong(message.id, "ready")]))
            elif isinstance(message, Shutdown):
                return
        if left and time.monotonic() >= due:
            due = time.monotonic() + step
            out: list[Any] = []
            for id in list(left):
                out.append(Text(id, [left[id]], TEXT))
                left[id] -= 1
                if not left[id]:
                    del left[id]
                    out.append(Done(id, "length", eval_tokens=1))
            link.sendall(pack(out))


def run_service() -> None:
    """The service, with that runner."""
    import uvicorn

    from pyggml_server.api import create_app
    from pyggml_server.config import Config
    from pyggml_server.scheduler import ModelScheduler
    from pyggml_server.store import Store, Transfers

    config = Config.from_environment()
    store = Store(config.models)
    scheduler = ModelScheduler(config, runner_command=(sys.executable, __file__, "--stub"))
    app = create_app(config, store, scheduler, Transfers(config, store))
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", loop="asyncio", access_log=False)).run([listening])


def run_floor(fds: list[int], n_tokens: int, n_bytes: int, step: float) -> None:
    """Wake, send, sleep."""
    links, data = [socket.socket(fileno=fd) for fd in fds], b"x" * n_bytes
    for _ in range(n_tokens):
        time.sleep(step)
        for link in links:
            link.sendall(data)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(path: str, model: str, tokens: int) -> bytes:
    """A request for so many tokens, on a connection of its own."""
    options = {"num_predict": tokens, "num_ctx": 8192, "ignore_eos": True}
    body: dict[str, Any] = {"model": model, "stream": True, "max_tokens": tokens, "options": options}
    body |= {"messages": [{"role": "user", "content": "Hello"}]} if "chat" in path else {"prompt": "Hello"}
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return head.encode() + data


def measure(options: argparse.Namespace) -> tuple[float, int]:
    """Microseconds per token of the service, and bytes that a token takes on the wire."""
    environment = os.environ | {"STEP_SECONDS": str(options.step_ms / 1000), "OLLAMA_KEEP_ALIVE": "-1"}
    with subprocess.Popen([sys.executable, __file__, "--service"], env=environment, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        address = ("127.0.0.1", int(service.stdout.readline()))
        with socket.create_connection(address) as link:  # loads the model, and sizes a token
            link.sendall(request(options.path, options.model, 101))
            answer = b"".join(iter(lambda: link.recv(1 << 16), b""))
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(answer.decode("utf-8", "replace"))
        time.sleep(1)
        resting = cpu_seconds(service.pid)
        time.sleep(2)
        began, started = cpu_seconds(service.pid), time.monotonic()
        idle = (began - resting) / 2
        clients = []
        for _ in range(options.clients):
            with socket.create_connection(address) as link:
                link.sendall(request(options.path, options.model, options.tokens))
                clients.append(
                    subprocess.Popen([sys.executable, "-c", CLIENT, str(link.fileno())], pass_fds=[link.fileno()])
                )
        for client in clients:
            client.wait()
        used = cpu_seconds(service.pid) - began - idle * (time.monotonic() - started)
        service.terminate()
    return used * 1e6 / (options.clients * options.tokens), len(answer) // 101


def floor(options: argparse.Namespace, n_bytes: int) -> float:
    """Microseconds per token of a process that only wakes and sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients, links = [], []
        for _ in range(options.clients):
            with socket.create_connection(listening.getsockname()) as link:
                clients.append(
                    subprocess.Popen([sys.executable, "-c", CLIENT, str(link.fileno())], pass_fds=[link.fileno()])
                )
            links.append(listening.accept()[0])
        fds = [link.fileno() for link in links]
        step = options.step_ms / 1000
        command = [sys.executable, __file__, "--floor", json.dumps([fds, options.tokens, n_bytes, step])]
        with subprocess.Popen(command, pass_fds=fds) as sender:
            for link in links:
                link.close()
            _, _, usage = os.wait4(sender.pid, 0)
            sender.returncode = 0
        for client in clients:
            client.wait()
    return (usage.ru_utime + usage.ru_stime) * 1e6 / (options.clients * options.tokens)


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4000, help="of each client")
    parser.add_argument("--step-ms", type=float, default=4.0, help="from one token to the next")
    parser.add_argument(
        "--path", default="/api/chat", help="/api/chat, /api/generate, /v1/chat/completions, /v1/completions"
    )
    parser.add_argument(
        "--model", default="smollm2:135m", help="of the store at OLLAMA_MODELS; its weights are not read"
    )
    options = parser.parse_args()
    cost, n_bytes = measure(options)
    least = floor(options, n_bytes)
    print(
        f"{options.path:22} {options.clients} clients, a token each {options.step_ms:g} ms: {cost:.1f} us of CPU per "
        f"token; only waking and sending: {least:.1f} us"
    )


if __name__ == "__main__":
    if "--stub" in sys.argv:
        run_stub()
    elif "--service" in sys.argv:
        run_service()
    elif "--floor" in sys.argv:
        run_floor(*json.loads(sys.argv[-1]))
    else:
        main()
