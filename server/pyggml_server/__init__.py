"""The service around :mod:`pyggml`: model store, command line and (later) the HTTP server."""

__all__: list[str] = []
