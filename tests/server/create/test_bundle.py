"""Models as archives: there and back, and what an archive may not do."""

import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyggml_server.errors import DigestMismatchError, InvalidNameError, StoreError
from pyggml_server.names import Name
from pyggml_server.store import Store, export_model, import_model, silent


@pytest.fixture
def archive(create, digest, store) -> bytes:
    """A model as an archive."""
    model, _ = create("me/x:v1", files={"a.gguf": digest}, system="s", parameters={"top_k": 3})
    target = io.BytesIO()
    export_model(store, model.name, target, silent)
    return target.getvalue()


def test_there_and_back(archive, store, tmp_path):
    again = io.BytesIO()
    export_model(store, Name.parse("me/x:v1"), again, silent)
    assert again.getvalue() == archive
    other = Store(tmp_path / "other")
    model = import_model(other, io.BytesIO(archive), silent)
    original = store.get(Name.parse("me/x:v1"))
    assert (model.name, model.digest, model.system) == (original.name, original.digest, "s")
    assert model.path.read_bytes() == original.path.read_bytes()
    assert import_model(other, io.BytesIO(archive), silent, name=Name.parse("y")).name == Name.parse("y")


def _rebuild(archive: bytes, change) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=target, mode="w") as new:
        for info in old.getmembers():
            stream = old.extractfile(info)
            for member, data in change(info, stream.read() if stream else b""):
                new.addfile(member, io.BytesIO(data))
    return target.getvalue()


def _extra(name: str, kind: bytes = tarfile.REGTYPE):
    def change(info, data):
        yield info, data
        if info.name == "manifest.json":
            other = tarfile.TarInfo(name)
            other.type, other.linkname = kind, "/etc/passwd"
            yield other, b""

    return change


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "blobs/../../evil", "blobs/sha256-" + "0" * 64])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_members_that_do_not_belong(archive, tmp_path, name, kind):
    other = Store(tmp_path / "deep" / "other")
    with pytest.raises(StoreError, match="does not belong to the model"):
        import_model(other, io.BytesIO(_rebuild(archive, _extra(name, kind))), silent)
    assert other.list() == [] and not list(tmp_path.rglob("evil"))


def test_wrong_contents(archive, tmp_path):
    def flip(info, data):
        yield info, bytes([data[0] ^ 1]) + data[1:] if info.name.startswith("blobs/") else data

    def rename(info, data):
        if info.name == "pyggml.json":
            data = json.dumps({"version": 1, "name": "../../x"}).encode()
            info.size = len(data)
        yield info, data

    other = Store(tmp_path / "other")
    with pytest.raises(DigestMismatchError):
        import_model(other, io.BytesIO(_rebuild(archive, flip)), silent)
    with pytest.raises(InvalidNameError):
        import_model(other, io.BytesIO(_rebuild(archive, rename)), silent)
    with pytest.raises(StoreError, match=r"ends early|damaged"):
        import_model(other, io.BytesIO(archive[: len(archive) // 2]), silent)
    assert other.list() == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=8))
def test_any_damage_is_found(archive, tmp_path_factory, position, data):
    damaged = archive[:position] + data + archive[position + len(data) :]
    other = Store(tmp_path_factory.mktemp("damaged"))
    try:
        model = import_model(other, io.BytesIO(damaged), silent)
    except (StoreError, InvalidNameError):
        return
    for layer in model.layers:
        assert hashlib.sha256(other.blobs.path(layer.digest).read_bytes()).hexdigest() == layer.digest[7:]
