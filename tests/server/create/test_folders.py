"""Models and adapters from folders of safetensors, through ``create``."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from create_builders import write_gguf

from pyggml.gguf import GGUFFile
from pyggml.lora import LoraAdapter
from pyggml.tokenizer import Tokenizer
from pyggml_server.errors import BadRequestError
from pyggml_server.store import add_files, find_files, silent
from pyggml_server.store.template_names import template_name

DATA = Path(__file__).parents[2] / "convert" / "data"


def _unpack(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
        archive.extractall(folder, [entry for entry in archive.namelist() if not entry.startswith(("oracle", "exp"))])
    return folder


@pytest.mark.parametrize(("name", "family", "level"), [("llama3", "llama", "BF16"), ("gemma3", "gemma3", "BF16"),
                                                       ("mistral", "llama", "F16")])  # fmt: skip
def test_a_folder(create: Any, store: Any, tmp_path: Path, name: str, family: str, level: str) -> None:
    files = add_files(store, find_files(_unpack(name, tmp_path / name)), silent)
    model, statuses = create("made", files=files)
    assert statuses[0] == "converting model"
    assert (model.details.family, model.details.quantization_level) == (family, level)
    with GGUFFile(model.path) as file:
        assert file.metadata["general.name"] == "made"
        assert Tokenizer.from_metadata(file.metadata).encode("the sea")
    small, statuses = create("small", files=files, quantize="q8_0")
    assert f"quantizing {level} model to Q8_0" in statuses
    assert small.details.quantization_level == "Q8_0"


def test_what_is_wrong_with_a_folder(create: Any, store: Any, tmp_path: Path) -> None:
    folder = _unpack("llama3", tmp_path / "llama3")
    (folder / "config.json").write_text(json.dumps({"architectures": ["FooForCausalLM"]}))
    with pytest.raises(BadRequestError, match=r"\Aunsupported architecture 'FooForCausalLM'"):
        create(files=add_files(store, find_files(folder), silent))
    config = json.loads(zipfile.ZipFile(DATA / "llama3.zip").read("config.json"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(BadRequestError, match=r"\Aconfig\.json: the hidden_act 'relu'"):
        create(files=add_files(store, find_files(folder), silent))
    with pytest.raises(BadRequestError, match=r"no config\.json"):
        create(files=add_files(store, {"model.safetensors": next(folder.glob("*.safetensors"))}, silent))
    assert store.list() == [] and list((store.work_folder() / "create").iterdir()) == []


def test_an_adapter(create: Any, store: Any, tmp_path: Path) -> None:
    files = add_files(store, find_files(_unpack("llama3", tmp_path / "llama3")), silent)
    lora = add_files(store, find_files(_unpack("llama3-lora", tmp_path / "lora")), silent)
    model, statuses = create("tuned", files=files, adapters=lora)
    assert "converting adapter" in statuses
    assert len(model.adapters) == 1
    with LoraAdapter(model.adapters[0]) as adapter, GGUFFile(model.path) as base:
        adapter.check_fits(base)
        assert "blk.1.attn_q.weight" in adapter.pairs
    other = store.blobs.add_bytes(write_gguf(tmp_path / "a.gguf").read_bytes()).digest
    with pytest.raises(BadRequestError, match="which the model does not have"):
        create("x", files={"a.gguf": other}, adapters=lora)
    with pytest.raises(BadRequestError, match="the files hold no adapter"):
        create("x", files=files, adapters={name: d for name, d in lora.items() if name.endswith(".json")})
    with pytest.raises(BadRequestError, match=r"adapter_config\.json: is missing"):
        create("x", files=files, adapters={name: d for name, d in lora.items() if name.endswith(".safetensors")})


def test_the_template_is_named(create: Any, store: Any, tmp_path: Path) -> None:
    def statuses(source: str, /, **request: Any) -> list[str]:
        path = write_gguf(tmp_path / "t.gguf", tokenizer__chat_template=source)
        digest = store.blobs.add_bytes(path.read_bytes()).digest
        _, found = create(files={"t.gguf": digest}, **request)
        return [status for status in found if "template" in status]

    chatml = "{{'<|im_start|>' + role + content + '<|im_end|>'}}"
    assert statuses(chatml) == ["using autodetected template chatml"]
    assert statuses(chatml, template="{{ .Prompt }}") == []
    assert statuses("{{ content }}") == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("<|start_header_id|>{{ r }}<|end_header_id|> <|eot_id|>", "llama3-instruct"),
        ("{% if '<<SYS>>' %}[INST] {{ m }} [/INST]", "llama2-chat"),
        ("[INST] {{ m }} [/INST]", "mistral-instruct"),
        ("{{ first_user_prefix }}<start_of_turn>model", "gemma3-instruct"),
        ("<start_of_turn>model", "gemma-instruct"),
        ("<|user|>{{ m }}<|end|><|assistant|>", "phi-3"),
        ("<|user|>{{ m }}</s><|assistant|>", "zephyr"),
        ("### Instruction: x ### Response:", "alpaca"),
    ],
)
def test_names_of_templates(source: str, name: str) -> None:
    assert template_name(source) == name
