"""Draft models: made from files, inherited, quantized, shown, carried along; refused where they do not fit."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.registry import running_registry
from helpers.tiny import TinyConfig, build
from pyggml.gguf import GGMLType, GGUFFile
from pyggml_server.cli.main import main
from pyggml_server.config import Config
from pyggml_server.errors import BadRequestError
from pyggml_server.names import Name
from pyggml_server.registry import RegistrySettings
from pyggml_server.store import Store, Transfers, export_model, import_model, modelfile_text, silent

DRAFT = "application/vnd.ollama.image.draft"


@pytest.fixture
def registry():
    """An empty registry."""
    with running_registry() as running:
        yield running


@pytest.fixture
def files(store: Store, tmp_path: Path) -> dict[str, str]:
    """Digests of a large model, a small one of its family, and one of another."""
    configs = {
        "large": TinyConfig(weights=GGMLType.F16),
        "small": TinyConfig(n_layer=1, seed=2, weights=GGMLType.F16),
        "other": TinyConfig(architecture="bert"),
    }
    return {
        name: store.blobs.add_bytes(build(tmp_path / f"{name}.gguf", config).path.read_bytes()).digest
        for name, config in configs.items()
    }


def config_of(store: Store, name: str) -> dict[str, object]:
    digest = store.manifests.read(Name.parse(name)).config.digest
    return json.loads(store.blobs.path(digest).read_bytes())


def test_from_files(create, store, files):
    model, _ = create(files={"l.gguf": files["large"]}, draft_files={"s.gguf": files["small"]})
    assert model.weights.digest == files["large"] and model.draft == store.blobs.path(files["small"])
    assert [(layer.media_type, layer.digest) for layer in model.layers if layer.kind == "draft"] == [
        (DRAFT, files["small"])
    ]
    assert config_of(store, "new")["draft"] == {"model_format": "gguf", "architecture": "llama"}
    text = modelfile_text(model, system="", template="")
    assert f"DRAFT {model.draft}\n" in text


def test_inherited_replaced_and_pruned(create, store, files):
    create("base", files={"l.gguf": files["large"]}, draft_files={"s.gguf": files["small"]})
    heir, _ = create("heir", **{"from": "base"}, system="s")
    assert heir.draft == store.blobs.path(files["small"])
    assert config_of(store, "heir")["draft"] == {"model_format": "gguf", "architecture": "llama"}
    store.remove(Name.parse("base"))
    changed, _ = create("heir", **{"from": "heir"}, draft_files={"l.gguf": files["large"]})
    assert changed.draft == changed.path and [layer.kind for layer in changed.layers].count("draft") == 1
    assert store.blobs.find(files["small"]) is None  # nobody needs it any more


def test_quantized(create, store, files):
    model, statuses = create(
        files={"l.gguf": files["large"]}, draft_files={"s.gguf": files["small"]}, draft_quantize="q8_0"
    )
    assert "quantizing F16 model to Q8_0" in statuses
    assert model.weights.digest == files["large"] and model.details.quantization_level == "F16"
    assert model.draft is not None and model.draft != store.blobs.path(files["small"])
    with GGUFFile(model.draft) as file:
        assert file.tensors["blk.0.ffn_up.weight"].type.name == "Q8_0"


def test_without_one_there_is_nothing_to_quantize(create, files):
    with pytest.raises(BadRequestError, match="--draft-quantize requires a DRAFT model"):
        create(files={"l.gguf": files["large"]}, draft_quantize="q8_0")
    with pytest.raises(BadRequestError, match="unsupported quantization type"):
        create(
            files={"l.gguf": files["large"]}, draft_files={"s.gguf": files["small"]}, draft_quantize="q9"
        )  # fmt: skip


def test_what_does_not_fit_is_refused(create, store, files, digest):
    with pytest.raises(BadRequestError, match=r"the draft model b\.gguf cannot draft for new: .* one of its family"):
        create(files={"l.gguf": files["large"]}, draft_files={"b.gguf": files["other"]})
    with pytest.raises(BadRequestError, match=r"the draft model a\.gguf has no vocabulary that can be read"):
        create(files={"l.gguf": files["large"]}, draft_files={"a.gguf": digest})
    with pytest.raises(BadRequestError, match="not found: upload it first"):
        create(files={"l.gguf": files["large"]}, draft_files={"s.gguf": "sha256:" + "0" * 64})
    with pytest.raises(BadRequestError, match="file path must be relative"):
        create(files={"l.gguf": files["large"]}, draft_files={"../s.gguf": files["small"]})
    assert store.list() == []


def test_archives_and_registries_carry_it(create, store, files, registry, tmp_path):
    url = f"{registry.url}/me/x"
    model, _ = create(url, files={"l.gguf": files["large"]}, draft_files={"s.gguf": files["small"]})
    archive = io.BytesIO()
    export_model(store, model.name, archive, silent)
    archive.seek(0)
    there = import_model(Store(tmp_path / "there"), archive, silent)
    assert there.draft is not None and there.draft.read_bytes() == store.blobs.path(files["small"]).read_bytes()

    async def follow(folder: Path, work: str) -> None:
        settings = RegistrySettings(docker_config=tmp_path / "none.json")
        config = Config.from_environment({"OLLAMA_MODELS": str(folder)})
        async for _ in getattr(Transfers(config, Store(folder), settings=settings), work)(url):
            pass

    asyncio.run(follow(store.folder, "push"))
    asyncio.run(follow(tmp_path / "pulled", "pull"))
    pulled = Store(tmp_path / "pulled").get(Name.parse(url))
    assert pulled.digest == model.digest and pulled.draft is not None


@pytest.mark.parametrize("draft", ["./small.gguf", "little", "missing", "./missing.gguf"])
def test_the_command(create, store, files, tmp_path, monkeypatch, draft):
    """``DRAFT``: a file beside the Modelfile, or a model of the store."""
    create("little", files={"s.gguf": files["small"]})
    (tmp_path / "Modelfile").write_text(f"FROM ./large.gguf\nDRAFT {draft}\n")
    monkeypatch.setenv("OLLAMA_MODELS", str(store.folder))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["create", "made", "--draft-quantize", "q4_0"])
    if "missing" in draft:
        assert result.exit_code == 1 and draft.strip("./") in result.output
        assert not store.has(Name.parse("made"))
        return
    assert result.exit_code == 0, result.output
    made = store.get(Name.parse("made"))
    assert made.weights.digest == files["large"] and made.draft is not None
    with GGUFFile(made.draft) as file:
        assert file.tensors["blk.0.ffn_up.weight"].type.name == "Q4_0"


def test_where_a_layer_is_from_is_kept(create, store, files):
    """Ollama notes the model that a layer came with; a registry that has it need not be sent it again."""
    create("me/base", files={"l.gguf": files["large"]})
    heir, _ = create("heir", **{"from": "me/base"})
    grandchild, _ = create("grandchild", **{"from": "heir"}, system="s")
    for model in (heir, grandchild):
        layers = json.loads(store.manifests.read_bytes(model.name))["layers"]
        assert [layer.get("from") for layer in layers if layer["mediaType"].endswith("model")] == ["me/base:latest"]
    assert "from" not in json.loads(store.manifests.read_bytes(Name.parse("me/base")))["layers"][0]
