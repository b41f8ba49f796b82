"""From settings and a request's options to what the runner is told."""

from typing import Any, Final

from pyggml_server.config import Config
from pyggml_server.scheduler.spec import ModelSpec

__all__ = ["load_fields"]

_AUTOMATIC_PARALLEL: Final = 4
_BATCH: Final = 512


def load_fields(spec: ModelSpec, config: Config) -> dict[str, Any]:
    """Fields of :class:`pyggml_server.protocol.Load` and :class:`~pyggml_server.protocol.Measure`."""
    options = spec.options
    work = config.models / ".pyggml"
    engine: dict[str, Any] = {
        "n_ctx": options.num_ctx or config.context_length,
        "n_parallel": 1 if spec.embedding else config.num_parallel or _AUTOMATIC_PARALLEL,
        "n_batch": options.num_batch or _BATCH,
        "n_threads": options.num_thread or None,
        "use_mmap": options.use_mmap is not False,
        # true is as auto: where a device cannot do it, the model is served without, as Ollama does
        "flash_attn": False if config.flash_attention is False else None,
        "type_k": config.cache_type_k,
        "type_v": config.cache_type_v,
        "memory_margin": config.memory_margin + config.gpu_overhead,
        "adapters": [str(path) for path in spec.adapters],
        "cache_dir": str(work / "tokenizers"),
    }
    if config.prompt_cache:
        engine |= {"snapshot_dir": str(work / "prompts"), "snapshot_bytes": config.prompt_cache}
    gpu = options.num_gpu
    if gpu is not None and gpu >= 0:
        engine["n_gpu_layers"] = gpu
    devices = [name for name in config.devices if name.upper() != "CPU"]
    if devices:
        engine["devices"] = devices
        engine.setdefault("n_gpu_layers", -1)
    flexible = [] if config.num_parallel or spec.embedding else ["n_parallel"]
    if gpu is None or gpu < 0:
        flexible.append("n_gpu_layers")
    return {
        "path": str(spec.path),
        "config": engine,
        "flexible": flexible,
        "automatic": not config.devices,
        "spread": config.sched_spread,
        "main_gpu": options.main_gpu,
        "draft": str(options.draft) if options.draft is not None else None,
    }
