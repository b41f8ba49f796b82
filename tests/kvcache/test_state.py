"""Saving and loading: bytes survive wherever the cells lie, and foreign states are refused."""

import io

import numpy as np
import pytest

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.kvcache import BatchOnlyCache, CacheState, CausalCache, LayerShape, MixedCache
from pyggml.tensor import DType, find_device

SHAPES = [LayerShape(2, 2, 32, 64), LayerShape(5, 1, 64, 32)]


def make(*, layers: list[LayerShape] = SHAPES, window: int = 0, n_cells: int = 512, **options: object) -> CausalCache:
    device = find_device("CPU")
    cache = CausalCache(layers, [device] * len(layers), n_cells=n_cells, window=window, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(n_cells)
    for tensor in (*cache.keys.values(), *cache.values.values()):
        tensor.set_bytes(rng.integers(0, 256, tensor.n_bytes, np.uint8))
    return cache


def take(cache: CausalCache | MixedCache, seq_id: int, start: int, n: int) -> None:
    cache.start(Batch.of_sequence([0] * n, start=start, seq_id=seq_id))


def raw(cache: CausalCache, layer: int, seq_id: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of each position, found the slow way: (positions, bytes)."""
    cells = [int(c) for p in range(length) for c in np.flatnonzero(cache.cells.of(seq_id)) if cache.cells.pos[c] == p]
    keys, values = cache.keys[layer], cache.values[layer]
    k = keys.bytes().reshape(cache.n_cells, -1)[cells]
    if cache.flash_attn:
        return k, values.bytes().reshape(cache.n_cells, -1)[cells]
    width = values.dtype.type_size
    columns = values.bytes().reshape(-1, cache.n_cells, width)[:, cells]
    return k, columns.transpose(1, 0, 2).reshape(len(cells), -1)


@pytest.mark.parametrize(
    "options",
    [
        {"type_k": DType.Q8_0, "type_v": DType.Q4_0},
        {"type_k": DType.F16, "type_v": DType.F32},
        {"type_k": DType.F32, "type_v": DType.F16, "flash_attn": False},
        {"type_k": DType.Q5_1, "type_v": DType.BF16, "flash_attn": False},
        {"type_k": DType.F16, "type_v": DType.F32, "flash_attn": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("scattered", [False, True])
def test_bytes_survive(options: dict[str, object], scattered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyggml.kvcache.storage.GAP", 600)  # some cells are moved together, others apart
    cache = make(**options)
    if scattered:
        for i, n in enumerate((1, 9, 2, 1, 30, 1, 1, 100)):
            take(cache, 9, 1000 + 100 * i, n)
            take(cache, 0, 3 * i, 3)
        cache.remove(9, 1000, 1750)  # what is loaded goes into these gaps
    else:
        take(cache, 0, 0, 24)
    state = cache.save_sequence(0, 21)
    assert state.length == 21 and state.arrays["positions"].tolist() == list(range(21))
    assert state.n_bytes == sum(a.nbytes for a in state.arrays.values())
    before = {s.layer: raw(cache, s.layer, 0, 24) for s in SHAPES}
    cache.load_sequence(4, state)
    assert cache.sequence_length(4) == 21 and cache.can_resume(4, 21)
    for shape in SHAPES:
        for kept, was, loaded in zip(
            raw(cache, shape.layer, 0, 24), before[shape.layer], raw(cache, shape.layer, 4, 21), strict=True
        ):
            np.testing.assert_array_equal(kept, was)
            np.testing.assert_array_equal(loaded, was[:21])
    if scattered:
        assert (np.diff(cache.cells.by_position(4, 0, 99)) != 1).any()


def test_a_state_goes_through_a_file() -> None:
    cache, other = make(), make(n_cells=256)
    take(cache, 3, 0, 50)
    state = cache.save_sequence(3, 50)
    file = io.BytesIO()
    np.savez(file, **state.arrays)
    file.seek(0)
    with np.load(file) as arrays:
        other.load_sequence(0, CacheState(50, dict(arrays)))
    for mine, theirs in zip(raw(cache, 5, 3, 50), raw(other, 5, 0, 50), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_flash_attention_or_not_is_the_same_state() -> None:
    """Values are saved as rows also where they lie transposed."""
    one, two = make(flash_attn=True), make(flash_attn=False)
    take(one, 0, 0, 9)
    two.load_sequence(1, one.save_sequence(0, 9))
    for mine, theirs in zip(raw(one, 2, 0, 9), raw(two, 2, 1, 9), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_window_is_saved_as_far_as_it_is_needed() -> None:
    cache = make(window=8)
    take(cache, 0, 0, 40)
    assert cache.save_sequence(0, 40).arrays["positions"].tolist() == list(range(32, 40))
    assert cache.save_sequence(0, 4).arrays["positions"].tolist() == [0, 1, 2, 3]
    cache.remove(0, 0, 33)
    state = cache.save_sequence(0, 40)
    assert state.arrays["positions"].tolist() == list(range(33, 40))
    cache.load_sequence(1, state)
    assert cache.can_resume(1, 40)
    with pytest.raises(ParameterError, match="cannot be saved at length 39"):
        cache.save_sequence(0, 39)


def test_pending_rotations_are_saved() -> None:
    cache = make()
    take(cache, 0, 0, 20)
    cache.discard(0, 5, 8)
    state = cache.save_sequence(0, 17)
    assert state.arrays["delta"].tolist() == [0] * 5 + [-3] * 12
    other = make()
    other.load_sequence(0, state)
    assert other.pending_shifts and other.cells.delta.sum() == -36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": SHAPES[:1]}, "other layers"),
        ({"layers": [SHAPES[0], LayerShape(6, 1, 64, 32)]}, "other layers"),
        ({"layers": [SHAPES[0], LayerShape(5, 1, 32, 64)]}, "other layers"),
        ({"type_v": DType.BF16}, "cache types"),
        ({"window": 30}, None),
    ],
    ids=str,
)
def test_states_of_other_caches(options: dict[str, object], message: str | None) -> None:
    cache, other = make(), make(**options)  # type: ignore[arg-type]
    take(cache, 0, 0, 20)
    state = cache.save_sequence(0, 20)
    if message is None:
        other.load_sequence(0, state)
        return
    with pytest.raises(ParameterError, match=message):
        other.load_sequence(0, state)
    assert other.cells.n_used == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", None),
        ("positions", np.arange(20, dtype=np.int64)),
        ("positions", np.arange(1, 21, dtype=np.int32)),
        ("positions", np.arange(19, -1, -1, dtype=np.int32)),
        ("positions", np.zeros(20, np.int32)),
        ("delta", np.zeros(19, np.int32)),
        ("k.2", np.zeros((20, 127), np.uint8)),
        ("k.2", np.zeros((19, 128), np.uint8)),
        ("k.2", np.zeros((20, 128), np.int8)),
        ("v.5", np.zeros((21, 64), np.uint8)),
        ("v.5", np.zeros(20 * 64, np.uint8)),
        ("v.5", None),
        ("layers", np.zeros((2, 6), np.int32)),
        ("layers", np.zeros(3, np.int32)),
    ],
)
def test_broken_states(name: str, value: np.ndarray | None) -> None:
    cache = make()
    take(cache, 0, 0, 20)
    arrays = dict(cache.save_sequence(0, 20).arrays)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    before = cache.cells.save()
    with pytest.raises(ParameterError, match="saved state"):
        cache.load_sequence(0, CacheState(20, arrays))
    assert (cache.cells.seqs == before.seqs).all()


@pytest.mark.parametrize("length", [0, 19, 21, 1 << 40])
def test_a_wrong_length(length: int) -> None:
    cache = make()
    take(cache, 0, 0, 20)
    with pytest.raises(ParameterError, match="saved state"):
        cache.load_sequence(0, CacheState(length, cache.save_sequence(0, 20).arrays))


def test_no_room_changes_nothing() -> None:
    full, window = make(n_cells=256), make(n_cells=256, window=100)
    mixed = MixedCache([full, window], {2: 0, 5: 1})
    take(mixed, 0, 0, 100)
    state = mixed.save_sequence(0, 100)
    mixed.remove(0, 10)
    take(window, 1, 0, 160)
    before = [cache.cells.save() for cache in (full, window)]
    take(window, 2, 0, 90)
    window.cancel()
    mixed.load_sequence(0, state)  # the window gives up what sequence 1 does not need
    assert mixed.can_resume(0, 100) and mixed.sequence_length(0) == 100 and window.can_resume(1, 160)
    for cache, saved in zip((full, window), before, strict=True):
        cache.cells.restore(saved)
    window.window = 1000
    with pytest.raises(ContextFullError):
        mixed.load_sequence(0, state)
    for cache, saved in zip((full, window), before, strict=True):
        assert (cache.cells.pos == saved.pos).all() and (cache.cells.seqs == saved.seqs).all()
    with pytest.raises(ParameterError, match="another kind of cache"):
        full.load_sequence(0, state)


def test_nothing_to_save() -> None:
    cache = make()
    with pytest.raises(ParameterError, match="cannot be saved at length 3"):
        cache.save_sequence(0, 3)
    take(cache, 0, 0, 5)
    cache.remove(0, 1, 2)
    for length in (0, 5):
        with pytest.raises(ParameterError, match=f"cannot be saved at length {length}"):
            cache.save_sequence(0, length)
    with pytest.raises(ParameterError, match="nothing to save"):
        BatchOnlyCache().save_sequence(0, 1)
