"""Models as archives: there and back, and what an archive may not do."""

import gzip
import hashlib
import io
import json
import lzma
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyggml.gguf import GGUFError
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
    except (StoreError, InvalidNameError, GGUFError):
        return
    for layer in model.layers:
        assert hashlib.sha256(other.blobs.path(layer.digest).read_bytes()).hexdigest() == layer.digest[7:]


def _manifest(archive: bytes, change) -> bytes:
    """The archive with another manifest."""

    def rewrite(info, data):
        if info.name == "manifest.json":
            data = json.dumps(change(json.loads(data))).encode()
            info.size = len(data)
        yield info, data

    return _rebuild(archive, rewrite)


def _with_first_layer(**fields):
    return lambda m: {**m, "layers": [{**m["layers"][0], **fields}, *m["layers"][1:]]}


TEXT, MODEL = "application/vnd.ollama.image.params", "application/vnd.ollama.image.model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_first_layer(size=1), "bytes instead of 1"),
        (_with_first_layer(size=10**30), "bytes instead of 1000"),
        (_with_first_layer(size=-1), "no media type or size"),
        (_with_first_layer(size="1"), "no media type or size"),
        (_with_first_layer(digest=None), "damaged"),
        (_with_first_layer(digest="sha256:../../../../etc/passwd"), "invalid digest"),
        (_with_first_layer(mediaType=["x"]), "no media type or size"),
        (_with_first_layer(mediaType="application/vnd.ollama.image.embed"), "no model weights"),
        (_with_first_layer(mediaType=TEXT), "no model weights"),
        (lambda m: {**m, "layers": [*m["layers"], {**m["layers"][0], "mediaType": TEXT}]}, "'params' is damaged"),
        (lambda m: {**m, "layers": [{**layer, "mediaType": MODEL} for layer in m["layers"]]}, "magic"),
        (lambda m: {**m, "layers": [{"mediaType": "x", "digest": m["config"]["digest"]}]}, "damaged"),
        (
            lambda m: {**m, "layers": [*m["layers"], {**m["config"], "digest": "sha256:" + "0" * 64}]},
            "1 blobs are miss",
        ),
        (lambda m: {**m, "layers": [], "config": m["layers"][0]}, "does not belong to the model"),
        (lambda m: {**m, "layers": {}}, "does not belong|layers is no list"),
        (lambda m: {**m, "schemaVersion": 1}, "schema version 2"),
        (lambda m: [m], "schema version 2"),
    ],
)
def test_manifests_that_lie(archive, tmp_path, change, message):
    """Nothing of such an archive stays: no name, no blob."""
    other = Store(tmp_path / "other")
    with pytest.raises((StoreError, GGUFError), match=message):
        import_model(other, io.BytesIO(_manifest(archive, change)), silent)
    assert other.list() == [] and not list(other.folder.glob("blobs/*")) and not list(other.folder.glob("manifests/*"))


class _Endless(io.RawIOBase):
    """A tar member of any size, all zeros, that takes no memory by itself."""

    def __init__(self, kind: bytes, size: int) -> None:
        super().__init__()
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        self._head, self.given = info.tobuf(tarfile.GNU_FORMAT), 0

    def read(self, size: int = -1) -> bytes:
        assert self.given < 64 << 20, "it is read whole"
        self.given += size
        data, self._head = self._head[:size], self._head[size:]
        return data + bytes(size - len(data))


@pytest.mark.parametrize(
    "kind",
    [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE,
     tarfile.REGTYPE],
)  # fmt: skip
def test_members_without_end_are_not_read(tmp_path, kind):
    with pytest.raises(StoreError, match=r"header of|is expected, not"):
        import_model(Store(tmp_path / "other"), _Endless(kind, 20 << 30), silent)


def test_bombs_and_other_formats(archive, tmp_path):
    """Only a plain tar is read: nothing that is small here becomes large there."""
    chain = tarfile.TarInfo("x")
    chain.type, body = tarfile.XGLTYPE, b"11 a=bcdef\n"
    chain.size = len(body)
    header = chain.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0")
    for data in (gzip.compress(archive), lzma.compress(archive), header * 5000 + archive, b"", bytes(1 << 20)):
        with pytest.raises(StoreError, match="the archive is"):
            import_model(Store(tmp_path / "other"), io.BytesIO(data), silent)


def test_thousands_of_members(archive, tmp_path):
    def many(info, data):
        yield info, data
        if info.name == "manifest.json":
            yield from ((tarfile.TarInfo(f"blobs/sha256-{i:064x}"), b"") for i in range(5000))

    with pytest.raises(StoreError, match="does not belong to the model"):
        import_model(Store(tmp_path / "other"), io.BytesIO(_rebuild(archive, many)), silent)


def test_a_failed_import_keeps_what_others_use(archive, store, tmp_path):
    """The blobs that were there before stay, also those that nobody uses yet."""
    before = sorted(path.name for path in store.blobs.folder.iterdir())
    broken = _manifest(archive, lambda m: {**m, "layers": [*m["layers"], {**m["layers"][0], "mediaType": TEXT}]})
    with pytest.raises(StoreError, match="'params' is damaged"):
        import_model(store, io.BytesIO(broken), silent, name=Name.parse("y"))
    assert sorted(path.name for path in store.blobs.folder.iterdir()) == before
    assert store.get(Name.parse("me/x:v1")).system == "s"
