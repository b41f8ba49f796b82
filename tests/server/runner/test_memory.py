"""Models that do not fit into the system's memory are refused before they take it."""

from dataclasses import replace
from pathlib import Path

import pytest

from pyggml.engine import EngineConfig, fit
from pyggml.errors import OutOfMemoryError
from pyggml.tensor import DType
from pyggml_server.runner.memory import check_memory, surely_fits

pytestmark = pytest.mark.model
SMALL = EngineConfig(n_ctx=512, n_threads=1)


def left_with(path: Path, free: int, *, meminfo: str, folder: Path) -> None:
    """Check with so much free memory."""
    found = fit(path, SMALL)
    limited = replace(found, devices=tuple(replace(device, free=free) for device in found.devices))
    (folder / "meminfo").write_text(meminfo)
    check_memory(str(path), SMALL, limited, meminfo=folder / "meminfo")


def test_what_is_free_counts_and_swap_where_it_can_be_used(smollm2_path: Path, tmp_path: Path) -> None:
    needed = fit(smollm2_path, SMALL).devices[0].need.total
    text = "MemAvailable: {} kB\nSwapFree: 1048576 kB\n".format
    left_with(smollm2_path, needed, meminfo="", folder=tmp_path)
    with pytest.raises(OutOfMemoryError, match=r"requires more system memory \(\d+ MiB: .*\) than is available"):
        left_with(smollm2_path, needed - 1, meminfo="", folder=tmp_path)
    left_with(smollm2_path, needed // 2, meminfo=text(needed // 2 // 1024), folder=tmp_path)
    with pytest.raises(OutOfMemoryError):  # a container's limit: there is more outside
        left_with(smollm2_path, needed // 2, meminfo=text(needed // 1024), folder=tmp_path)


@pytest.mark.parametrize(
    "config",
    [SMALL, EngineConfig(n_ctx=8192, n_parallel=8, type_k=DType.F32, type_v=DType.F32, n_threads=1),
     EngineConfig(n_ctx=4096, flash_attn=False, n_threads=1)],
)  # fmt: skip
@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path", "minilm_path"])
def test_the_coarse_bound_is_one(model: str, config: EngineConfig, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(model)
    needed = sum(device.need.total for device in fit(path, config).devices)
    assert not surely_fits(str(path), config, free=needed)
    assert surely_fits(str(path), config, free=1000 * 2**30)
