"""From token states to one vector per text."""

import numpy as np
import numpy.typing as npt

from pyggml.errors import ComputeError
from pyggml.models import Pooling

__all__ = ["pool"]


def pool(states: npt.NDArray[np.float32], pooling: int, *, normalize: bool) -> npt.NDArray[np.float32]:
    """Pool ``(n_tokens, n_embd)`` states of one text to ``(n_embd)``.

    Raises:
        ComputeError: the states hold NaN or infinity.
    """
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
