"""Adapters with random matrices, merged models, and a decoder that computes with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers.tiny import TinyModel
from pyggml.batch import Batch
from pyggml.engine import Decoder, Engine, EngineConfig
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter
from pyggml.lora import EMBEDDING, Adapters, write_adapter
from pyggml.tensor import DType, dequantize

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Pairs = dict[str, tuple[Floats, Floats]]

EXACT = EngineConfig(n_ctx=128, n_batch=64, n_threads=1, type_k=DType.F32, type_v=DType.F32, flash_attn=False)


def random_pairs(path: Path, targets: Sequence[str], *, rank: int, seed: int, size: float = 0.5) -> Pairs:
    """Matrices for tensors of the model in ``path``, whose product has entries of about ``size / sqrt(n_in)``."""
    random = np.random.default_rng(seed)
    pairs: Pairs = {}
    with GGUFFile(path) as file:
        for name in targets:
            n_in, n_out = file.tensors[name].shape
            if name == EMBEDDING:
                n_in, n_out = n_out, n_in
            a = random.normal(0, 1, (rank, n_in)).astype(np.float32)
            b = random.normal(0, size / (n_in * rank) ** 0.5, (n_out, rank)).astype(np.float32)
            pairs[name] = (a, b)
    return pairs


def adapter(path: Path, base: Path, pairs: Pairs, *, alpha: float, dtype: GGMLType = GGMLType.F32) -> Path:
    """Write an adapter for the model in ``base``."""
    with GGUFFile(base) as file:
        architecture = file.metadata["general.architecture"]
    write_adapter(path, pairs, architecture=architecture, alpha=alpha, dtype=dtype)
    return path


def delta(pair: tuple[Floats, Floats], alpha: float) -> Array:
    """What the pair adds to the weight, ``(n_out, n_in)``; for embeddings ``(n_vocab, n_embd)``."""
    a, b = (matrix.astype(np.float64) for matrix in pair)
    return (alpha / a.shape[0] if alpha else 1.0) * (b @ a)


def merge(base: Path, path: Path, changes: Mapping[str, Array], *, n_layer: int) -> Path:
    """The first layers of a model with every matrix as F32, and ``changes`` added."""
    writer = GGUFWriter(path)
    with GGUFFile(base) as file:
        for key, value in file.metadata.items():
            shown = n_layer if key.endswith(".block_count") else value
            writer.add(key, shown, type=file.types[key].type, item=file.types[key].item)
        for info in file.tensors.values():
            prefix, _, rest = info.name.partition(".")
            if prefix == "blk" and int(rest.split(".")[0]) >= n_layer:
                continue
            raw = np.frombuffer(file.data(info.name), np.uint8)
            weight = dequantize(raw, DType(info.type), info.n_elements).reshape(info.numpy_shape).astype(np.float64)
            if info.name in changes:
                weight = weight + changes[info.name]
            writer.add_tensor(info.name, weight.astype(np.float32))
        writer.write()
    return path


def merged_weights(model: TinyModel, changes: Mapping[str, Array]) -> TinyModel:
    """The same for a tiny model's weights in memory."""
    weights = {name: weight + changes.get(name, 0.0) for name, weight in model.weights.items()}
    return TinyModel(model.path, model.config, model.n_vocab, weights)


class Lab:
    """A model with adapters, whose sequences are computed as batches say."""

    def __init__(self, engine: Engine, decoder: Decoder) -> None:
        self.engine, self.decoder = engine, decoder

    def run(self, batch: Batch) -> Floats:
        return self.decoder.run(batch).copy()

    def clear(self) -> None:
        for seq_id in range(8):
            self.engine.cache.remove(seq_id, 0)

    def logits(self, ids: Sequence[int], scales: Mapping[int, float] | None = None) -> Floats:
        """Of all tokens, in one batch."""
        self.clear()
        return self.run(together([(ids, scales or {})]))


def together(sequences: Sequence[tuple[Sequence[int], Mapping[int, float]]]) -> Batch:
    """One batch of sequences, each with its own scales; every token is an output."""
    lengths = [len(ids) for ids, _ in sequences]
    active = sorted({index for _, scales in sequences for index in scales})
    adapters = {
        index: np.concatenate([np.full(len(ids), scales.get(index, 0.0), np.float32) for ids, scales in sequences])
        for index in active
    }
    return Batch(
        np.concatenate([np.asarray(ids, np.int32) for ids, _ in sequences]),
        np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        np.arange(sum(lengths), dtype=np.int32),
        adapters,
    )


@contextmanager
def opened(path: Path, adapters: Sequence[Path], *, config: EngineConfig = EXACT) -> Iterator[Lab]:
    """The model and its adapters, ready to compute."""
    with Engine(path, config) as engine:
        device = engine.backends[0].device
        with Adapters(adapters, engine.file, device_of=lambda name: device) as loaded:
            decoder = Decoder(engine.model, engine.cache, engine.executor, adapters=loaded)
            try:
                decoder.reserve(config.n_batch)
                yield Lab(engine, decoder)
            finally:
                decoder.close()
