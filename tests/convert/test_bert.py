"""BERT to GGUF: names, types, vocabulary, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_reference import embed
from checkpoints import CONFIG, WORDS, bert_weights, pack, write_bert

from pyggml.convert import CONVERTER_VERSION, VERSION_KEY, convert_folder
from pyggml.errors import MissingTensorError, ModelError, TokenizerError, UnsupportedArchitectureError
from pyggml.gguf import GGMLType, GGUFFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


def convert(folder: Path, **options: Any) -> GGUFFile:
    path = folder.parent / "out.gguf"
    convert_folder(folder, path, **options)
    return GGUFFile(path)


def array(file: GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    dtype = {GGMLType.F32: np.float32, GGMLType.F16: np.float16}[info.type]
    return np.frombuffer(file.data(name), dtype).reshape(info.numpy_shape)


def test_metadata(folder: Path) -> None:
    with convert(folder, metadata={"extra": 1}) as file:
        m = file.metadata
        assert m["general.architecture"] == "bert"
        assert m["general.file_type"] == 1
        assert m["bert.block_count"] == 2
        assert m["bert.context_length"] == 12
        assert m["bert.embedding_length"] == 16
        assert m["bert.feed_forward_length"] == 24
        assert m["bert.attention.head_count"] == 2
        assert m["bert.attention.layer_norm_epsilon"] == np.float32(1e-12)
        assert m["bert.attention.causal"] is False
        assert m["bert.pooling_type"] == 1
        assert m["tokenizer.ggml.token_type_count"] == 2
        assert (m[VERSION_KEY], m["extra"]) == (CONVERTER_VERSION, 1)


def test_vocabulary(folder: Path) -> None:
    with convert(folder) as file:
        m = file.metadata
        assert m["tokenizer.ggml.model"] == "bert"
        assert m["tokenizer.ggml.tokens"] == [
            *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁hello", "▁world", "s", "▁!", "[unused0]", "▁["),
            *("[PAD11]", "[PAD12]"),
        ]
        assert m["tokenizer.ggml.token_type"].tolist() == [3] * 5 + [1] * 6 + [5] * 2
        names = ("padding", "unknown", "cls", "seperator", "mask", "bos")
        assert [m[f"tokenizer.ggml.{n}_token_id"] for n in names] == [0, 1, 2, 3, 4, 2]


def test_tokenizer_json_is_preferred(folder: Path) -> None:
    vocab = {w: i for i, w in enumerate([*WORDS[:5], "other"])}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocab}}))
    with convert(folder) as file:
        assert file.metadata["tokenizer.ggml.tokens"][5] == "▁other"


def test_tensors(folder: Path) -> None:
    weights = bert_weights(CONFIG)
    with convert(folder) as file:
        assert len(file.tensors) == 5 + 2 * 16
        for name in ("token_embd.weight", "blk.1.ffn_up.weight", "blk.0.attn_q.weight"):
            assert file.tensors[name].type is GGMLType.F16
        for name in ("position_embd.weight", "token_types.weight", "token_embd_norm.bias", "blk.0.attn_q.bias"):
            assert file.tensors[name].type is GGMLType.F32
        assert file.tensors["blk.0.ffn_down.weight"].shape == (24, 16)
        pairs = {
            "position_embd.weight": "embeddings.position_embeddings.weight",
            "blk.1.attn_output_norm.bias": "encoder.layer.1.attention.output.LayerNorm.bias",
            "blk.0.layer_output_norm.weight": "encoder.layer.0.output.LayerNorm.weight",
        }
        for target, source in pairs.items():
            assert np.array_equal(array(file, target), weights[source])
        pairs = {
            "token_embd.weight": "embeddings.word_embeddings.weight",
            "blk.1.attn_k.weight": "encoder.layer.1.attention.self.key.weight",
            "blk.1.attn_v.weight": "encoder.layer.1.attention.self.value.weight",
            "blk.0.attn_output.weight": "encoder.layer.0.attention.output.dense.weight",
            "blk.0.ffn_up.weight": "encoder.layer.0.intermediate.dense.weight",
            "blk.0.ffn_down.weight": "encoder.layer.0.output.dense.weight",
        }
        for target, source in pairs.items():
            assert np.array_equal(array(file, target), weights[source].astype(np.float16))


def test_the_result_does_not_depend_on_the_run(folder: Path) -> None:
    digests = set()
    for _ in range(2):
        with convert(folder) as file:
            digests.add(hashlib.sha256(file.mapping()).hexdigest())
    assert len(digests) == 1


def test_a_prefix_and_several_files(tmp_path: Path) -> None:
    weights = {f"bert.{k}": v for k, v in bert_weights(CONFIG).items()} | {"cls.x": np.zeros(1, np.float32)}
    folder = write_bert(tmp_path / "b", config={"architectures": ["BertForMaskedLM"]}, weights=weights)
    names = sorted(weights)
    for i, part in enumerate((names[::2], names[1::2])):
        (folder / f"m-{i}.safetensors").write_bytes(pack({n: weights[n] for n in part}))
    (folder / "model.safetensors").unlink()
    with convert(folder) as file:
        assert len(file.tensors) == 37
    index = {"weight_map": {n: f"m-{i % 2}.safetensors" for i, n in enumerate(names)}}
    (folder / "other.safetensors").write_bytes(b"not looked at, as the index does not name it")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with convert(folder) as file:
        assert len(file.tensors) == 37


@pytest.mark.parametrize(
    ("pooling", "number"),
    [("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3), (None, None)],
)
def test_pooling(tmp_path: Path, pooling: str | None, number: int | None) -> None:
    with convert(write_bert(tmp_path / "b", pooling=pooling)) as file:
        assert file.metadata.get("bert.pooling_type") == number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_size": "16"}, "'hidden_size' is '16'"),
        ({"hidden_size": 32}, r"has the shape \(13, 16\) instead of \(13, 32\)"),
        ({"num_hidden_layers": 1}, "beyond 1"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"architectures": []}, "names no model class"),
    ],
)
def test_configs_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        convert(write_bert(tmp_path / "b", config=change))


def test_other_architectures(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedArchitectureError, match=r"unsupported architecture 'GPT2Model'; there are BertModel"
    ):
        convert(write_bert(tmp_path / "b", config={"architectures": ["GPT2Model"]}))


def test_missing_and_unknown_tensors(tmp_path: Path) -> None:
    weights = bert_weights(CONFIG)
    cut = {k: v for k, v in weights.items() if k != "encoder.layer.1.output.dense.bias"}
    with pytest.raises(MissingTensorError, match=r"blk\.1\.ffn_down\.bias"):
        convert(write_bert(tmp_path / "a", weights=cut))
    with pytest.raises(ModelError, match=r"encoder\.adapter"):
        convert(write_bert(tmp_path / "b", weights=weights | {"encoder.adapter": np.zeros(1, np.float32)}))
    integers = weights | {"embeddings.LayerNorm.bias": np.zeros(16, np.int64)}
    with pytest.raises(ModelError, match="floats are needed"):
        convert(write_bert(tmp_path / "c", weights=integers))
    assert not (tmp_path / "out.gguf").exists()


def test_vocabularies_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="more than the 13 rows"):
        convert(write_bert(tmp_path / "a", words=[*WORDS, "x", "y", "z"]))
    with pytest.raises(TokenizerError, match=r"unk_token '\[UNK\]' is not in the vocabulary"):
        convert(write_bert(tmp_path / "b", words=["[PAD]", "[CLS]", "[SEP]", "[MASK]"]))
    with pytest.raises(TokenizerError, match="0 to"):
        convert(write_bert(tmp_path / "c", words=[*WORDS[:5], "a", "a"]))
    cased = write_bert(tmp_path / "d")
    (cased / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(TokenizerError, match="cased"):
        convert(cased)
    absent = write_bert(tmp_path / "e")
    (absent / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor vocab\.txt"):
        convert(absent)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: is missing"):
        convert(tmp_path)
    folder = write_bert(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights are missing"):
        convert(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../x.safetensors"}}')
    with pytest.raises(ModelError, match="outside the folder"):
        convert(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        convert(folder)


SENTENCES = [
    ("The quick brown fox jumps over the lazy dog.", 12),
    ("Héllo wörld — naïve café, 東京 and 123.45!", 15),
    ("def f(x):\n    return x**2", 13),
]


def _plain(token: str) -> str:
    """A token in WordPiece's own form."""
    if token.startswith("▁"):
        return token[1:]
    return token if token.startswith("[") and token.endswith("]") else f"##{token}"


@pytest.mark.model
@pytest.mark.parity
def test_llama_cpp_embeds_with_the_converted_file(minilm_path: Path) -> None:
    import xllamacpp
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    params = xllamacpp.CommonParams()
    params.model.path = str(minilm_path)
    params.embedding, params.n_ctx, params.n_batch, params.n_ubatch = True, 512, 512, 512
    answer = xllamacpp.Server(params).handle_embeddings({"input": [text for text, _ in SENTENCES]})
    theirs = [np.array(item["embedding"]) for item in answer["data"]]
    with GGUFFile(minilm_path) as file:
        m = file.metadata
        vocab = {_plain(token): i for i, token in enumerate(m["tokenizer.ggml.tokens"])}
        tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        for (text, n_tokens), their in zip(SENTENCES, theirs, strict=True):
            first, last = m["tokenizer.ggml.cls_token_id"], m["tokenizer.ggml.seperator_token_id"]
            ids = [first, *tokenizer.encode(text).ids, last]
            assert len(ids) == n_tokens
            ours = embed(lambda name: array(file, name), ids, n_layers=6, n_heads=12, eps=1e-12)
            assert float(ours @ their) / float(np.linalg.norm(their)) > 0.9999
