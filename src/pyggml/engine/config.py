"""How an engine is set up."""

from dataclasses import dataclass
from pathlib import Path

from pyggml.errors import ParameterError
from pyggml.tensor import DType

__all__ = ["EngineConfig"]


@dataclass(frozen=True)
class EngineConfig:
    """Options of an engine.

    Attributes:
        n_ctx: positions the KV cache has room for; 0: what the model was trained with.
        n_batch: tokens computed at once while a prompt is read.
        n_threads: CPU threads; None: one per physical core.
        device: name of the device to run on (``pyggml.tensor.devices()``), or ``gpu`` for the best one.
        flash_attn: fused attention; None: when the device can do it for this model and these types.
        type_k: element type of cached keys.
        type_v: element type of cached values; quantized values need flash attention.
        use_mmap: use weights in place from the mapped file where the device can.
        cache_dir: folder in which a vocabulary's merges are kept between runs; None: computed at each start.
        repack: rearrange weights for faster kernels where the CPU has them (takes a copy of those weights).
    """

    n_ctx: int = 4096
    n_batch: int = 512
    n_threads: int | None = None
    device: str = "CPU"
    flash_attn: bool | None = None
    type_k: DType = DType.F16
    type_v: DType = DType.F16
    use_mmap: bool = True
    repack: bool = True
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < 0:
            raise ParameterError(f"n_ctx must be 0 (the model's own) or more, got {self.n_ctx}")
        if self.n_batch < 1:
            raise ParameterError(f"n_batch must be 1 or more, got {self.n_batch}")
        allowed = (
            DType.F32,
            DType.F16,
            DType.BF16,
            DType.Q8_0,
            DType.Q5_1,
            DType.Q5_0,
            DType.Q4_1,
            DType.Q4_0,
            DType.IQ4_NL,
        )
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in allowed:
                names = ", ".join(t.name.lower() for t in allowed)
                raise ParameterError(f"{name} must be one of {names}, got {getattr(self, name)!r}")
