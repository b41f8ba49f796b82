"""A file that remembers the merges synthesized for a vocabulary.

Only the merge table is kept: it is what costs time for a vocabulary of 262,144 tokens, whereas the serialised
form of the whole tokenizer takes longer to parse than to build.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyggml.tokenizer.merges import merge_pairs
from pyggml.tokenizer.vocab import Vocabulary

__all__ = ["load_or_merge"]

_VERSION = "1"
_DIGEST_BYTES = 32


def load_or_merge(vocab: Vocabulary, *, ranks: bool, cache_dir: Path | None) -> NDArray[np.int32]:
    """The (n, 2) merge pairs of ``vocab``: read from ``cache_dir``, or computed and stored there.

    A file that is absent, damaged or unreadable is computed anew; a folder that cannot be written is left
    alone.
    """
    if cache_dir is None:
        return merge_pairs(vocab, ranks=ranks)
    path = cache_dir / f"merges-{_digest(vocab, ranks=ranks)}.bin"
    pairs = _load(path, n_vocab=len(vocab.tokens))
    if pairs is None:
        pairs = merge_pairs(vocab, ranks=ranks)
        # The cache saves time only, so failing to fill it is no failure.
        with contextlib.suppress(OSError):
            _store(path, pairs)
    return pairs


def _digest(vocab: Vocabulary, *, ranks: bool) -> str:
    """Names everything that the merges depend on."""
    digest = hashlib.sha256(f"{_VERSION} {ranks} {len(vocab.tokens)}\n".encode())
    digest.update(vocab.types.tobytes())
    digest.update(vocab.scores.tobytes())
    digest.update(np.fromiter(map(len, vocab.tokens), dtype=np.int64, count=len(vocab.tokens)).tobytes())
    digest.update("".join(vocab.tokens).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _load(path: Path, *, n_vocab: int) -> NDArray[np.int32] | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if len(payload) % 8 or hashlib.sha256(payload).digest() != digest:
        return None
    pairs = np.frombuffer(payload, dtype="<i4").astype(np.int32).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= n_vocab):
        return None
    return pairs


def _store(path: Path, pairs: NDArray[np.int32]) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = pairs.astype("<i4").tobytes()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
