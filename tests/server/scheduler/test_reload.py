"""Which differences need another load."""

from pathlib import Path

import pytest

from pyggml_server.protocol import Loaded
from pyggml_server.scheduler import LoadOptions, ModelSpec
from pyggml_server.scheduler.spec import needs_reload

LOADED = Loaded(1, 4096, 8192, 4, 1, 1, True, 1, 0, 1, n_batch=512)


@pytest.mark.parametrize(
    ("wanted", "had", "reload"),
    [
        (LoadOptions(), LoadOptions(num_ctx=4096, num_gpu=3, num_thread=2, use_mmap=False, main_gpu=1), False),
        (LoadOptions(num_ctx=4096), LoadOptions(), False),
        (LoadOptions(num_ctx=512), LoadOptions(), False),
        (LoadOptions(num_ctx=4097), LoadOptions(), True),
        (LoadOptions(num_ctx=10**6), LoadOptions(), True),
        (LoadOptions(num_batch=512), LoadOptions(), False),
        (LoadOptions(num_batch=256), LoadOptions(), True),
        (LoadOptions(num_gpu=-1), LoadOptions(num_gpu=7), False),
        (LoadOptions(num_gpu=7), LoadOptions(num_gpu=7), False),
        (LoadOptions(num_gpu=0), LoadOptions(), True),
        (LoadOptions(num_thread=0), LoadOptions(num_thread=3), False),
        (LoadOptions(num_thread=2), LoadOptions(num_thread=3), True),
        (LoadOptions(use_mmap=True), LoadOptions(), False),
        (LoadOptions(use_mmap=False), LoadOptions(), True),
        (LoadOptions(main_gpu=1), LoadOptions(main_gpu=0), True),
        (LoadOptions(draft=Path("a")), LoadOptions(), True),
        (LoadOptions(draft=Path("a")), LoadOptions(draft=Path("b")), True),
        (LoadOptions(draft=Path("a")), LoadOptions(draft=Path("a")), False),
        (LoadOptions(), LoadOptions(draft=Path("a")), False),
    ],
)
def test_needs_reload(wanted: LoadOptions, had: LoadOptions, reload: bool) -> None:
    def spec(options: LoadOptions) -> ModelSpec:
        return ModelSpec("m", "d", Path("m"), options=options)

    assert needs_reload(spec(wanted), spec(had), LOADED) == reload


def test_a_context_beyond_the_trained_one_is_as_large_as_can_be() -> None:
    spec = ModelSpec("m", "d", Path("m"), options=LoadOptions(num_ctx=10**6))
    assert not needs_reload(spec, spec, Loaded(1, 8192, 8192, 4, 1, 1, True, 1, 0, 1))


@pytest.mark.parametrize(
    ("had", "device", "reload"),
    [(None, "cpu", False), (99, "cpu", False), (0, "cpu", True), (None, "gpu", True)],
)
def test_where_there_is_no_gpu_it_does_not_matter_which(had: int | None, device: str, reload: bool) -> None:
    wanted, had_spec = (
        ModelSpec("m", "d", Path("m"), options=options)
        for options in (LoadOptions(num_gpu=7, main_gpu=0), LoadOptions(num_gpu=had))
    )
    loaded = Loaded(1, 4096, 8192, 4, 1, 1, True, 1, 0, 1, n_batch=512, devices=[{"name": "D0", "type": device}])
    assert needs_reload(wanted, had_spec, loaded) == reload
