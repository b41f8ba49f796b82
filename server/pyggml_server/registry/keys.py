"""The ed25519 key that names this user to Ollama's registry: ``~/.ollama/id_ed25519``, in OpenSSH's format."""

import base64
import os
import secrets
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from pyggml_server.errors import TransferError

__all__ = ["SigningKey"]

_NAME: Final = "id_ed25519"


class SigningKey:
    """A private key and its public half.

    Args:
        key: The private key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key: Final = key
        encoded = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self.public: Final = encoded.split(" ")[1]
        """The public key: base64 of OpenSSH's wire form."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The key of a folder; it is made when there is none.

        Raises:
            TransferError: the file holds no ed25519 key without a pass phrase.
            OSError: it cannot be read or written.
        """
        path = folder / _NAME
        try:
            key = load_ssh_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            return cls._make(path)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TransferError(
                f"{path}: the key cannot be used ({error}); move it away and a new one is made"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise TransferError(f"{path}: an ed25519 key is needed; move this one away and a new one is made")
        return cls(key)

    @classmethod
    def _make(cls, path: Path) -> Self:
        made = cls(Ed25519PrivateKey.generate())
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = made._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        temporary = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            try:
                os.link(temporary, path)  # unlike a rename, it never replaces a key
            except FileExistsError:
                return cls.load(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
        path.with_name(f"{_NAME}.pub").write_text(f"ssh-ed25519 {made.public}\n")
        return made

    def authorization(self, text: bytes) -> str:
        """``<public key>:<signature>`` as Ollama's registry wants it."""
        return f"{self.public}:{base64.b64encode(self._key.sign(text)).decode()}"
