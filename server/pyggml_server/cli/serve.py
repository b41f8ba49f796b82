"""``pyggml serve``."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
import uvicorn

from pyggml_server.cli.checks import check_start
from pyggml_server.cli.heads import BoundedHeads
from pyggml_server.config import SETTINGS, Config, find_unused
from pyggml_server.errors import ServerError
from pyggml_server.scheduler import ModelScheduler

__all__ = ["serve"]

_log: Final = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_KEEP_ALIVE: Final = 75
_GRACE: Final = 10
"""Seconds for what is under way when the server ends, such as writing down how far a download came."""


class _Command(click.Command):
    """Its help lists the variables."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment"):
            formatter.write_dl([(s.variable, f"{s.help} [{s.default or 'unset'}]") for s in SETTINGS])


@click.command(cls=_Command)
def serve() -> None:
    """Serve models at OLLAMA_HOST, until it is told to stop (Ctrl-C, SIGTERM)."""
    config = Config.from_environment()
    _set_up_log(config.debug)
    for name, reason in find_unused(os.environ).items():
        _log.warning("%s is set and means nothing here: %s", name, reason)
    check_start(config)
    sockets = [_listen(config)]
    server = _make_server(config)
    scheme = "https" if config.tls_certificate is not None else "http"
    host, port = sockets[0].getsockname()[:2]
    _log.info("listening on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
    if not config.host.is_loopback and not config.api_keys:
        _log.warning(
            "everybody who reaches %s can use this server: PYGGML_API_KEYS lets in only those with a key", host
        )
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(1)


def _set_up_log(debug: int) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("asyncio", "httpx2", "httpcore2", "uvicorn.error", "pyggml_server.api.prompts"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if debug > 1 else logging.WARNING)


def _listen(config: Config) -> socket.socket:
    """A socket at the address of the settings.

    Raises:
        click.ClickException: it is taken, or not of this machine.
    """
    host = config.host
    family = socket.AF_INET6 if ":" in host.host else socket.AF_INET
    try:
        return socket.create_server((host.host, host.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host.host}:{host.port}: {error.strerror}; stop what listens there, or set OLLAMA_HOST"
        ) from error


def _make_server(config: Config) -> "_Server":
    from pyggml_server.api import create_app
    from pyggml_server.cli.storing import open_store
    from pyggml_server.store import Transfers

    store = open_store(config)
    if not config.no_prune:
        _prune(store)
    scheduler = ModelScheduler(config)
    app = create_app(config, store, scheduler, Transfers(config, store))
    return _Server(
        uvicorn.Config(
            app,
            http=BoundedHeads,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # the application writes its own
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
        ),
        scheduler,
    )


def _prune(store: Any) -> None:
    try:
        removed = store.prune()
    except (OSError, ServerError) as error:
        _log.warning("blobs that no model uses stay: %s", error)
    else:
        if removed:
            _log.info("%d blobs that no model uses were removed", len(removed))


class _Server(uvicorn.Server):
    """Ends streams by ending their runners, instead of waiting for the last token of each."""

    def __init__(self, config: uvicorn.Config, scheduler: ModelScheduler) -> None:
        super().__init__(config)
        self._scheduler = scheduler

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a server that ended because it was told to has ended well: exit status 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, end what runs, then what uvicorn does."""
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        await self._scheduler.close()
        await super().shutdown(sockets)
