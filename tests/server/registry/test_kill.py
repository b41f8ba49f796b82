"""kill -9 in the middle of whatever changes the store: nothing half is ever a model, and the next try finishes.

The moments are the changes of files that an operation makes, every one of them in the long suite, some in the default
one; and random ones, which also fall between two changes.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.killable import ALL, check, drop_leftovers, every
from helpers.registry import Registry
from pyggml_server.errors import StoreError
from pyggml_server.names import Name
from pyggml_server.store import Store, export_model, silent


@pytest.fixture
def name(registry: Registry, weights: bytes) -> str:
    """A model in the registry, with texts."""
    registry.add_model("me/x", "latest", weights, system=b"s", template=b"{{ .Prompt }}")
    return f"{registry.url}/me/x"


@pytest.mark.parametrize("step", [28, ALL])
def test_pull(killable, registry, name, weights, tmp_path, step):
    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        killed = killable.run("pull", change=change, store=str(store.folder), name=name)
        assert check(store) in ([], [Name.parse(name).display])  # nothing, or all of it: what is there is read
        assert not killable.run("pull", store=str(store.folder), name=name)
        model = store.get(Name.parse(name))
        assert model.path.read_bytes() == weights and model.system == "s" and len(check(store)) == 1
        drop_leftovers(store)
        shutil.rmtree(store.folder)
        return killed

    assert every(step, run) > 3


@pytest.mark.parametrize("n", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_pull_at_random_moments(killable, registry, name, weights, store, n):
    """Each try goes on with what the one before has left."""
    registry.faults.slow = 0.01
    dice, killed = random.Random(n), 0
    for _ in range(n):
        killed += killable.run("pull", seconds=dice.uniform(0.02, 0.25), store=str(store.folder), name=name)
        for _ in check(store):
            store.remove(Name.parse(name))
    assert killed
    registry.faults.slow = 0.0
    assert not killable.run("pull", store=str(store.folder), name=name)
    assert store.get(Name.parse(name)).path.read_bytes() == weights
    drop_leftovers(store)


@pytest.mark.parametrize("step", [28, ALL])
def test_pull_of_a_new_version(killable, registry, name, weights, tmp_path, step):
    """The old version serves until the new one is whole."""
    base = Store(tmp_path / "base")
    killable.run("pull", store=str(base.folder), name=name)
    registry.add_model("me/x", "latest", weights[:-4] + b"new!", system=b"new")

    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        shutil.copytree(base.folder, store.folder)
        killed = killable.run("pull", change=change, store=str(store.folder), name=name)
        assert len(check(store)) == 1
        model = store.get(Name.parse(name))
        assert (model.system, model.path.read_bytes()) in {("s", weights), ("new", weights[:-4] + b"new!")}
        assert not killable.run("pull", store=str(store.folder), name=name)
        assert store.get(Name.parse(name)).system == "new"
        drop_leftovers(store)
        shutil.rmtree(store.folder)
        return killed

    assert every(step, run) > 2


@pytest.mark.parametrize("step", [4, ALL])
def test_create(killable, weights, tmp_path, step):
    """From an upload, with texts; then the same name again, from itself."""
    (tmp_path / "w.gguf").write_bytes(weights)
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    first = {"model": "mine", "files": {"w.gguf": digest}, "system": "s", "parameters": {"num_ctx": 64}}
    second = {"model": "mine", "from": "mine", "system": "t"}

    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        arguments = {"store": str(store.folder)}
        upload = arguments | {"digest": digest, "path": str(tmp_path / "w.gguf")}
        tries = [("upload", upload), ("create", arguments | {"request": first})]
        for work, options in [*tries, ("create", arguments | {"request": second})]:
            killed = killable.run(work, change=change, **options)
            names = check(store)
            assert names in ([], ["mine:latest"])
            if names:
                assert store.get(Name.parse("mine")).system in ("s", "t")
            assert not killable.run(work, **options)
        model = store.get(Name.parse("mine"))
        assert (model.system, model.params, model.path.read_bytes()) == ("t", {"num_ctx": 64}, weights)
        drop_leftovers(store)
        shutil.rmtree(store.folder)
        return killed

    assert every(step, run) > 1


def test_remove(killable, name, weights, tmp_path):
    base = Store(tmp_path / "base")
    killable.run("pull", store=str(base.folder), name=name)
    base.copy(Name.parse(name), Name.parse("other"))

    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        shutil.copytree(base.folder, store.folder)
        killed = killable.run("remove", change=change, store=str(store.folder), name=name)
        assert "other:latest" in check(store)
        if len(store.list()) == 2:
            store.remove(Name.parse(name))
        assert check(store) == ["other:latest"] and store.get(Name.parse("other")).path.read_bytes() == weights
        killed = killable.run("remove", change=change, store=str(store.folder), name="other")
        if killed and check(store):
            store.remove(Name.parse("other"))
        with pytest.raises((StoreError, LookupError)):
            store.get(Name.parse("other"))
        drop_leftovers(store)
        if change % 4 == 2:
            killable.run("pull", store=str(store.folder), name=name)
            assert store.get(Name.parse(name)).path.read_bytes() == weights
        shutil.rmtree(store.folder)
        return killed

    assert every(1, run) > 2


@pytest.mark.parametrize("step", [2, ALL])
def test_prune(killable, name, weights, tmp_path, step):
    base = Store(tmp_path / "base")
    killable.run("pull", store=str(base.folder), name=name)
    for i in range(5):
        path = base.blobs.path(base.blobs.add_bytes(b"%d" % i).digest)
        os.utime(path, (0, 0))

    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        shutil.copytree(base.folder, store.folder)
        killed = killable.run("prune", change=change, store=str(store.folder))
        assert len(check(store)) == 1 and store.get(Name.parse(name)).path.read_bytes() == weights
        drop_leftovers(store)
        shutil.rmtree(store.folder)
        return killed

    assert every(step, run) > 1


@pytest.mark.parametrize("n", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_push(killable, registry, store, weights, n):
    """A push changes no file here: it is killed by the clock. The registry never has a name without its blobs."""
    url = f"{registry.url}/me/x:v1"
    store.write_model(Name.parse(url), model=store.blobs.add_bytes(weights), template="{{ .Prompt }}", system="s")
    registry.faults.slow_uploads = 0.01
    dice, killed = random.Random(n), 0
    for _ in range(n):
        killed += killable.run("push", seconds=dice.uniform(0.02, 0.3), store=str(store.folder), name=url)
        for data in registry.manifests.values():
            document = json.loads(data)
            assert all(layer["digest"] in registry.blobs for layer in [document["config"], *document["layers"]])
        for digest, data in registry.blobs.items():
            assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        if registry.manifests:
            registry.manifests.clear()
            registry.blobs.clear()
        check(store)
    assert killed
    registry.faults.slow_uploads = 0.0
    assert not killable.run("push", store=str(store.folder), name=url)
    assert weights in registry.blobs.values() and "me/x/v1" in registry.manifests


@pytest.mark.parametrize("step", [6, ALL])
def test_import(killable, store, weights, tmp_path, step):
    store.write_model(Name.parse("x"), model=store.blobs.add_bytes(weights), system="s")
    with (tmp_path / "x.tar").open("wb") as archive:
        export_model(store, Name.parse("x"), archive, silent)

    def run(change: int) -> bool:
        target = Store(tmp_path / f"{change}")
        options = {"store": str(target.folder), "archive": str(tmp_path / "x.tar")}
        killed = killable.run("import", change=change, **options)
        assert not killed or check(target) in ([], ["x:latest"])
        assert not killable.run("import", **options)
        assert target.get(Name.parse("x")).path.read_bytes() == weights
        drop_leftovers(target)
        return killed

    assert every(step, run) > 1


def test_two_processes_pull_the_same(registry, name, weights, store):
    registry.faults.slow = 0.02
    code = "import sys; from helpers.killable import work_pull; work_pull(*sys.argv[1:])"
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, str(store.folder), name]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, env=environment)) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    ranges = [headers["range"] for _, path, headers in registry.requests if digest in path and "range" in headers]
    assert len(ranges) == len(set(ranges)), "both fetched the same part"
    assert check(store) == [Name.parse(name).display]


def test_nothing_is_left_behind_in_the_temporary_folder(tmp_path: Path) -> None:
    """What the tests above look for exists: a temporary file of the dead is younger than a day and stays."""
    store = Store(tmp_path)
    store.blobs.folder.mkdir()
    young = store.blobs.folder / f".tmp-{'0' * 16}"
    young.write_bytes(b"x")
    store.prune()
    assert young.exists()
    os.utime(young, (0, 0))
    store.prune()
    assert not young.exists()
