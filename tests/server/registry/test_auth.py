"""Whom a password and the signature of the user's key are shown to."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.registry import Registry
from helpers.tokens import Certificate, TokenServer, running_token_server
from pyggml_server.errors import TransferError
from pyggml_server.names import Name
from pyggml_server.registry import RegistrySettings, Repository
from pyggml_server.registry.passwords import find_password

AUTH = base64.b64encode(b"user:word").decode()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    """Gives out tokens at another host than the registry's: localhost, not 127.0.0.1."""
    with running_token_server(Certificate.make(tmp_path / "tokens.pem")) as running:
        yield running


@pytest.fixture
def private(registry: Registry, tokens: TokenServer, weights: bytes) -> Registry:
    """A registry that sends us there for a token."""
    registry.add_model("me/x", "latest", weights)
    registry.token, registry.realm = "t", tokens.url
    tokens.answer = _fixed(tokens, registry.token)  # type: ignore[method-assign]
    return registry


def _fixed(tokens: TokenServer, token: str):
    signed = tokens.answer
    return lambda query, authorization: token if signed(query, authorization) else None


def _write(settings: RegistrySettings, host: str, auth: str = AUTH) -> None:
    settings.docker_config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_the_password_goes_where_the_registry_gives_out_tokens(private, tokens, pull, store, settings, weights):
    _write(settings, private.host)
    pull(insecure=True)  # the certificate is of our own making
    assert store.get(Name.parse(f"{private.url}/me/x")).path.read_bytes() == weights
    query, authorization = tokens.requests[0]
    assert authorization == f"Basic {AUTH}" and query["scope"] == ["repository:x:pull,push"]
    assert not settings.key_folder.exists()  # the user's own key has nothing to do with it


def test_without_a_password_another_host_gets_nothing(private, tokens, pull, settings):
    with pytest.raises(TransferError, match=r"localhost: no permission \(status 401\), where 127.0.0.1 sends us .*put"):
        pull(insecure=True)
    _write(settings, "other.example")
    with pytest.raises(TransferError, match="no permission"):
        pull(insecure=True)
    assert {authorization for _, authorization in tokens.requests} == {""}


def test_a_wrong_password_is_told(private, tokens, pull, settings):
    _write(settings, private.host, base64.b64encode(b"user:other").decode())
    with pytest.raises(TransferError, match="user name or password are wrong"):
        pull(insecure=True)


def test_a_place_without_a_good_certificate_gets_nothing(private, tokens, pull, settings):
    _write(settings, private.host)
    with pytest.raises(TransferError, match=r"cannot be reached.*(certificate|CERTIFICATE)"):
        pull()
    assert tokens.requests == []


def test_a_place_without_encryption_gets_nothing(registry, pull, settings, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.token = "t"
    registry.realm = registry.url.replace("127.0.0.1", "localhost") + "/token"
    _write(settings, registry.host)
    pull(insecure=True)  # this one gives a token to everybody
    assert "authorization" not in registry.token_requests[0][1]
    assert store.list()


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_helpers_of_docker_are_asked(registry, pull, settings, store, weights, tmp_path, monkeypatch, key):
    registry.add_model("me/x", "latest", weights)
    registry.password = "user:word"
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host; echo "$1 $host" > "$0.asked"\n'
        f'[ "$host" = {registry.host} ] || exit 1\necho \'{{"Username": "user", "Secret": "word"}}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    document = {"auths": {registry.host: {}}, key: "test" if key == "credsStore" else {registry.host: "test"}}
    settings.docker_config.write_text(json.dumps(document))
    pull()
    assert store.list() and (tmp_path / "docker-credential-test.asked").read_text() == f"get {registry.host}\n"


def _find(path: Path, document: object, host: str) -> str | None:
    path.write_text(json.dumps(document))
    return asyncio.run(find_password(path, host))


@pytest.mark.parametrize(
    ("key", "host", "found"),
    [
        ("https://index.docker.io/v1/", "registry-1.docker.io", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("registry.example:5000", "registry.example:5000", True),
        ("https://registry.example/v2/", "registry.example", True),
        ("registry.example/path", "registry.example", True),
        ("registry.example", "registry.example:5000", False),
        ("registry.example", "evil-registry.example", False),
        ("registry.example.evil.example", "registry.example", False),
    ],
)
def test_the_names_of_entries(tmp_path: Path, key: str, host: str, found: bool) -> None:
    assert _find(tmp_path / "config.json", {"auths": {key: {"auth": AUTH}}}, host) == (AUTH if found else None)


def test_files_that_hold_no_password(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert asyncio.run(find_password(path, "h")) is None
    for document in ({}, {"auths": None}, {"auths": {"h": None}}, {"auths": {"h": {"auth": ""}}}):
        assert _find(path, document, "h") is None
    for damaged in ([], {"auths": 5}, {"auths": {"h": {"auth": "%%"}}}, {"credHelpers": [1]}):
        with pytest.raises(TransferError, match=r"config\.json: cannot be read"):
            _find(path, damaged, "h")


def test_a_helper_that_is_not_there_or_knows_nothing(tmp_path, monkeypatch, caplog) -> None:
    """Most models need no password: a pull does not end because of this."""
    path = tmp_path / "config.json"
    for name in ("nothing", "../x"):
        assert _find(path, {"credsStore": name}, "h") is None
        assert f"docker-credential-{name}" in caplog.text
    helper = tmp_path / "docker-credential-refuses"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for answer in ("exit 1", "echo x", "echo '{}'", 'echo \'{"Username": "<token>", "Secret": "s"}\''):
        helper.write_text(f"#!/bin/sh\n{answer}\n")
        helper.chmod(0o755)
        assert _find(path, {"credsStore": "refuses"}, "h") is None


def test_docker_hub_is_served_by_another_host() -> None:
    async def origin(text: str) -> str:
        async with Repository.connect(Name.parse(text), RegistrySettings(), insecure=False) as repository:
            return str(repository.url("manifests/latest"))

    assert asyncio.run(origin("docker.io/me/x")) == "https://registry-1.docker.io/v2/me/x/manifests/latest"
    assert asyncio.run(origin("ghcr.io/me/x")) == "https://ghcr.io/v2/me/x/manifests/latest"
