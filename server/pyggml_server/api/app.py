"""The application: routes, what surrounds them, and what lives as long as it runs."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

import pyggml
from pyggml_server.api import v1
from pyggml_server.api.catalog import Catalog
from pyggml_server.api.encodings import ContentEncoding
from pyggml_server.api.endpoint import Call, Document, Endpoint, Operation, Reply
from pyggml_server.api.generation import Generator
from pyggml_server.api.metrics import ServerMetrics
from pyggml_server.api.middleware import AccessLog, ApiKeys, BodyLimit
from pyggml_server.api.openapi import build_document
from pyggml_server.api.origins import Cors, HostGuard, is_loopback
from pyggml_server.api.routes import OPERATIONS, describe
from pyggml_server.api.state import ApiState
from pyggml_server.api.vectors import VectorService
from pyggml_server.config import Config
from pyggml_server.scheduler import ModelScheduler
from pyggml_server.store import Store, Transfers

__all__ = ["create_app"]

_log: Final = logging.getLogger(__name__)
_BODY_LIMIT: Final = 64 * 2**20
_DEFAULT_CTX: Final = 4096


def create_app(config: Config, store: Store, scheduler: ModelScheduler, transfers: Transfers) -> Starlette:
    """An ASGI application that serves models.

    Its lifespan starts and closes the scheduler.

    Args:
        config: The settings.
        store: Models on disk.
        scheduler: Models in memory.
        transfers: Models under way.
    """
    state = _make_state(config, store, scheduler, transfers)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await scheduler.start()
        try:
            yield
        finally:
            await scheduler.close()
            state.catalog.close()

    middleware = [Middleware(AccessLog, metrics=state.metrics)]
    if is_loopback(config.host.host):
        middleware.append(Middleware(HostGuard))
    middleware.append(Middleware(Cors, origins=config.origins))
    if config.api_keys:
        middleware.append(Middleware(ApiKeys, keys=config.api_keys))
    middleware.append(Middleware(BodyLimit, limit=_BODY_LIMIT, free="/api/blobs/"))
    middleware.append(Middleware(ContentEncoding, limit=_BODY_LIMIT, free="/api/blobs/"))
    return Starlette(
        routes=_routes(state),
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={404: _not_found, 405: _wrong_method},
    )


def _make_state(config: Config, store: Store, scheduler: ModelScheduler, transfers: Transfers) -> ApiState:
    catalog = Catalog(store)
    metrics = ServerMetrics()
    default_ctx = config.context_length or _DEFAULT_CTX
    return ApiState(
        config=config,
        store=store,
        scheduler=scheduler,
        transfers=transfers,
        catalog=catalog,
        generator=Generator(catalog, scheduler, metrics=metrics, default_ctx=default_ctx),
        vectors=VectorService(catalog, scheduler),
        metrics=metrics,
    )


def _routes(state: ApiState) -> list[BaseRoute]:
    document = Document(build_document([*map(describe, OPERATIONS), *v1.describe()], version=pyggml.__version__))

    async def openapi(call: Call) -> Reply:
        return document

    own = Operation(method="GET", path="/openapi.json", handler=openapi, summary="This document.")
    table: dict[str, dict[str, Operation]] = {}
    for operation in (*OPERATIONS, own):
        table.setdefault(operation.path, {})[operation.method] = operation
    routes: list[BaseRoute] = [
        Route(path, Endpoint(state, by_method), methods=list(by_method)) for path, by_method in table.items()
    ]
    return [*routes, *v1.routes(state)]


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers=headers)
