"""The process around one engine: ``python -m pyggml_server.runner``. Nothing of the service imports it."""

__all__: list[str] = []
