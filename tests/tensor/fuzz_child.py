"""Runs in a process of its own: reads ``operation seed`` lines, tries that call, answers with what came of it.

``python -m fuzz_child get_rows 17`` repeats one try and prints the call.
"""

import math
import random
import sys
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
from cases import CASES, Operand

from pyggml.errors import PyggmlError
from pyggml.tensor import DType, Session, Tensor, ops
from pyggml.tensor.ops import RopeMode, RopeParams

DIMS = (0, 1, 2, 3, 4, 5, 8, 16, 32, 64, 256)
INTS = (-(1 << 40), -(1 << 31), -2, -1, 0, 1, 2, 3, 5, 7, 64, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40)
FLOATS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-30, 0.5, 1.0, 3.0, 1e30, 1e300)


def change_shape(rng: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    dims = list(shape)
    what = rng.randrange(5)
    if what == 0:
        dims[rng.randrange(len(dims))] = rng.choice(DIMS)
    elif what == 1:
        k = rng.randrange(len(dims))
        dims[k] = max(0, dims[k] + rng.choice((-1, 1)))
    elif what == 2 and len(dims) < 4:
        dims.append(rng.choice(DIMS))
    elif what == 3:
        rng.shuffle(dims)
    else:
        dims = [d * rng.choice((1, 1, 2)) for d in dims]
    return tuple(dims)


def change_operands(rng: random.Random, operands: list[Operand]) -> list[Operand]:
    changed = list(operands)
    if not changed:
        return changed
    k = rng.randrange(len(changed))
    shape, dtype = changed[k]
    what = rng.randrange(4)
    if what == 0:
        changed[k] = (change_shape(rng, shape), dtype)
    elif what == 1:
        changed[k] = (shape, rng.choice(list(DType)))
    elif what == 2:  # the same change to all
        seed = rng.random()
        changed = [(change_shape(random.Random(seed), s), d) for s, d in changed]
    else:
        kind = rng.choice((DType.F32, DType.F16, DType.BF16, DType.I32, DType.Q8_0))
        changed = [(s, kind) for s, _ in changed]
    return changed


def change_value(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, DType):
        return rng.choice(list(DType))
    if isinstance(value, IntEnum):
        return rng.choice([*type(value), 77, -1])
    if isinstance(value, RopeParams):
        try:
            return replace(
                value,
                n_dims=rng.choice((2, 4, 6, 8, 16)),
                mode=rng.choice(list(RopeMode)),
                n_ctx_orig=rng.choice((0, 9)),
            )
        except PyggmlError:
            return value
    if isinstance(value, int):
        return rng.choice(INTS)
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if isinstance(value, tuple):
        items = list(value)
        if items and rng.random() < 0.8:
            items[rng.randrange(len(items))] = rng.choice(INTS)
        else:
            items.append(rng.choice((0, 1, 4, 64)))
        return tuple(items)
    return value


def make(s: Session, rng: random.Random, shape: tuple[int, ...], dtype: DType, *, views: bool) -> Tensor:
    tensor = s.empty(dtype, *shape)
    n = tensor.n_elements
    source = np.random.default_rng(rng.randrange(1 << 30))
    if dtype in (DType.I8, DType.I16, DType.I32, DType.I64):
        high = 2 if rng.random() < 0.85 else 40
        tensor.set(source.integers(0 if high == 2 else -3, high, n))
    elif dtype in (DType.F32, DType.F16, DType.F64):
        tensor.set(source.standard_normal(n))
    else:
        tensor.set_bytes(source.integers(0, 60, tensor.n_bytes, np.uint8))
    what = rng.random() if views else 1.0
    try:
        if what < 0.15:
            return ops.transpose(tensor)
        if what < 0.3:
            axes = [0, 1, 2, 3]
            rng.shuffle(axes)
            return ops.permute(tensor, *axes)
        if what < 0.4:
            return tensor[..., 1:]
        if what < 0.5 and len(tensor) > 1:
            return tensor[1:]
    except PyggmlError:
        pass
    return tensor


def attempt(name: str, seed: int, *, show: bool = False) -> str:
    rng = random.Random(f"{name} {seed}")
    operands, options = CASES[name]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        operands = change_operands(rng, operands)
    options = dict(options)
    for _ in range(rng.choice((0, 0, 1, 2)) if options else 0):
        key = rng.choice(list(options))
        options[key] = change_value(rng, options[key])
    if show:
        print(name, operands, options, flush=True)
    extra = options.pop("*", ())
    with Session("CPU", n_threads=rng.choice((1, 1, 2))) as s:
        try:
            views = rng.random() < 0.4
            tensors = [make(s, rng, shape, dtype, views=views) for shape, dtype in operands]
            if show:
                print(tensors, flush=True)
            result = getattr(ops, name)(*tensors, *extra, **options)
            if result.n_bytes > 1 << 27:
                return "large"
            s.compute(result)
        except PyggmlError as error:
            return type(error).__name__
        return "computed"


def main() -> None:
    if len(sys.argv) == 3:
        print(attempt(sys.argv[1], int(sys.argv[2]), show=True))
        return
    for line in sys.stdin:
        name, seed = line.split()
        try:
            answer = attempt(name, int(seed))
        except Exception as error:
            answer = f"LEAK {type(error).__name__}: {error}".replace("\n", " ")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
