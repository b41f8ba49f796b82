"""How an engine is set up."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyggml.batch import MAX_SEQUENCES
from pyggml.errors import ParameterError
from pyggml.tensor import DType

__all__ = ["EngineConfig"]

CACHE_TYPES = (
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
ALL_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True)
class EngineConfig:
    """Options of an engine.

    One device for everything is ``device``. As soon as one of the options from ``devices`` to ``tensor_overrides`` is
    given, the model is placed layer by layer (:mod:`pyggml.engine.placement`).

    Attributes:
        n_ctx: positions the KV cache has room for per sequence; 0: what the model was trained with.
        n_parallel: sequences that the KV cache has room for, each with ``n_ctx`` positions.
        n_batch: tokens computed at once while a prompt is read.
        n_chunk: most tokens of prompts in a batch while another request is answering, so that it need not wait long.
        n_threads: CPU threads; None: one per physical core.
        device: name of the device to run on (``pyggml.tensor.devices()``), or ``gpu`` for the best one;
            ``BLAS`` for large products beside the CPU, where the installation has it.
        devices: names of the devices that share the layers, in this order (``gpu``; ``gpus`` for all of them;
            ``rpc://host:port`` for those of an RPC server, in a trusted network only). The CPU takes the rest.
        n_gpu_layers: layers on ``devices``, the last ones first; the output counts as one more. -1, or None with
            ``devices``: as many as fit, measured before loading.
        tensor_split: proportions of the layers on each of ``devices``; empty: by free memory.
        kv_offload: keys and values live on their layer's device; False: in the CPU's memory, where attention runs then.
        cpu_moe: experts of all layers stay on the CPU.
        n_cpu_moe: experts of this many layers stay on the CPU, the first ones.
        tensor_overrides: pairs of a regular expression and a device name: weights whose name it finds live there;
            the first that matches counts.
        memory_margin: bytes that stay free on each device when layers are placed automatically.
        flash_attn: fused attention; None: when the devices can do it for this model and these types.
        type_k: element type of cached keys.
        type_v: element type of cached values; quantized values need flash attention.
        use_mmap: use weights in place from the mapped file where the device can.
        adapters: files of LoRA adapters; requests choose among them by their place in this list.
        snapshot_dir: folder in which long prompts' keys and values outlive the engine; None: nowhere.
        snapshot_bytes: most bytes in that folder, of all models together; what was used longest ago goes first.
        snapshot_min_tokens: shorter prompts are read again instead.
        cache_dir: folder in which a vocabulary's merges are kept between runs; None: computed at each start.
        repack: rearrange weights for faster kernels where the CPU has them (takes a copy of those weights).
    """

    n_ctx: int = 4096
    n_parallel: int = 1
    n_batch: int = 512
    n_chunk: int = 128
    n_threads: int | None = None
    device: str = "CPU"
    devices: Sequence[str] = ()
    n_gpu_layers: int | None = None
    tensor_split: Sequence[float] = ()
    kv_offload: bool = True
    cpu_moe: bool = False
    n_cpu_moe: int = 0
    tensor_overrides: Sequence[tuple[str, str]] = ()
    memory_margin: int = 512 * 2**20
    flash_attn: bool | None = None
    type_k: DType = DType.F16
    type_v: DType = DType.F16
    use_mmap: bool = True
    repack: bool = True
    cache_dir: Path | None = None
    adapters: Sequence[Path] = ()
    snapshot_dir: Path | None = None
    snapshot_bytes: int = 4 * 2**30
    snapshot_min_tokens: int = 256

    def __post_init__(self) -> None:
        for name, low, meaning in (
            ("n_ctx", 0, "0 (the model's own) or more"),
            ("n_parallel", 1, "1 or more"),
            ("n_batch", 1, "1 or more"),
            ("n_chunk", 1, "1 or more"),
            ("snapshot_bytes", 1, "1 or more"),
            ("snapshot_min_tokens", 1, "1 or more"),
            ("n_cpu_moe", 0, "0 or more; cpu_moe keeps the experts of all layers on the CPU"),
            ("memory_margin", 0, "0 bytes or more"),
        ):
            if getattr(self, name) < low:
                raise ParameterError(f"{name} must be {meaning}, got {getattr(self, name)}")
        if self.n_parallel >= MAX_SEQUENCES:
            raise ParameterError(f"n_parallel must be below {MAX_SEQUENCES}, got {self.n_parallel}")
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in CACHE_TYPES:
                names = ", ".join(t.name.lower() for t in CACHE_TYPES)
                raise ParameterError(f"{name} must be one of {names}, got {getattr(self, name)!r}")
        self._check_placement()

    def _check_placement(self) -> None:
        if self.n_gpu_layers is not None and self.n_gpu_layers < -1:
            raise ParameterError(f"n_gpu_layers must be -1 (as many as fit) or more, got {self.n_gpu_layers}")
        if isinstance(self.devices, str):
            raise ParameterError(f"devices must be a sequence of names, got the string {self.devices!r}; use device")
        if self.devices and self.device != "CPU":
            raise ParameterError(f"give either device ({self.device!r}) or devices ({list(self.devices)}), not both")
        split = list(self.tensor_split)
        if split and (any(not math.isfinite(x) or x < 0 for x in split) or not sum(split)):
            raise ParameterError(f"tensor_split must be finite proportions of 0 or more, not all 0, got {split}")
        for pattern, _ in self.tensor_overrides:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ParameterError(
                    f"tensor_overrides: {pattern!r} is no regular expression ({error}); escape its special characters"
                ) from error

    @property
    def placed(self) -> bool:
        """Whether weights are placed layer by layer, instead of all of them on ``device``."""
        return bool(
            self.devices
            or self.tensor_split
            or self.tensor_overrides
            or self.n_gpu_layers is not None
            or not self.kv_offload
            or self.cpu_moe
            or self.n_cpu_moe
        )

    @property
    def overrides(self) -> list[tuple[str, str]]:
        """``tensor_overrides``, with the rules that ``cpu_moe`` and ``n_cpu_moe`` stand for behind them."""
        rules = list(self.tensor_overrides)
        if self.cpu_moe:
            rules.append((ALL_EXPERTS, "CPU"))
        return rules + [(rf"\bblk\.{layer}{ALL_EXPERTS}", "CPU") for layer in range(self.n_cpu_moe)]
