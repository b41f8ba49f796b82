"""The command line ``pyggml``."""

__all__: list[str] = []
