"""Settings: every environment variable, and the values that they and requests share."""

from pyggml_server.config.durations import KeepAlive, format_duration, parse_duration
from pyggml_server.config.host import Host, parse_host
from pyggml_server.config.parsers import CACHE_TYPES
from pyggml_server.config.table import SETTINGS, Config, ConfigError, Setting
from pyggml_server.config.unused import UNUSED, find_unused

__all__ = [
    "CACHE_TYPES",
    "SETTINGS",
    "UNUSED",
    "Config",
    "ConfigError",
    "Host",
    "KeepAlive",
    "Setting",
    "find_unused",
    "format_duration",
    "parse_duration",
    "parse_host",
]
