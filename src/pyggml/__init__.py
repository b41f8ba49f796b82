"""pyggml: language models on ggml, with the graphs assembled in Python.

Importing this package loads no native code. The rooms are the doors: ``from pyggml.gguf import GGUFFile``,
``from pyggml.engine import Engine`` and so on; ``docs/structure.md`` has a sentence on each.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("pyggml")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
