"""Pulls through all that goes wrong between here and a registry."""

import asyncio
import base64
import hashlib
import json
import re
from contextlib import aclosing
from dataclasses import replace

import pytest

from helpers.registry import Registry, running_registry
from pyggml_server.config import Config
from pyggml_server.errors import DigestMismatchError, ModelNotFoundError, StoreError, TransferError
from pyggml_server.names import Name
from pyggml_server.registry import RegistrySettings
from pyggml_server.store import Store, Transfers


def _stored(store: Store, registry: Registry, name: str = "me/x") -> bytes:
    return store.get(Name.parse(f"{registry.url}/{name}")).path.read_bytes()


def test_a_model_arrives_with_all_its_layers(pull, registry, store, weights):
    manifest = registry.add_model("me/x", "latest", weights, template=b"{{ .Prompt }}", params=b'{"stop":["a"]}')
    events = pull()
    model = store.get(Name.parse(f"{registry.host}/me/x"))
    assert model.path.read_bytes() == weights
    assert model.template == "{{ .Prompt }}" and model.params == {"stop": ["a"]}
    # as Ollama: the model's id is the digest of what the registry sent
    assert model.digest == hashlib.sha256(manifest).hexdigest()
    statuses = [event["status"] for event in events]
    assert statuses[0] == "pulling manifest" and statuses[-2:] == ["writing manifest", "success"]
    # as Ollama: everything is fetched, then everything is checked
    assert statuses.count("verifying sha256 digest") == 1 and statuses[-3] == "verifying sha256 digest"
    layers = [event for event in events if re.fullmatch("pulling [0-9a-f]{12}", event["status"])]
    assert {"digest": model.weights.digest, "total": len(weights), "completed": len(weights)}.items() <= max(
        (e for e in layers if e["digest"] == model.weights.digest), key=lambda e: e.get("completed", 0)
    ).items()
    assert registry.count("GET", model.weights.digest) > 5  # in parts
    assert not list((store.folder / ".pyggml" / "downloads").glob("sha256-*[0-9a-f]"))


@pytest.mark.parametrize("fault", ["cut", "unavailable"])
def test_faults_that_pass_are_survived(pull, registry, store, weights, fault):
    registry.add_model("me/x", "latest", weights)
    setattr(registry.faults, fault, 3)
    pull()
    assert _stored(store, registry) == weights
    assert getattr(registry.faults, fault) == 0


def test_answers_that_stop_without_an_end_are_asked_for_again(registry, store, settings, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.stall = 3
    config = Config.from_environment({"OLLAMA_MODELS": str(store.folder)})
    transfers = Transfers(config, store, settings=replace(settings, stall=0.7, attempts=20))

    async def pull() -> None:
        async for _ in transfers.pull(f"{registry.url}/me/x"):
            pass

    asyncio.run(pull())
    assert _stored(store, registry) == weights and registry.faults.stall == 0


def test_a_registry_without_ranges_sends_the_whole(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.no_ranges = True
    pull()
    assert _stored(store, registry) == weights


def test_wrong_bytes_are_never_served_and_the_next_pull_gets_right_ones(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.wrong = True
    with pytest.raises(DigestMismatchError, match="digest mismatch, file must be downloaded again: want sha256:"):
        pull()
    assert store.list() == [] and not list(store.blobs.folder.glob("sha256-*"))
    assert not list((store.folder / ".pyggml" / "downloads").glob("*[0-9a-f]"))  # all that is wrong is gone
    registry.faults.wrong = False
    pull()
    assert _stored(store, registry) == weights


def test_what_arrived_is_not_fetched_again(pull, registry, transfers, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.slow = 0.1

    async def leave_early() -> None:
        async with aclosing(transfers.pull(f"{registry.url}/me/x")) as events:
            async for event in events:
                if event.get("completed", 0) > 10_000:
                    return

    asyncio.run(leave_early())
    journal = next((store.folder / ".pyggml" / "downloads").glob("*.json"))
    arrived = sum(done for _, _, done in json.loads(journal.read_text())["parts"])
    assert 10_000 < arrived < len(weights)
    registry.faults.slow = 0.0
    registry.requests.clear()
    pull()
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    ranges = [h["range"].removeprefix("bytes=") for m, p, h in registry.requests if m == "GET" and digest in p]
    assert sum(int(b) - int(a) + 1 for a, b in (text.split("-") for text in ranges)) == len(weights) - arrived
    assert _stored(store, registry) == weights


def test_unknown_models_and_registries(pull, registry, transfers):
    with pytest.raises(ModelNotFoundError, match="file does not exist"):
        pull("me/nothing")
    registry.manifests["me/list/latest"] = b'{"schemaVersion":2,"manifests":[]}'
    with pytest.raises(TransferError, match="manifest is damaged"):
        pull("me/list")
    registry.manifests["me/bad/latest"] = b"<html>"
    with pytest.raises(TransferError, match="damaged"):
        pull("me/bad")

    async def collect(name: str) -> None:
        async for _ in transfers.pull(name):
            pass

    with pytest.raises(TransferError, match="insecure protocol http"):
        asyncio.run(collect("http://registry.example/me/x"))
    with pytest.raises(TransferError, match="cannot be reached"):
        asyncio.run(collect("http://127.0.0.1:9/me/x"))


def test_a_manifest_cannot_point_out_of_the_store(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    document = json.loads(registry.manifests["me/x/latest"])
    document["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
    registry.manifests["me/x/latest"] = json.dumps(document).encode()
    with pytest.raises(TransferError, match="invalid digest"):
        pull()
    assert store.list() == []


def test_sizes_that_are_lies(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    document = json.loads(registry.manifests["me/x/latest"])
    document["layers"][0]["size"] += 1
    registry.manifests["me/x/latest"] = json.dumps(document).encode()
    with pytest.raises(TransferError):
        pull()
    document["layers"][0]["size"] = 1 << 60
    registry.manifests["me/x/latest"] = json.dumps(document).encode()
    with pytest.raises(Exception, match="are needed"):
        pull()
    assert store.list() == []


PARAMS = "application/vnd.ollama.image.params"


def _changed(**fields):
    return lambda m: {**m, "layers": [{**m["layers"][0], **fields}, *m["layers"][1:]]}


@pytest.mark.parametrize(
    "change",
    [
        _changed(size="1"),
        _changed(size=-1),
        _changed(size=1.5),
        _changed(digest=None),
        _changed(digest="md5:0"),
        _changed(digest="sha256:" + "0" * 64),
        _changed(mediaType=None),
        _changed(mediaType="application/vnd.ollama.image.tensor"),
        lambda m: {**m, "layers": [1, 2]},
        lambda m: {**m, "layers": {"a": 1}},
        lambda m: {**m, "layers": []},
        lambda m: {**m, "layers": None},
        lambda m: {**m, "config": None},
        lambda m: {**m, "config": {**m["layers"][0], "size": 3}},
        lambda m: {**m, "layers": [*m["layers"], {**m["layers"][0], "mediaType": PARAMS}]},
        lambda m: {**m, "schemaVersion": 1},
        lambda m: [m],
        lambda m: "x" * (5 << 20),
        lambda m: None,
    ],
)  # fmt: skip
def test_manifests_that_lie(pull, registry, store, weights, change):
    """Whatever is wrong with it, no name appears, and a right one is pulled afterwards."""
    right = registry.add_model("me/x", "latest", weights, system=b"s")
    registry.manifests["me/x/latest"] = json.dumps(change(json.loads(right))).encode()
    with pytest.raises((TransferError, StoreError)):
        pull()
    assert store.list() == [] and not list(store.folder.glob("manifests/*"))
    registry.manifests["me/x/latest"] = right
    pull()
    assert store.get(store.list()[0].name).path.read_bytes() == weights


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff\xfe", b"", b"\0" * 100])
def test_manifests_that_are_none(pull, registry, store, weights, data):
    registry.add_model("me/x", "latest", weights)
    registry.manifests["me/x/latest"] = data
    with pytest.raises(TransferError):
        pull()
    assert store.list() == []


def test_secrets_do_not_follow_a_redirect(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.token = "secret-token"
    with running_registry(cdn_of=registry):
        pull()
    assert _stored(store, registry) == weights
    cdn = [headers for _, path, headers in registry.requests if path.startswith("cdn:")]
    assert cdn and all("authorization" not in headers for headers in cdn)


def test_a_token_is_asked_for_with_a_signature(pull, registry, store, weights, settings: RegistrySettings):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    registry.add_model("me/x", "latest", weights)
    registry.token = "t"
    pull()
    path, headers = registry.token_requests[0]
    assert "service=test" in path and "scope=repository" in path and "nonce=" in path
    public, _, signature = headers["authorization"].partition(":")
    key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
    assert isinstance(key, Ed25519PublicKey)
    empty = base64_text(hashlib.sha256(b"").hexdigest())
    key.verify(decode(signature), f"GET,{registry.url}{path},{empty}".encode())
    assert (settings.key_folder / "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert public in (settings.key_folder / "id_ed25519.pub").read_text()


def base64_text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> bytes:
    return base64.b64decode(text)


def test_another_host_gets_no_signature(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.token = "t"
    registry.realm = registry.url.replace("127.0.0.1", "localhost") + "/token"
    pull()
    assert "authorization" not in registry.token_requests[0][1]


def test_passwords_come_from_dockers_file(pull, registry, store, weights, settings):
    registry.add_model("me/x", "latest", weights)
    registry.password = "user:word"
    with pytest.raises(TransferError, match="a user name and a password are needed"):
        pull()
    entry = {"auths": {registry.host: {"auth": base64_text("user:word")}}}
    settings.docker_config.write_text(json.dumps(entry))
    pull()
    assert _stored(store, registry) == weights
    entry = {"auths": {registry.host: {"auth": base64_text("user:other")}}}
    settings.docker_config.write_text(json.dumps(entry))
    with pytest.raises(TransferError, match="does not accept who we say we are"):
        pull()


def test_concurrent_pulls_share_one_transfer(registry, transfers: Transfers, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.add_model("me/y", "latest", weights, system=b"other")
    registry.faults.slow = 0.05

    async def collect(name: str) -> list[str]:
        return [event["status"] async for event in transfers.pull(f"{registry.url}/{name}")]

    async def run() -> list[list[str]]:
        return await asyncio.gather(collect("me/x"), collect("me/x"), collect("me/y"), collect("me/y"))

    for statuses in asyncio.run(run()):
        assert statuses[0] == "pulling manifest" and statuses[-1] == "success"
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    fetched = [h["range"] for m, p, h in registry.requests if m == "GET" and digest in p]
    assert len(fetched) == len(set(fetched))
    assert _stored(store, registry, "me/x") == _stored(store, registry, "me/y") == weights


def test_the_first_client_may_leave(registry, transfers: Transfers, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.slow = 0.1

    async def leave() -> None:
        events = transfers.pull(f"{registry.url}/me/x")
        await anext(events)
        await asyncio.sleep(0.15)
        await events.aclose()

    async def stay() -> str:
        return [event["status"] async for event in transfers.pull(f"{registry.url}/me/x")][-1]

    async def run() -> str:
        _, last = await asyncio.gather(leave(), stay())
        return last

    assert asyncio.run(run()) == "success"
    assert registry.count("GET", "manifests") == 1


def test_when_all_have_left_the_transfer_ends(registry, transfers: Transfers, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.slow = 0.1

    async def run() -> int:
        events = transfers.pull(f"{registry.url}/me/x")
        await anext(events)
        await asyncio.sleep(0.1)
        await events.aclose()
        before = len(registry.requests)
        await asyncio.sleep(0.3)
        return len(registry.requests) - before

    assert asyncio.run(run()) == 0
    assert store.list() == []


def test_a_new_version_replaces_the_old_one(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights, system=b"old")
    pull()
    registry.add_model("me/x", "latest", weights, system=b"new")
    events = pull()
    assert events[-2]["status"] == "removing unused layers"
    assert store.get(Name.parse(f"{registry.host}/me/x")).system == "new"
    old = f"sha256:{hashlib.sha256(b'old').hexdigest()}"
    assert store.blobs.find(old) is None
