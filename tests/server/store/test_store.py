"""Models by name, in Ollama's layout."""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from store_builders import write_model

from pyggml.errors import GGUFError
from pyggml_server.errors import InvalidNameError, ModelNotFoundError, StoreError
from pyggml_server.names import Name
from pyggml_server.store import Blob, ModelDetails, Store, human_bytes, human_count

MANIFESTS = "manifests/registry.ollama.ai/library"


def add(store: Store, name: str, *, value: float = 1.0, **options: Any) -> Blob:
    path = store.folder.parent / "x.gguf"
    blob = store.blobs.add_bytes(write_model(path, value=value).read_bytes())
    store.write_model(Name.parse(name), model=blob, **options)
    return blob


def blob_names(store: Store) -> set[str]:
    return {p.name for p in (store.folder / "blobs").iterdir()}


def test_the_files_are_those_of_ollama(store: Store) -> None:
    blob = add(store, "m:1b", params={"stop": ["a", "ü"]}, template="{{ .Prompt }}", system="Be kind.")
    text = (store.folder / MANIFESTS / "m" / "1b").read_text()
    manifest = json.loads(text)
    assert text == json.dumps(manifest, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert list(manifest) == ["schemaVersion", "mediaType", "config", "layers"]
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == [
        "model",
        "template",
        "system",
        "params",
    ]
    assert manifest["layers"][0] == {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": blob.digest,
        "size": blob.size,
    }
    for layer in [manifest["config"], *manifest["layers"]]:
        data = (store.folder / "blobs" / layer["digest"].replace(":", "-")).read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["digest"]
        assert len(data) == layer["size"]
    config = json.loads(store.blobs.path(manifest["config"]["digest"]).read_bytes())
    assert config == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "1K",
        "file_type": "F32",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in manifest["layers"]]},
    }
    assert store.get(Name.parse("m:1b")).digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_model_as_ollama_stores_it(store: Store, model_bytes: bytes) -> None:
    def layer(kind: str, data: bytes) -> dict[str, Any]:
        blob = store.blobs.add_bytes(data)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": blob.digest, "size": blob.size}

    config = layer("x", b'{"model_format":"gguf","model_family":"llama","model_type":"8.0B","file_type":"Q4_K_M"}')
    layers = [
        layer("model", model_bytes),
        layer("projector", b"projector"),
        layer("template", b"{{ .Prompt }}"),
        layer("system", b"sys"),
        layer("params", b'{"stop":["</s>"],"temperature":0.5}'),
        layer("messages", b'[{"role":"user","content":"hi"}]'),
        layer("license", b"MIT"),
        layer("license", b"more"),
    ]
    path = store.folder / "manifests" / "hf.co" / "User" / "Repo" / "Q4_K_M"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}, indent=1))
    model = store.get(Name.parse("hf.co/user/REPO:q4_k_m"))
    assert model.name.display == "hf.co/User/Repo:Q4_K_M"
    assert model.path.read_bytes() == model_bytes
    assert [p.read_bytes() for p in model.projectors] == [b"projector"]
    assert (model.template, model.system, model.licenses) == ("{{ .Prompt }}", "sys", ("MIT", "more"))
    assert model.params == {"stop": ["</s>"], "temperature": 0.5}
    assert model.messages == ({"role": "user", "content": "hi"},)
    assert model.details == ModelDetails("gguf", "llama", (), "8.0B", "Q4_K_M")


def test_names_are_looked_up_without_case(store: Store) -> None:
    add(store, "MyModel:Big")
    assert store.get(Name.parse("mymodel:bIG")).name.display == "MyModel:Big"
    add(store, "mymodel:big", value=2.0)
    assert [e.name.display for e in store.list()] == ["MyModel:Big"]
    add(store, "MYMODEL:other")
    assert sorted(e.name.display for e in store.list()) == ["MyModel:Big", "MyModel:other"]
    assert store.remove(Name.parse("mYmodel:BIG")).display == "MyModel:Big"


def test_an_exact_name_comes_before_another_case(store: Store) -> None:
    add(store, "m:A")
    (store.folder / MANIFESTS / "m" / "a").write_bytes((store.folder / MANIFESTS / "m" / "A").read_bytes())
    assert store.get(Name.parse("m:a")).name.tag == "a"
    assert store.get(Name.parse("m:A")).name.tag == "A"


def test_list_is_newest_first(store: Store) -> None:
    import os

    for i, name in enumerate(["one", "two", "three"]):
        add(store, name, value=i)
        os.utime(store.folder / MANIFESTS / name / "latest", (1000 * (i + 1),) * 2)
    entries = store.list()
    assert [e.name.model for e in entries] == ["three", "two", "one"]
    assert entries[0].details.family == "llama"
    assert entries[0].size > 4000 and len(entries[0].digest) == 64
    assert entries[2].modified.timestamp() == 1000


def test_files_of_ollamas_first_versions_get_todays_names(store: Store) -> None:
    blob = add(store, "a")
    path = store.blobs.path(blob.digest)
    path.rename(path.with_name(blob.digest))
    with pytest.raises(StoreError, match="is missing"):
        store.get(Name.parse("a"))
    store.prune()
    assert store.get(Name.parse("a")).path.read_bytes() and not path.with_name(blob.digest).exists()


def test_digests_may_be_written_in_capitals(store: Store) -> None:
    blob = add(store, "a")
    assert store.blobs.find(blob.digest.upper().replace("SHA", "sha")) == blob
    manifest = store.folder / MANIFESTS / "a" / "latest"
    manifest.write_text(manifest.read_text().replace(blob.digest[7:], blob.digest[7:].upper()))
    assert store.get(Name.parse("a")).weights == blob
    store.prune()
    assert store.get(Name.parse("a")).path.exists()


def test_a_store_may_keep_what_nobody_uses(tmp_path: Path) -> None:
    store = Store(tmp_path / "models", keep_unused=True)
    first = add(store, "a")
    second = add(store, "a", value=2.0)
    add(store, "b", value=3.0)
    store.copy(Name.parse("b"), Name.parse("a"))
    assert store.blobs.find(first.digest) == first and store.blobs.find(second.digest) == second
    store.remove(Name.parse("a"))
    third = store.get(Name.parse("b")).weights
    store.remove(Name.parse("b"))
    assert store.blobs.find(third.digest) is None  # what is deleted is deleted


def test_an_absent_store_is_empty(store: Store) -> None:
    assert store.list() == []
    with pytest.raises(ModelNotFoundError, match="pyggml pull nothing:latest"):
        store.get(Name.parse("nothing"))
    assert not store.folder.exists()


def test_removing_keeps_what_others_use(store: Store) -> None:
    shared = add(store, "a", params={"num_ctx": 1})
    add(store, "b", params={"num_ctx": 2})
    alone = add(store, "c", value=3.0)
    store.remove(Name.parse("a"))
    assert store.get(Name.parse("b")).path.exists()
    store.remove(Name.parse("c"))
    assert store.blobs.find(alone.digest) is None
    assert store.blobs.find(shared.digest) is not None
    store.remove(Name.parse("b"))
    assert blob_names(store) == set()
    assert list((store.folder / "manifests").iterdir()) == []
    with pytest.raises(ModelNotFoundError):
        store.remove(Name.parse("b"))


def test_replacing_a_name_drops_what_only_it_used(store: Store) -> None:
    old = add(store, "a")
    new = add(store, "a", value=2.0)
    assert store.blobs.find(old.digest) is None
    assert store.blobs.find(new.digest) is not None


def test_nothing_is_deleted_while_a_manifest_is_damaged(store: Store) -> None:
    blob = add(store, "a")
    damaged = store.folder / MANIFESTS / "b" / "latest"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    store.remove(Name.parse("a"))
    assert store.blobs.find(blob.digest) is not None
    assert store.list() == []


def test_a_name_is_not_written_without_a_valid_model(store: Store) -> None:
    blob = store.blobs.add_bytes(b"no model")
    with pytest.raises(GGUFError):
        store.write_model(Name.parse("a"), model=blob)
    with pytest.raises(StoreError, match="removed by another process"):
        store.write_model(Name.parse("a"), model=Blob("sha256:" + "0" * 64, 1), details=ModelDetails())
    assert store.list() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"schemaVersion":1,"config":{},"layers":[]}',
        '{"schemaVersion":2,"layers":[]}',
        '{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../../../../etc/passwd","size":1}}',
        '{"schemaVersion":2,"config":{"mediaType":"x","digest":5,"size":1}}',
        '{"schemaVersion":2,"config":[],"layers":5}',
        "[" * 100000,
        '{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:' + "a" * 64 + '","size":-1}}',
    ],
)
def test_damaged_manifests(store: Store, text: str) -> None:
    path = store.folder / MANIFESTS / "m" / "latest"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(StoreError, match=r"m/latest: the manifest is damaged"):
        store.get(Name.parse("m"))
    assert store.list() == []


def test_missing_and_cut_blobs_are_told(store: Store) -> None:
    blob = add(store, "a")
    path = store.blobs.path(blob.digest)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"has \d+ bytes instead of \d+"):
        store.get(Name.parse("a"))
    path.unlink()
    with pytest.raises(StoreError, match="is missing; pull the model again"):
        store.get(Name.parse("a"))
    assert len(store.list()) == 1


def test_strange_files_are_passed_over(store: Store) -> None:
    add(store, "a")
    folder = store.folder / MANIFESTS
    (folder / "a" / ".DS_Store").write_bytes(b"")
    (folder / "a" / "dir").mkdir()
    (folder / "-bad").mkdir()
    (folder / "-bad" / "latest").write_text("{}")
    assert [e.name.display for e in store.list()] == ["a:latest"]
    with pytest.raises(InvalidNameError):
        store.get(Name(model="..", tag="x"))


def _write_and_remove(folder: str, index: int) -> None:
    store = Store(folder)
    path = Path(folder).parent / f"{index}.gguf"
    data = write_model(path, value=index % 2).read_bytes()
    for _ in range(6):
        blob = store.blobs.add_bytes(data)
        try:
            store.write_model(Name.parse(f"m{index}"), model=blob)
            store.get(Name.parse(f"m{index}")).path.read_bytes()
            store.remove(Name.parse(f"m{index}"))
        except (StoreError, FileNotFoundError):
            continue  # the blob was dropped by a neighbour between adding and naming: told, not corrupted


def test_processes_share_a_store(store: Store) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["store_builders"])  # what takes long is imported once
    store.work_folder()
    processes = [context.Process(target=_write_and_remove, args=(str(store.folder), i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for entry in store.list():
        store.get(entry.name)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (125_000_000, "125M"),
        (134_515_008, "134.52M"),
        (500_550_000, "500.55M"),
        (1_000_000_000, "1B"),
        (7_240_000_000, "7.2B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_human_count(n: int, text: str) -> None:
    assert human_count(n) == text


def test_human_bytes() -> None:
    assert [human_bytes(n) for n in (5, 1500, 98_362_432, 1_300_000_000, 40 * 10**9)] == [
        "5 B",
        "1.5 KB",
        "98 MB",
        "1.3 GB",
        "40 GB",
    ]
