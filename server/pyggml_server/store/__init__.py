"""The model store in Ollama's layout, and the ways models get into it."""

from pyggml_server.store.blobs import Blob, BlobStore
from pyggml_server.store.bundle import export_model, import_model
from pyggml_server.store.details import ModelDetails, describe_gguf, human_bytes, human_count
from pyggml_server.store.local import add_files, find_files
from pyggml_server.store.manifests import Layer, Manifest
from pyggml_server.store.models import ModelEntry, Store, StoredModel
from pyggml_server.store.pip import PipDownloader, Requirement
from pyggml_server.store.progress import Progress, Report, silent
from pyggml_server.store.pull import Puller
from pyggml_server.store.sources import (
    SHORT_NAMES,
    FileSource,
    PackageSource,
    Resolved,
    ShortName,
    Source,
    resolve_source,
)
from pyggml_server.store.texts import modelfile_text, parameter_lines
from pyggml_server.store.transfers import Transfers

__all__ = [
    "SHORT_NAMES",
    "Blob",
    "BlobStore",
    "FileSource",
    "Layer",
    "Manifest",
    "ModelDetails",
    "ModelEntry",
    "PackageSource",
    "PipDownloader",
    "Progress",
    "Puller",
    "Report",
    "Requirement",
    "Resolved",
    "ShortName",
    "Source",
    "Store",
    "StoredModel",
    "Transfers",
    "add_files",
    "describe_gguf",
    "export_model",
    "find_files",
    "human_bytes",
    "human_count",
    "import_model",
    "modelfile_text",
    "parameter_lines",
    "resolve_source",
    "silent",
]
