"""pyggml serve against llama-server: the same file, the same requests, both running, asked in turn.

    python benchmarks/server.py --llama-server PATH [--clients 1 8] [--rounds 5] [--prefix "chrt -f 10"] MODEL.gguf

Both speak OpenAI's `/v1/completions`, streamed, with prompts of random tokens (each a new one, the same for both) and
answers of a fixed length (greedy, no end before). In a round each server answers alone, A B, then B A, ...; the other
one waits without work. A ratio above 1 is better for pyggml; what counts is the median of the rounds' ratios.

Clients are asyncio's streams in this process, each with a connection per request; they only note when pieces come.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from pyggml_server.names import Name
from pyggml_server.store import Store

MODEL = "bench"
START_TIMEOUT = 180.0


@dataclass(frozen=True)
class Timing:
    """One answer: seconds at which the request went out, and at which the pieces came."""

    sent: float
    pieces: Sequence[float]
    n_tokens: int

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.pieces, self.pieces[1:], strict=False)]


@dataclass(frozen=True)
class Server:
    """Where it listens, and what it wants to be told beyond OpenAI's fields."""

    name: str
    port: int
    extra: dict[str, Any]


Figure = Callable[[Sequence[Timing], float], float]  # of all answers, and the seconds that they took in all

FIGURES: dict[str, Figure] = {
    "requests/s": lambda t, wall: len(t) / wall,
    "tokens/s": lambda t, wall: sum(each.n_tokens for each in t) / wall,
    "TTFT p50, ms": lambda t, _: 1e3 * median(each.pieces[0] - each.sent for each in t),
    "TTFT p95, ms": lambda t, _: 1e3 * percentile([each.pieces[0] - each.sent for each in t]),
    "between tokens p50, ms": lambda t, _: 1e3 * median(gap for each in t for gap in each.gaps),
    "between tokens p95, ms": lambda t, _: 1e3 * percentile([gap for each in t for gap in each.gaps]),
}


def percentile(values: Sequence[float], percent: int = 95) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


async def ask(server: Server, prompt: list[int], n_gen: int) -> Timing:
    """One request on a connection of its own."""
    fields = {"model": MODEL, "prompt": prompt, "max_tokens": n_gen, "temperature": 0, "stream": True}
    body = json.dumps({**fields, "stream_options": {"include_usage": True}, **server.extra}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    sent, pieces, n_tokens = time.perf_counter(), [], 0
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{server.name}: {status.decode()} {(await reader.read()).decode()}")
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        now, document = time.perf_counter(), json.loads(line[6:])
        if any(choice.get("text") for choice in document.get("choices", ())):
            pieces.append(now)
        n_tokens = (document.get("usage") or {}).get("completion_tokens", n_tokens)
    writer.close()
    if n_tokens != n_gen or not pieces:
        raise SystemExit(f"{server.name}: {n_tokens} tokens in {len(pieces)} pieces came, {n_gen} were asked for")
    return Timing(sent, pieces, n_tokens)


async def block(server: Server, prompts: Sequence[list[int]], *, clients: int, n_gen: int) -> dict[str, float]:
    """All prompts by so many clients at once; the figures."""
    waiting, timings = list(prompts), []

    async def client() -> None:
        while waiting:
            timings.append(await ask(server, waiting.pop(), n_gen))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - began
    return {name: figure(timings, wall) for name, figure in FIGURES.items()}


async def compare(servers: Sequence[Server], args: argparse.Namespace) -> None:
    """Print a table per number of clients."""
    draw = random.Random(1)

    def prompts(n: int) -> list[list[int]]:
        return [[draw.randrange(100, 40_000) for _ in range(args.n_prompt)] for _ in range(n)]

    for server in servers:  # loads the weights, touches all sequences
        await block(server, prompts(max(args.clients)), clients=max(args.clients), n_gen=4)
    for clients in args.clients:
        found: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
        for index in range(args.rounds):
            same = prompts(clients * args.requests)
            for server in servers if index % 2 == 0 else reversed(servers):
                found[server.name].append(await block(server, same, clients=clients, n_gen=args.n_gen))
        print_rows(clients, *found.values())


def print_rows(clients: int, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    for name in FIGURES:
        ratios = [
            a[name] / b[name] if name.endswith("/s") else b[name] / a[name] for a, b in zip(ours, theirs, strict=True)
        ]
        print(
            f"| {clients} | {name} | {median(each[name] for each in ours):.2f} "
            f"| {median(each[name] for each in theirs):.2f} | **{median(ratios):.3f}** "
            f"| {min(ratios):.3f} to {max(ratios):.3f} |",
            flush=True,
        )


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background, until the block ends."""
    with log.open("w") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | variables)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


def wait_for(running: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """Until the log says so."""
    end = time.monotonic() + START_TIMEOUT
    while running.poll() is None and time.monotonic() < end:
        if found := re.search(pattern, log.read_text()):
            return found
        time.sleep(0.1)
    raise SystemExit(f"{log.name}: no {pattern!r} after {START_TIMEOUT:.0f} s: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def pyggml_serve(args: argparse.Namespace, folder: Path) -> Iterator[Server]:
    """``pyggml serve`` with a store of its own, in which the file is linked."""
    store = Store(folder / "models")
    with args.model.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    link = store.blobs.path(digest)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(args.model.resolve())
    blob = store.blobs.find(digest)
    if blob is None:
        raise SystemExit(f"{args.model}: the link to it in {link.parent} cannot be read")
    options = {"num_ctx": args.n_ctx, "num_thread": args.threads}
    store.write_model(Name.parse(MODEL), model=blob, params=options)
    command = [*shlex.split(args.prefix), sys.executable, "-m", "pyggml_server.cli.main", "serve"]
    settings = {"OLLAMA_MODELS": str(store.folder), "OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_KEEP_ALIVE": "-1"}
    settings |= {"OLLAMA_NUM_PARALLEL": str(max(args.clients)), "OLLAMA_FLASH_ATTENTION": "true"}
    log = folder / "pyggml.log"
    with process(command, log, **settings) as running:
        port = int(wait_for(running, log, r"listening on http://127\.0\.0\.1:(\d+)")[1])
        yield Server("pyggml", port, {"options": {"ignore_eos": True}})


@contextlib.contextmanager
def llama_server(args: argparse.Namespace, folder: Path) -> Iterator[Server]:
    """``llama-server`` with as many slots of the same size; all else as it is by default."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    n = max(args.clients)
    command = [*shlex.split(args.prefix), args.llama_server, "-m", str(args.model), "--port", str(port), "-fa", "on"]
    command += ["-t", str(args.threads), "-np", str(n), "-c", str(n * args.n_ctx), *shlex.split(args.llama_options)]
    log = folder / "llama-server.log"
    with process(command, log) as running:
        wait_for(running, log, r"server is listening|listening on http")
        yield Server("llama-server", port, {"ignore_eos": True})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="GGUF file; both servers map the same one")
    parser.add_argument("--llama-server", required=True, help="path of llama-server")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2, help="per client and round")
    parser.add_argument("-p", "--n-prompt", type=int, default=128)
    parser.add_argument("-n", "--n-gen", type=int, default=64)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--n-ctx", type=int, default=512, help="context of a sequence")
    parser.add_argument("--prefix", default="", help='put before both commands, such as "chrt -f 10"')
    parser.add_argument("--llama-options", default="", help="more options of llama-server")
    args = parser.parse_args()
    print("| clients | figure | pyggml | llama-server | ratio | range |")
    print("|--:|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pyggml_serve(args, folder) as ours, llama_server(args, folder) as theirs:
            asyncio.run(compare((ours, theirs), args))


if __name__ == "__main__":
    main()
