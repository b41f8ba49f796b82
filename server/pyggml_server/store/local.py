"""Files on this machine that a Modelfile names: found, hashed, put among the blobs."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pyggml_server.errors import BadRequestError
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Progress, Report

__all__ = ["add_files", "find_files"]

# the first group that matches is the model's weights, as Ollama chooses them
_WEIGHTS: Final[Sequence[Sequence[str]]] = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("*.safetensors",),
    ("*.gguf",),
)
_BESIDE: Final = ("*.json", "*/*.json", "tokenizer.model", "*/tokenizer.model", "vocab.txt", "chat_template.jinja")
_CHUNK: Final = 1 << 20


def find_files(path: Path) -> dict[str, Path]:
    """The files of a model: path relative to its folder → where it is.

    Args:
        path: A GGUF file (its other shards are found beside it), or a folder.

    Raises:
        BadRequestError: the folder holds no model, or a link in it leads out of it.
    """
    if path.is_file():
        stem, found, rest = path.name.partition("-of-")
        shards = sorted(path.parent.glob(f"{_escape(stem[:-5])}?????-of-{_escape(rest)}")) if found else []
        return {shard.name: shard for shard in shards or [path]}
    for patterns in _WEIGHTS:
        weights = _glob(path, patterns)
        if weights:
            beside = [] if weights[0].suffix == ".gguf" else _glob(path, _BESIDE)
            return {str(file.relative_to(path)): _inside(path, file) for file in [*weights, *beside]}
    raise BadRequestError(f"{path}: there are no *.safetensors and no *.gguf in this folder")


def add_files(store: Store, files: dict[str, Path], report: Report) -> dict[str, str]:
    """Put files among the blobs: path → digest, as a request to create a model lists them."""
    digests = {}
    for name, path in files.items():
        report(Progress(f"hashing {name}"))
        with path.open("rb") as stream:
            digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
            if store.blobs.find(digest) is None:
                stream.seek(0)
                size = path.stat().st_size
                store.blobs.add_stream(stream, size=size, status=f"copying {name}", expected=digest, report=report)
        digests[name] = digest
    return digests


def _glob(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _inside(folder: Path, file: Path) -> Path:
    # the caches of model hubs are made of links; those within the same cache are fine
    real, root = file.resolve(), folder.resolve()
    allowed = [root, *(parent for parent in root.parents if parent.name.startswith("models--"))]
    if not any(real.is_relative_to(parent) for parent in allowed):
        raise BadRequestError(f"insecure path: {file} leads out of {folder}")
    return real


def _escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
