"""pyggml: language models on ggml, with the graphs assembled in Python.

Importing this package loads no native code. The rooms are the doors: ``from pyggml.gguf import GGUFFile``,
``from pyggml.engine import Engine`` and so on; ``docs/structure.md`` has a sentence on each.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"  # as in pyproject.toml; asking importlib.metadata would load 7 MiB
