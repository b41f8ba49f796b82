"""``python -m pyggml_server.runner --socket FD --parent PID``: one engine, served over a socket that it inherits."""

import argparse
import asyncio
import logging
import os
import signal
import socket

from pyggml_server.runner.life import die_with_parent, force_end_after, go_first, set_up_last_words

GRACE = 10
"""Seconds for closing the engine and saving prompts, before the kernel ends the process."""


def main() -> None:
    """Connect to the service, and do what it says until it goes."""
    parser = argparse.ArgumentParser(prog="python -m pyggml_server.runner", description=__doc__)
    parser.add_argument("--socket", required=True, type=int, help="file descriptor of the socket to the service")
    parser.add_argument("--parent", required=True, type=int, help="process id of the service; the runner ends with it")
    parser.add_argument("--debug", type=int, default=0, help="0: warnings, 1: decisions, 2: everything")
    options = parser.parse_args()
    die_with_parent(options.parent)
    go_first()
    set_up_last_words((logging.WARNING, logging.INFO)[options.debug] if options.debug < 2 else logging.DEBUG)
    asyncio.run(_serve(options.socket))
    # The engine is closed; what is left are threads of libraries that have nothing to save.
    logging.shutdown()
    os._exit(0)


async def _serve(descriptor: int) -> None:
    from pyggml_server.runner.link import Link

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        force_end_after(GRACE)
        ended.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    own = socket.socket(fileno=descriptor)
    own.set_inheritable(False)
    _, link = await loop.create_unix_connection(lambda: Link(on_end=end), sock=own)
    link.engine.start()
    await ended.wait()
    link.engine.stop()
    await asyncio.to_thread(link.engine.join)


if __name__ == "__main__":
    main()
