"""Registries of models: the protocol, who we are to them, transfers that go on where they ended."""

from pyggml_server.registry.client import MANIFEST_TYPE, RefusedError, Repository, trusted_tls
from pyggml_server.registry.download import Download, DownloadState
from pyggml_server.registry.hub import HubFile, find_shards
from pyggml_server.registry.keys import SigningKey
from pyggml_server.registry.settings import RegistrySettings
from pyggml_server.registry.upload import Upload, push_manifest

__all__ = [
    "MANIFEST_TYPE",
    "Download",
    "DownloadState",
    "HubFile",
    "RefusedError",
    "RegistrySettings",
    "Repository",
    "SigningKey",
    "Upload",
    "find_shards",
    "push_manifest",
    "trusted_tls",
]
