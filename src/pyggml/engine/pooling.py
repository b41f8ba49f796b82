"""From token states to one vector per text."""

import numpy as np
import numpy.typing as npt

from pyggml.errors import ComputeError, ParameterError
from pyggml.models import Pooling

__all__ = ["pool", "wanted_tokens"]


def wanted_tokens(pooling: int, *, begin: int, end: int, length: int) -> range:
    """Of tokens ``begin`` to ``end`` of a text of ``length``, those whose states are needed."""
    if pooling == Pooling.CLS:
        return range(begin, min(end, 1))
    if pooling == Pooling.LAST:
        return range(max(begin, length - 1), end)
    return range(begin, end)


def pool(
    states: npt.NDArray[np.float32], pooling: int, *, normalize: bool, dimensions: int | None = None
) -> npt.NDArray[np.float32]:
    """Pool ``(n_tokens, n_embd)`` states of one text to one vector.

    Args:
        states: of its tokens, or at least of those that :func:`wanted_tokens` names.
        pooling: ``Pooling.MEAN``, ``CLS`` or ``LAST``.
        normalize: scale to length 1, after cutting.
        dimensions: keep so many numbers (Kusupati et al. 2022, for models trained for it); None: all.

    Returns:
        ``(dimensions)`` float32.

    Raises:
        ComputeError: the states hold NaN or infinity.
        ParameterError: ``dimensions`` is not 1 to ``n_embd``.
    """
    n_embd = states.shape[1]
    if dimensions is not None and not 1 <= dimensions <= n_embd:
        raise ParameterError(f"dimensions must be 1 to {n_embd}, the size of this model's vectors; got {dimensions}")
    states = states[:, :dimensions]
    if pooling == Pooling.MEAN:
        vector: npt.NDArray[np.float64] = states.mean(axis=0, dtype=np.float64)
    elif pooling == Pooling.CLS:
        vector = states[0].astype(np.float64)
    else:
        vector = states[-1].astype(np.float64)
    if not np.isfinite(vector).all():
        raise ComputeError(
            "the embedding is not finite: the model file is damaged, or a kernel of this device is wrong"
        )
    if normalize:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return vector.astype(np.float32)
