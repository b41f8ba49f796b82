"""Registries behind certificates that nobody vouches for."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from helpers.registry import running_registry
from pyggml_server.errors import TransferError
from pyggml_server.names import Name


@pytest.fixture
def registry(tmp_path):
    """A registry with a certificate of its own making."""
    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    path = tmp_path / "registry.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + builder.sign(key, None).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with running_registry(tls=context) as running:
        yield running


def test_only_insecure_pulls_go_there(registry, transfers, store, weights):
    registry.add_model("me/x", "latest", weights)

    async def pull(*, insecure: bool) -> None:
        async for _ in transfers.pull(f"{registry.host}/me/x", insecure=insecure):
            pass

    with pytest.raises(TransferError, match=r"cannot be reached.*(certificate|CERTIFICATE)"):
        asyncio.run(pull(insecure=False))
    assert store.list() == [] and registry.requests == []
    asyncio.run(pull(insecure=True))
    assert store.get(Name.parse(f"{registry.host}/me/x")).path.read_bytes() == weights
