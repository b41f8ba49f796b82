"""Creating models: from files, from other models, quantized; what is inherited; what is refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from create_builders import write_gguf
from hypothesis import given
from hypothesis import strategies as st

from convert.checkpoints import write_bert
from pyggml.gguf import GGUFError, GGUFFile, GGUFWriter
from pyggml_server.errors import BadRequestError, DigestMismatchError, InvalidNameError, TransferError
from pyggml_server.names import Name
from pyggml_server.store import Store, add_files, find_files, silent
from pyggml_server.store.recipe import Recipe


def test_from_a_file(create, digest, store):
    model, statuses = create(
        files={"a.gguf": digest},
        template="{{ .Prompt }}",
        system="be brief",
        license=["one", "two"],
        parameters={"stop": "x", "num_ctx": 512, "low_vram": True},
        messages=[{"role": "user", "content": "hi"}],
        requires="0.9",
        parser="p",
    )
    assert model.weights.digest == digest
    assert (model.template, model.system, model.licenses) == ("{{ .Prompt }}", "be brief", ("one", "two"))
    assert model.params == {"stop": ["x"], "num_ctx": 512}
    assert model.messages == ({"role": "user", "content": "hi"},)
    assert model.details.quantization_level == "F16" and model.details.family == "llama"
    assert statuses[0] == "parsing GGUF" and statuses[-2:] == ["writing manifest", "success"]
    assert f"using existing layer {digest}" in statuses
    assert any(status.startswith("creating new layer sha256:") for status in statuses)
    config = json.loads(store.blobs.path(store.manifests.read(model.name).config.digest).read_bytes())
    assert (config["requires"], config["parser"]) == ("0.9", "p")


def test_inheritance(create, digest, store):
    create("base", files={"a.gguf": digest}, template="{{ .Prompt }}", system="s", license="one", parser="p",
           parameters={"stop": ["x"], "num_ctx": 512}, messages=[{"role": "user", "content": "hi"}])  # fmt: skip
    model, _ = create("child", **{"from": "base"}, license="two", parameters={"num_ctx": 64, "top_k": 3})
    assert model.params == {"stop": ["x"], "num_ctx": 64, "top_k": 3}
    assert model.licenses == ("one", "two") and model.system == "s" and model.template == "{{ .Prompt }}"
    assert model.messages and model.weights.digest == digest
    config = json.loads(store.blobs.path(store.manifests.read(model.name).config.digest).read_bytes())
    assert config["parser"] == "p"
    unset, _ = create("child", **{"from": "child"}, system="", messages=[])
    assert unset.system is None and unset.messages == ()


def test_old_layers_go_when_a_name_is_made_again(create, digest, store):
    create(files={"a.gguf": digest}, system="first")
    old = {layer.digest for layer in store.get(Name.parse("new")).layers}
    model, _ = create(files={"a.gguf": digest}, system="second")
    gone = old - {layer.digest for layer in model.layers}
    assert gone and all(store.blobs.find(digest) is None for digest in gone)


def test_quantize(create, digest):
    model, statuses = create(files={"a.gguf": digest}, quantize="q4_K_m")
    assert "quantizing F16 model to Q4_K_M" in statuses
    assert model.details.quantization_level == "Q4_K_M"
    with GGUFFile(model.path) as file:
        types = {info.name: info.type.name for info in file.tensors.values()}
    assert types["token_embd.weight"] == "Q6_K" and types["blk.0.attn_norm.weight"] == "F32"
    with pytest.raises(BadRequestError, match="only supported for F16 and F32"):
        create("again", **{"from": "new"}, quantize="q8_0")
    with pytest.raises(BadRequestError, match="unsupported quantization type q9 - supported types are F32, F16"):
        create("again", files={"a.gguf": digest}, quantize="q9")
    same, _ = create("same", files={"a.gguf": digest}, quantize="f16")
    assert same.weights.digest == digest


def test_shards_are_joined(create, store, tmp_path):
    parts = {}
    for number in (1, 2):
        path = tmp_path / f"m-0000{number}-of-00002.gguf"
        writer = GGUFWriter(path, architecture="llama")
        for key, value in (("no", number - 1), ("count", 2), ("tensors.count", 2)):
            writer.add(f"split.{key}", np.int32(value) if "tensors" in key else np.uint16(value))
        writer.add_tensor(f"t{number}.weight", np.full(32, number, np.float32))
        writer.write()
        parts[path.name] = store.blobs.add_bytes(path.read_bytes()).digest
    model, _ = create(files=parts)
    with GGUFFile(model.path) as file:
        assert set(file.tensors) == {"t1.weight", "t2.weight"} and len(file.parts) == 1
    with pytest.raises(BadRequestError, match="no first part"):
        create("half", files={"m-00002-of-00002.gguf": parts["m-00002-of-00002.gguf"]})


def test_projectors_and_adapters(create, digest, store, tmp_path):
    clip = store.blobs.add_bytes(write_gguf(tmp_path / "clip.gguf", architecture="clip").read_bytes()).digest
    lora = write_gguf(tmp_path / "lora.gguf", seed=2, general__type="adapter")
    adapter = store.blobs.add_bytes(lora.read_bytes()).digest
    model, _ = create(files={"a.gguf": digest, "mmproj.gguf": clip}, adapters={"lora.gguf": adapter})
    assert model.projectors == (store.blobs.path(clip),) and model.adapters == (store.blobs.path(adapter),)
    other = write_gguf(tmp_path / "other.gguf", seed=3, architecture="gemma3", general__type="adapter")
    wrong = store.blobs.add_bytes(other.read_bytes()).digest
    with pytest.raises(BadRequestError, match="made for gemma3, the model is llama"):
        create("x", files={"a.gguf": digest}, adapters={"other.gguf": wrong})
    with pytest.raises(BadRequestError, match="it is no adapter"):
        create("x", files={"a.gguf": digest}, adapters={"a.gguf": digest})


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({}, "neither 'from' or 'files' was specified"),
        ({"files": {"../a.gguf": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"/etc/passwd": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"a/../../b": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"a\\..\\b": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"c:\\b": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"a\0b": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"a" * 256: "sha256:" + "0" * 64}}, "file path is too long"),
        ({"files": {"a/" * 1000 + "b": "sha256:" + "0" * 64}}, "file path is too long"),
        ({"files": dict.fromkeys(("a/b", "a//b"), "sha256:" + "0" * 64)}, "two files have the same path"),
        ({"files": dict.fromkeys(("a/b/c", "a"), "sha256:" + "0" * 64)}, "a/b/c: a part of this path is a file, too"),
        ({"files": dict.fromkeys(map(str, range(10_001)), "sha256:" + "0" * 64)}, "at most 10000 paths"),
        ({"files": {"a.gguf": "sha256:../../etc/passwd"}}, "invalid digest format"),
        ({"files": {"a.gguf": "md5:" + "0" * 32}}, "invalid digest format"),
        ({"files": {"a.gguf": "sha256:" + "0" * 64}}, "not found"),
        ({"from": "x", "parameters": {"colour": 1}}, "unknown parameter 'colour'"),
        ({"from": "x", "parameters": {"num_ctx": "many"}}, "invalid int value"),
        ({"from": "x", "messages": [{"role": "king", "content": ""}]}, "a message has a role"),
        ({"from": "x", "draft_files": {"a": "b"}}, "invalid digest format"),
        ({"from": "x", "draft_quantize": 8}, "draft_quantize is no text"),
        ({"from": "x", "remote_host": "h"}, "models on other hosts are not served"),
        ({"from": "x", "parameters": {"num_ctx": 1e300}}, "invalid int value"),
        ({"from": "x", "parameters": {"num_ctx": -(2**63) - 1}}, "invalid int value"),
        ({"from": "x", "requires": "soon"}, "no version"),
        ({"from": "x", "requires": "1" * 1000}, "no version"),
    ],
)
def test_what_is_refused(create, request_fields, message):
    with pytest.raises(BadRequestError) as caught:
        create(**request_fields)
    assert message in str(caught.value)


def test_files_that_are_no_models(create, store):
    text = store.blobs.add_bytes(b"version https://git-lfs.github.com/spec/v1\n").digest
    with pytest.raises(BadRequestError, match="supplied file was not in GGUF format"):
        create(files={"a.gguf": text})
    with pytest.raises(InvalidNameError):
        create("../x", files={"a.gguf": text})


def test_damaged_files_are_told_by_the_names_they_came_with(create, digest, store, tmp_path):
    """Clients know nothing of the server's folders."""
    cut = store.blobs.add_bytes(store.blobs.path(digest).read_bytes()[:200]).digest
    broken = dict.fromkeys((f"m-0000{i}-of-00002.gguf" for i in (1, 2)), cut)
    for request in (
        {"files": {"sub/a.gguf": cut}},
        {"files": broken},
        {"files": {"a.gguf": digest}, "adapters": {"sub/a.gguf": cut}},
        {"files": {"a.gguf": digest}, "draft_files": {"sub/a.gguf": cut}},
    ):
        with pytest.raises(GGUFError) as caught:
            create(**request)
        assert str(caught.value).startswith(("sub/a.gguf: ", "m-00001-of-00002.gguf: "))
        assert str(tmp_path) not in str(caught.value)
    assert store.list() == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[]", "holds no JSON object"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b'{"architectures": ["LlamaForCausalLM"]}', "too short for a safetensors file"),
    ],
)
def test_folders_that_are_no_models(create, store, config, message):
    digests = [store.blobs.add_bytes(data).digest for data in (b"hello", config)]
    with pytest.raises(BadRequestError, match=message):
        create(files=dict(zip(("m.safetensors", "config.json"), digests, strict=True)))
    index = b'{"weight_map": {"a": "../../../../../etc/passwd"}}'
    files = {"m.safetensors": digests[0], "config.json": digests[1]}
    files["model.safetensors.index.json"] = store.blobs.add_bytes(index).digest
    with pytest.raises(BadRequestError):
        create(files=files)
    assert store.list() == [] and not list((store.work_folder() / "create").iterdir())


def test_an_unknown_base(create):
    with pytest.raises(TransferError, match=r"127\.0\.0\.1:9"):
        create(**{"from": "http://127.0.0.1:9/me/x"})


def test_uploads(transfers, store):
    async def upload(digest: str, *chunks: bytes) -> bool:
        async def stream():
            for chunk in chunks:
                yield chunk

        return await transfers.add_blob(digest, stream())

    import hashlib

    digest = f"sha256:{hashlib.sha256(b'abcd').hexdigest()}"
    assert asyncio.run(upload(digest, b"ab", b"cd")) is True
    assert asyncio.run(upload(digest)) is False
    with pytest.raises(DigestMismatchError):
        asyncio.run(upload("sha256:" + "0" * 64, b"x"))
    assert [path.name for path in store.blobs.folder.iterdir()] == [digest.replace(":", "-")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "model",
    "from",
    "files",
    "adapters",
    "draft_files",
    "draft_quantize",
    "template",
    "license",
    "system",
    "parameters",
    "messages",
    "quantize",
    "info",
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_request_is_checked(request_fields):
    try:
        recipe = Recipe.parse({"model": "m", "from": "x", **request_fields})
    except (BadRequestError, InvalidNameError):
        return
    for file in (*recipe.files, *recipe.adapters, *recipe.draft_files):
        assert not file.path.is_absolute() and ".." not in file.path.parts


KILLED = """
import asyncio, sys
from pyggml_server.config import Config
from pyggml_server.store import Store, Transfers
store = Store(sys.argv[1])
async def main():
    transfers = Transfers(Config.from_environment({"OLLAMA_MODELS": sys.argv[1]}), store)
    async for event in transfers.create({"model": "new", "files": {"a.gguf": sys.argv[2]}, "quantize": "q4_K_M"}):
        print(event["status"], flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("after", ["quantizing", "creating new layer", "writing manifest"])
def test_kill_9_in_the_middle(create, digest, store: Store, after: str):
    command = [sys.executable, "-c", KILLED, str(store.folder), digest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout or ():
            if line.startswith(after):
                break
        os.killpg(process.pid, signal.SIGKILL)
    for entry in store.list():  # nothing, or the whole model
        store.blobs.verify(store.get(entry.name).weights.digest)
    model, _ = create(files={"a.gguf": digest}, quantize="q4_K_M")
    assert model.details.quantization_level == "Q4_K_M"
    for layer in model.layers:
        store.blobs.verify(layer.digest)


def test_prune_leaves_what_is_young_or_used(create, digest, store):
    create(files={"a.gguf": digest})
    old, young = store.blobs.add_bytes(b"old").digest, store.blobs.add_bytes(b"young").digest
    past = time.time() - 7200
    for name in (old, digest):
        os.utime(store.blobs.path(name), (past, past))
    (store.manifests.folder / "a" / "b" / "c").mkdir(parents=True)
    downloads = store.work_folder() / "downloads"
    downloads.mkdir()
    for name, age in (("sha256-a", 8 * 86400), ("sha256-b", 86400)):
        (downloads / name).touch()
        os.utime(downloads / name, (time.time() - age, time.time() - age))
    assert list(store.prune()) == [old]
    assert [path.name for path in downloads.iterdir()] == ["sha256-b"]
    assert store.blobs.find(young) and store.blobs.find(digest)
    assert not (store.manifests.folder / "a").exists()
    os.utime(store.blobs.path(young), (past, past))
    Path(store.manifests.folder / "h" / "n" / "m").mkdir(parents=True)
    (store.manifests.folder / "h" / "n" / "m" / "t").write_text("damaged")
    with pytest.raises(Exception, match="damaged"):
        store.prune()
    assert store.blobs.find(young)


def test_safetensors_are_converted(create, store, tmp_path):
    write_bert(tmp_path / "bert")
    files = add_files(store, find_files(tmp_path / "bert"), silent)
    model, statuses = create("bert", files=files)
    assert "converting model" in statuses
    assert model.details.family == "bert"
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "bert" / "tokenizer_config.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(BadRequestError, match="insecure path"):
        find_files(tmp_path / "bert")


def test_files_beside_a_modelfile(tmp_path):
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00001-of-00002.gguf", "x.gguf"):
        (tmp_path / name).touch()
    assert sorted(find_files(tmp_path / "m-00001-of-00002.gguf")) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert sorted(find_files(tmp_path / "x.gguf")) == ["x.gguf"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadRequestError, match=r"no \*.safetensors"):
        find_files(empty)
