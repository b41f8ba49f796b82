"""What must hold before the server starts, and can be told only by looking: folders, certificates, devices."""

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from pyggml_server.config import Config, ConfigError

__all__ = ["check_start"]

_DEVICES: Final = "from pyggml.tensor import devices; print(*(device.name for device in devices()), sep='\\n')"
_PATIENCE: Final = 60


def check_start(config: Config) -> None:
    """Look at what the settings name.

    Raises:
        ConfigError: a file, a folder or a device cannot be used, or settings do not go together.
    """
    if config.host.path:
        raise ConfigError(
            f"OLLAMA_HOST={config.host.url}: the server has its routes at the root; {config.host.path} is for commands "
            "that reach it through a proxy"
        )
    if config.host.scheme == "https" and config.tls_certificate is None:
        raise ConfigError("OLLAMA_HOST says https: set PYGGML_TLS_CERTIFICATE and PYGGML_TLS_KEY, too")
    if config.tls_certificate is not None and config.tls_key is not None:
        _check_tls(config.tls_certificate, config.tls_key)
    _check_folder(config.models)
    _check_devices(config.devices)


def _check_tls(certificate: Path, key: Path) -> None:
    def no_password() -> str:
        raise ConfigError(f"PYGGML_TLS_KEY={key}: the key has a password; write it without one (openssl pkey)")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)  # tells apart which of the two files is wrong
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"PYGGML_TLS_CERTIFICATE={certificate}: no certificate in PEM form ({_reason(error)})"
        ) from error
    try:
        context.load_cert_chain(certificate, key, no_password)
    except (OSError, ssl.SSLError) as error:
        text = "it is not the key of the certificate" if "MISMATCH" in _reason(error) else "no private key in PEM form"
        raise ConfigError(f"PYGGML_TLS_KEY={key}: {text} ({_reason(error)})") from error


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", "") or error.strerror or error)


def _check_folder(folder: Path) -> None:
    """The store must be there, or can be made; one that cannot be written to can still be served from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        next(folder.iterdir(), None)
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise ConfigError(f"OLLAMA_MODELS={folder}: {reason}; name a folder that can be used") from error


def _check_devices(names: tuple[str, ...]) -> None:
    """Devices of this machine must be there; whether an RPC server answers is seen when a model is loaded."""
    wanted = [
        name for name in names if not name.lower().startswith("rpc://") and name.upper() not in ("CPU", "GPU", "GPUS")
    ]
    if not wanted:
        return
    try:  # in a process of its own: this one loads no native code
        found = subprocess.run(
            [sys.executable, "-c", _DEVICES],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=os.environ,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"PYGGML_DEVICES: the devices of this machine cannot be listed ({error})") from error
    unknown = [name for name in wanted if name.lower() not in [each.lower() for each in found]]
    if unknown:
        raise ConfigError(f"PYGGML_DEVICES: no device {unknown[0]!r}; this installation has {', '.join(found)}")
