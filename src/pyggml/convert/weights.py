"""Tensors from a checkpoint into a GGUF file: names, shapes, types; one at a time in memory."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyggml.convert.checkpoint import Checkpoint
from pyggml.errors import MissingTensorError, ModelError
from pyggml.gguf import GGMLType, GGUFWriter

__all__ = ["Change", "Target", "add_weights", "rename"]

log = logging.getLogger("pyggml.convert")

Change = Callable[[np.ndarray], np.ndarray]
"""What is done to a tensor on its way; it keeps the shape. A matrix may come as the bits of BF16: move, don't count."""
_STORED: Final = {"F16": GGMLType.F16, "BF16": GGMLType.BF16, "F32": GGMLType.F16, "F64": GGMLType.F16}
_NUMPY: Final[Mapping[GGMLType, np.dtype[Any]]] = {
    GGMLType.F32: np.dtype(np.float32),
    GGMLType.F16: np.dtype(np.float16),
}
_FILE_TYPES: Final = {GGMLType.F32: 0, GGMLType.F16: 1, GGMLType.BF16: 32}
_MAX_F16: Final = 65504.0


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor of the GGUF file.

    Attributes:
        shape: In numpy order.
        change: What is done to it.
        required: Whether the model cannot do without.
    """

    shape: tuple[int, ...]
    change: Change | None = None
    required: bool = True


def rename(names: Iterable[str], patterns: Iterable[tuple[str, str]], unused: str) -> dict[str, str]:
    """Names in GGUF to names in the checkpoint.

    Args:
        names: Those of the checkpoint.
        patterns: Regular expressions for whole names, and what they become.
        unused: An expression for names that are left out.

    Raises:
        ModelError: a name is not known, or two become one.
    """
    table, left_out = [(re.compile(pattern), target) for pattern, target in patterns], re.compile(unused)
    found: dict[str, str] = {}
    for name in names:
        if left_out.fullmatch(name):
            continue
        matches = (match.expand(target) for pattern, target in table if (match := pattern.fullmatch(name)))
        target = next(matches, None)
        if target is None or target in found:
            raise ModelError(f"it is not known what the tensor {name[:200]!r} is for")
        found[target] = name
    return found


def add_weights(
    checkpoint: Checkpoint, writer: GGUFWriter, *, found: Mapping[str, str], targets: Mapping[str, Target]
) -> int:
    """Add the tensors of a model, in the order of ``targets``.

    Matrices stay F16 or BF16 and become F16 from F32; vectors become F32. A matrix with numbers beyond F16 stays F32.

    Args:
        checkpoint: The model folder.
        writer: Where to.
        found: Of :func:`rename`.
        targets: All tensors that the model can have.

    Returns:
        ``general.file_type``: the type of most numbers.

    Raises:
        MissingTensorError: one is absent.
        ModelError: one has another shape, holds no floats, or is not part of the model.
    """
    if spare := found.keys() - targets.keys():
        raise ModelError(f"{checkpoint.folder}: the model has no room for {', '.join(sorted(spare)[:5])}")
    counts: dict[GGMLType, int] = {}
    for name, target in targets.items():
        source = found.get(name)
        if source is None:
            if target.required:
                raise MissingTensorError(f"{checkpoint.folder}: the tensor that becomes {name!r} is missing")
            continue
        kind = _add(checkpoint, writer, source, name, target)
        if len(target.shape) > 1:
            counts[kind] = counts.get(kind, 0) + int(np.prod(target.shape))
    return _FILE_TYPES[max(counts, key=lambda kind: counts[kind], default=GGMLType.F32)]


def _add(checkpoint: Checkpoint, writer: GGUFWriter, source: str, name: str, target: Target) -> GGMLType:
    info = checkpoint.tensors[source]
    if info.shape != target.shape:
        raise ModelError(
            f"{checkpoint.folder}: tensor {source!r} has the shape {list(info.shape)}, "
            f"config.json asks for {list(target.shape)}"
        )
    if info.dtype not in _STORED:
        raise ModelError(f"{checkpoint.folder}: tensor {source!r} holds {info.dtype}, floats are needed")
    kind = _STORED[info.dtype] if len(info.shape) > 1 else GGMLType.F32
    if kind is GGMLType.F16 and info.dtype != "F16" and not _fits(checkpoint.numpy(source)):
        log.warning("%s: tensor %r holds numbers beyond F16 and stays F32", checkpoint.folder, source)
        kind = GGMLType.F32

    def data() -> np.ndarray:
        array = checkpoint.raw(source) if kind is GGMLType.BF16 else checkpoint.numpy(source)
        if target.change is not None and kind is GGMLType.F32:
            array = target.change(array.astype(np.float32))
        elif target.change is not None:
            array = target.change(array)
        return array if kind is GGMLType.BF16 else array.astype(_NUMPY[kind], copy=False)

    writer.add_tensor(name, data, type=kind, shape=info.shape[::-1])
    return kind


def _fits(array: np.ndarray) -> bool:
    return array.size == 0 or bool(np.abs(array[np.isfinite(array)]).max(initial=0) <= _MAX_F16)
