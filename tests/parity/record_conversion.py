"""Record what llama.cpp's converters make of small model folders, and the logits that transformers computes from them.

    PYTHONPATH=src PYGGML_LLAMA_CPP=…/llama.cpp python -m tests.parity.record_conversion [CASE…]  # ../convert/data

Needs torch, transformers, sentencepiece and peft. Each archive holds a folder as Hugging Face's libraries write it
(random weights, a vocabulary learned from prose.txt), what llama.cpp's converter makes of it (``oracle.gguf`` with the
metadata, ``oracle.json`` with type, ggml shape and sha256 of each tensor), and ``expected.npz``: ``ids``,
``logits (n_ids, n_vocab)``, and the ids of each of ``TEXTS``.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
PROSE = HERE / "data" / "prose.txt"
TEXTS = ("The sea was calm.", " two  spaces\n\n\tand a tab", "Größe 123 4567 “quoted” 🦙", "it's <|tag|>, I'LL [INST]")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CHAT = "{% for m in messages %}<|tag|>{{ m.role }}: {{ m.content }}\n{% endfor %}"


def bpe_tokenizer(folder: Path) -> list[list[int]]:
    """A byte-level tokenizer in the manner of Llama 3; the ids of the texts."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train([str(PROSE)], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<|begin|>", "<|eot_id|>"])
    tokenizer.add_tokens([AddedToken("<|tag|>", normalized=False), AddedToken("user▁word", normalized=False)])
    bos = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", bos)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|eot_id|>", chat_template=CHAT
    ).save_pretrained(folder)
    return [tokenizer.encode(text).ids for text in TEXTS]


def spm_tokenizer(folder: Path, *, prefix: bool) -> list[list[int]]:
    """A SentencePiece model with additions; the ids of the texts, without BOS."""
    import sentencepiece

    # from memory, because the file keeps the paths that it was made with
    written, lines = io.BytesIO(), PROSE.read_text("utf-8").splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, model_type="bpe", vocab_size=340, byte_fallback=True,
        add_dummy_prefix=prefix, remove_extra_whitespaces=False, normalization_rule_name="identity",
        user_defined_symbols=["[INST]"], minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    special = {"0": "<unk>", "1": "<s>", "2": "</s>"}
    added: dict[str, Any] = {id: {"content": text, "special": True} for id, text in special.items()}
    added["3"] = {"content": "[INST]", "special": False}
    config = {"added_tokens_decoder": added, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"add_bos_token": True, "add_eos_token": False, "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model = sentencepiece.SentencePieceProcessor()
    model.LoadFromFile(str(folder / "tokenizer.model"))
    return [model.Encode(text) for text in TEXTS]


def fallback_tokenizer(folder: Path) -> list[list[int]]:
    """The same pieces in a ``tokenizer.json``, as Hugging Face's own converter writes them."""
    ids = spm_tokenizer(folder, prefix=True)
    tokenizer = transformers.LlamaTokenizer.from_pretrained(folder)
    (folder / "tokenizer.model").unlink()
    tokenizer.save_pretrained(folder)
    return ids


def finish(model: Any, folder: Path, dtype: torch.dtype, **options: Any) -> np.ndarray:
    """Randomize, save, and give the logits of the saved weights for :func:`probe`."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.2 if "norm" in name else 0.0, 0.3 if parameter.dim() == 1 else 0.2)
    model.to(dtype).save_pretrained(folder, **options)
    return compute(folder)


def probe(n_vocab: int) -> list[int]:
    """Ids to compute with."""
    return np.random.default_rng(5).integers(3, n_vocab, 24).tolist()  # type: ignore[no-any-return]


def compute(folder: Path) -> np.ndarray:
    """Logits in float32, ``(n_ids, n_vocab)``."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    with torch.inference_mode():
        return model(torch.tensor([probe(300)])).logits[0].numpy()  # type: ignore[no-any-return]


COMMON: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


def llama3(folder: Path) -> tuple[np.ndarray, list[list[int]]]:
    """BF16 in shards, stretched frequencies, an output matrix of its own, byte-level BPE."""
    ids = bpe_tokenizer(folder)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16, "rope_theta": 5000.0}  # fmt: skip
    config = transformers.LlamaConfig(
        **COMMON, vocab_size=336, rope_parameters=rope, tie_word_embeddings=False, bos_token_id=330, eos_token_id=331
    )
    return finish(transformers.LlamaForCausalLM(config), folder, torch.bfloat16, max_shard_size="30KB"), ids


def llama_fallback(folder: Path) -> tuple[np.ndarray, list[list[int]]]:
    """F16 with biases, linear scaling, one matrix for input and output, SentencePiece as ``tokenizer.json``."""
    ids = fallback_tokenizer(folder)
    config = transformers.LlamaConfig(
        **COMMON, vocab_size=340, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    )  # fmt: skip
    return finish(transformers.LlamaForCausalLM(config), folder, torch.float16), ids


def mistral(folder: Path) -> tuple[np.ndarray, list[list[int]]]:
    """F32, heads of a width of their own, ``tokenizer.model``."""
    ids = spm_tokenizer(folder, prefix=True)
    config = transformers.MistralConfig(**COMMON, vocab_size=340, head_dim=16, sliding_window=None)
    return finish(transformers.MistralForCausalLM(config), folder, torch.float32), ids


def gemma3(folder: Path) -> tuple[np.ndarray, list[list[int]]]:
    """BF16, seven layers of which one sees everything, more rows than tokens, ``tokenizer.model`` without a prefix."""
    ids = spm_tokenizer(folder, prefix=False)
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}  # fmt: skip
    config = transformers.Gemma3TextConfig(
        **(COMMON | {"num_hidden_layers": 7}), vocab_size=344, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
        rope_parameters=rope, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    return finish(transformers.Gemma3ForCausalLM(config), folder, torch.bfloat16), ids


CASES: dict[str, Callable[[Path], tuple[np.ndarray, list[list[int]]]]] = {
    "llama3": llama3,
    "llama-fallback": llama_fallback,
    "mistral": mistral,
    "gemma3": gemma3,
}


def convert(folder: Path, path: Path) -> None:
    """llama.cpp's converter, told the name of a pre-tokenizer that it cannot know by its vocabulary."""
    conversion = importlib.import_module("conversion")
    config = json.loads((folder / "config.json").read_text())
    kind = conversion.get_model_class(config["architectures"][0])
    kind.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
    types = importlib.import_module("gguf").LlamaFileType
    bf16 = config["dtype"] == "bfloat16"
    with torch.inference_mode():
        kind(folder, types.MOSTLY_BF16 if bf16 else types.MOSTLY_F16, path).write()


def digest(path: Path) -> None:
    """Put digests of the tensors of a GGUF file in the place of their data."""
    from pyggml.gguf import GGUFFile, GGUFWriter

    writer = GGUFWriter(path.with_name("oracle.gguf"))
    with GGUFFile(path) as file:
        for key, value in file.metadata.items():
            writer.add(key, value, type=file.types[key].type, item=file.types[key].item)
        tensors = {
            info.name: [info.type.name, list(info.shape), hashlib.sha256(file.data(info.name)).hexdigest()]
            for info in file.tensors.values()
        }
        writer.write()
    path.with_name("oracle.json").write_text(json.dumps(tensors, indent=1))
    path.unlink()


def pack(target: Path, folder: Path) -> None:
    """A folder as an archive, the same bytes for the same files."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def adapter(base: Path, folder: Path, *, targets: list[str], **options: Any) -> None:
    """An adapter for a model folder: PEFT's files, what llama.cpp's converter makes of it, logits with it."""
    import peft

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM", **options)
    changed = peft.get_peft_model(model, config)
    torch.manual_seed(8)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.3)
    changed.eval()
    changed.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base.name}))
    with torch.inference_mode():
        logits = changed(torch.tensor([probe(300)])).logits[0].numpy()
    script = str(Path(os.environ["PYGGML_LLAMA_CPP"]) / "convert_lora_to_gguf.py")
    command = [sys.executable, script, "--base", str(base), "--outtype", "f32", "--outfile"]
    subprocess.run([*command, str(folder / "whole.gguf"), str(folder)], check=True)
    digest(folder / "whole.gguf")
    np.savez(folder / "expected.npz", ids=np.array(probe(300), np.int32), logits=logits)


PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapters(name: str, base: Path, folder: Path) -> None:
    """The adapters of a case, in its archive's place."""
    folder.mkdir()
    if name == "llama3":
        adapter(base, folder, targets=[*PROJECTIONS, "lm_head"], rank_pattern={"v_proj": 2})
    else:
        adapter(base, folder, targets=["q_proj", "k_proj", "down_proj", "embed_tokens"])
    pack(HERE.parent / "convert" / "data" / f"{name}-lora.zip", folder)


def main() -> None:
    source = Path(os.environ["PYGGML_LLAMA_CPP"])
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    for name in sys.argv[1:] or CASES:
        make = CASES[name]
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            logits, ids = make(folder)
            convert(folder, Path(temporary) / "oracle.gguf")
            (Path(temporary) / "oracle.gguf").rename(folder / "whole.gguf")
            digest(folder / "whole.gguf")
            texts = {f"text{i}": np.array(row, np.int32) for i, row in enumerate(ids)}
            np.savez(folder / "expected.npz", ids=np.array(probe(300), np.int32), logits=logits, **texts)
            target = HERE.parent / "convert" / "data" / f"{name}.zip"
            pack(target, folder)
            if name in ("llama3", "gemma3"):
                adapters(name, folder, Path(temporary) / "lora")
            print(target, target.stat().st_size, sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    main()
