"""All settings that come from the environment: one table, read once, loud about bad values."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from pyggml_server.config import parsers
from pyggml_server.config.durations import KeepAlive
from pyggml_server.config.host import Host, parse_host
from pyggml_server.errors import ServerError

__all__ = ["SETTINGS", "Config", "ConfigError", "Setting"]


_SECRET: Final = ("api_keys", "api_key")
"""Fields whose text no message repeats."""


class ConfigError(ServerError, ValueError):
    """An environment variable holds a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: variable, field of :class:`Config`, default as text, parser, help."""

    variable: str
    field: str
    default: str
    parse: Callable[[str], Any]
    help: str


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a process; :data:`SETTINGS` says what each is and which variable it comes from."""

    models: Path
    host: Host
    origins: tuple[str, ...]
    keep_alive: KeepAlive
    load_timeout: float | None
    max_loaded_models: int
    num_parallel: int
    max_queue: int
    max_queue_per_model: int
    context_length: int
    flash_attention: bool | None
    kv_cache_types: tuple[str, str]
    kv_cache_type_k: str | None
    kv_cache_type_v: str | None
    gpu_overhead: int
    sched_spread: bool
    devices: tuple[str, ...]
    memory_margin: int
    prompt_cache: int
    no_prune: bool
    debug: int
    api_keys: tuple[str, ...]
    api_key: str
    tls_certificate: Path | None
    tls_key: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; a variable that is unset or empty means the default.

        Raises:
            ConfigError: a value does not parse; the message names the variable.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            # Ollama trims blanks and quotes too; people write quotes into service files.
            text = environment.get(setting.variable, "").strip().strip("\"'").strip()
            try:
                values[setting.field] = setting.parse(text or setting.default)
            except ValueError as error:
                shown = "" if setting.field in _SECRET else f"={text!r}"
                raise ConfigError(f"{setting.variable}{shown}: {error}") from error
        config = cls(**values)
        if (config.tls_certificate is None) != (config.tls_key is None):
            raise ConfigError("PYGGML_TLS_CERTIFICATE and PYGGML_TLS_KEY belong together: set both, or none")
        if config.flash_attention is False and config.cache_type_v not in parsers.PLAIN_CACHE_TYPES:
            raise ConfigError(
                f"OLLAMA_FLASH_ATTENTION=false: cached values of type {config.cache_type_v} need flash attention; "
                "take f16 for them (OLLAMA_KV_CACHE_TYPE, PYGGML_KV_CACHE_TYPE_V), or allow it"
            )
        return config

    @property
    def cache_type_k(self) -> str:
        """Element type of cached keys."""
        return self.kv_cache_type_k or self.kv_cache_types[0]

    @property
    def cache_type_v(self) -> str:
        """Element type of cached values."""
        return self.kv_cache_type_v or self.kv_cache_types[1]

    @property
    def server_url(self) -> str:
        """Where commands find the server; with a certificate it speaks https, whatever ``OLLAMA_HOST`` says."""
        host = self.host if self.tls_certificate is None else replace(self.host, scheme="https")
        return host.client_url

    @property
    def queue_per_model(self) -> int:
        """How many requests may wait for one model."""
        return self.max_queue_per_model or self.max_queue


SETTINGS: Final = (
    Setting(
        "OLLAMA_MODELS",
        "models",
        "~/.ollama/models",
        parsers.parse_folder,
        "folder of the model store; Ollama's own works",
    ),
    Setting(
        "OLLAMA_HOST",
        "host",
        "127.0.0.1:11434",
        parse_host,
        "address of the server: [scheme://]host[:port], for commands also with the /path where a proxy has it",
    ),
    Setting(
        "OLLAMA_ORIGINS",
        "origins",
        "",
        parsers.parse_origins,
        "web pages that may use the server besides local ones: a list with commas, * for any part",
    ),
    Setting(
        "OLLAMA_KEEP_ALIVE",
        "keep_alive",
        "5m",
        KeepAlive.parse,
        "how long a model stays in memory after a request: a duration or seconds; negative: for ever, 0: not",
    ),
    Setting(
        "OLLAMA_LOAD_TIMEOUT",
        "load_timeout",
        "5m",
        parsers.parse_stall,
        "how long loading may stand still: a duration or seconds; 0: no limit",
    ),
    Setting(
        "OLLAMA_MAX_LOADED_MODELS",
        "max_loaded_models",
        "0",
        parsers.parse_count(0),
        "models in memory at once; 0: three per GPU, three without one",
    ),
    Setting(
        "OLLAMA_NUM_PARALLEL",
        "num_parallel",
        "0",
        parsers.parse_count(0, 63),
        "requests that a model answers at once, each with a context of its own; 0: 4, fewer where memory is short",
    ),
    Setting(
        "OLLAMA_MAX_QUEUE",
        "max_queue",
        "512",
        parsers.parse_count(1),
        "requests that may wait, for models to load or to have time; more are refused (503)",
    ),
    Setting(
        "PYGGML_MAX_QUEUE_PER_MODEL",
        "max_queue_per_model",
        "0",
        parsers.parse_count(0),
        "requests that may wait for one model; 0: as many as OLLAMA_MAX_QUEUE",
    ),
    Setting(
        "OLLAMA_CONTEXT_LENGTH",
        "context_length",
        "0",
        parsers.parse_count(0),
        "context in tokens where neither request nor model says; 0: by GPU memory (4096, 32768 from 23 GiB, 262144 "
        "from 47 GiB)",
    ),
    Setting(
        "OLLAMA_FLASH_ATTENTION",
        "flash_attention",
        "auto",
        parsers.parse_switch,
        "fused attention: auto or true: where the device can do it; false: never",
    ),
    Setting(
        "OLLAMA_KV_CACHE_TYPE",
        "kv_cache_types",
        "f16",
        parsers.parse_cache_types,
        "type of cached keys and values (f16, q8_0, q4_0, ...); two between a comma: of keys, of values",
    ),
    Setting(
        "PYGGML_KV_CACHE_TYPE_K",
        "kv_cache_type_k",
        "",
        parsers.parse_cache_type,
        "type of cached keys; before OLLAMA_KV_CACHE_TYPE",
    ),
    Setting(
        "PYGGML_KV_CACHE_TYPE_V",
        "kv_cache_type_v",
        "",
        parsers.parse_cache_type,
        "type of cached values; before OLLAMA_KV_CACHE_TYPE",
    ),
    Setting(
        "OLLAMA_GPU_OVERHEAD",
        "gpu_overhead",
        "0",
        parsers.parse_size,
        "bytes of each GPU that are left to others (512M, 2G)",
    ),
    Setting(
        "OLLAMA_SCHED_SPREAD",
        "sched_spread",
        "false",
        parsers.parse_flag,
        "use all GPUs also for a model that fits on one",
    ),
    Setting(
        "PYGGML_DEVICES",
        "devices",
        "",
        parsers.parse_list,
        "devices that models may use, a list with commas: CUDA0,CUDA1, rpc://host:port, CPU; unset: all GPUs",
    ),
    Setting(
        "PYGGML_MEMORY_MARGIN",
        "memory_margin",
        "512M",
        parsers.parse_size,
        "bytes that stay free on each GPU when models are placed",
    ),
    Setting(
        "PYGGML_PROMPT_CACHE",
        "prompt_cache",
        "0",
        parsers.parse_size,
        "most bytes on disk for what long prompts leave in the cache, to read them once only (4G); 0: off",
    ),
    Setting(
        "OLLAMA_NOPRUNE",
        "no_prune",
        "false",
        parsers.parse_flag,
        "keep blobs that no model uses: when the server starts, and when a name gets another model",
    ),
    Setting(
        "OLLAMA_DEBUG",
        "debug",
        "0",
        parsers.parse_debug,
        "how much is logged: false; true: also what runners say; 2: also prompts",
    ),
    Setting(
        "PYGGML_API_KEYS",
        "api_keys",
        "",
        parsers.parse_keys,
        "keys that are let in, a list with commas, each as it is, as sha256:HEX of it, or @FILE with one on each line; "
        "unset: everybody is",
    ),
    Setting(
        "PYGGML_API_KEY",
        "api_key",
        "",
        str,
        "key that the commands show to the server",
    ),
    Setting(
        "PYGGML_TLS_CERTIFICATE",
        "tls_certificate",
        "",
        parsers.parse_file,
        "certificate chain (PEM) of the server; with it, it speaks https",
    ),
    Setting(
        "PYGGML_TLS_KEY",
        "tls_key",
        "",
        parsers.parse_file,
        "private key (PEM) of the certificate",
    ),
)
"""Every variable that is read."""
