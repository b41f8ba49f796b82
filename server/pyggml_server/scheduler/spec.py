"""What a request wants loaded, and what is."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pyggml_server.config import KeepAlive
from pyggml_server.protocol import Loaded

__all__ = ["LoadOptions", "LoadProgress", "LoadedModel", "ModelKey", "ModelSpec"]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options that decide how a model is loaded; None: automatic, and whatever is loaded will do.

    Attributes:
        num_ctx: Tokens of context per request.
        num_batch: Tokens computed at once while a prompt is read.
        num_gpu: Layers on GPUs; negative: as many as fit, 0: none.
        main_gpu: Index of the GPU for a model that fits on one.
        use_mmap: Use weights in place from the file.
        num_thread: CPU threads; 0: one per physical core.
        draft: File of a smaller model that proposes tokens.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None
    draft: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What makes two requests share a runner: the same files."""

    path: Path
    adapters: tuple[Path, ...]
    projectors: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as a request wants it.

    Attributes:
        name: As people write it, for messages and ``/api/ps``.
        digest: Its id in the store.
        path: The GGUF file.
        adapters: LoRA files.
        projectors: Files of vision or audio encoders.
        options: How to load it.
        embedding: It only embeds, so one sequence is enough.
        details: For ``/api/ps``; not looked at.
    """

    name: str
    digest: str
    path: Path
    adapters: tuple[Path, ...] = ()
    projectors: tuple[Path, ...] = ()
    options: LoadOptions = LoadOptions()
    embedding: bool = False
    details: Any = None

    @property
    def key(self) -> ModelKey:
        """Models with the same key share a runner, whatever their names."""
        return ModelKey(self.path, self.adapters, self.projectors)


def needs_reload(wanted: ModelSpec, had: ModelSpec, loaded: Loaded) -> bool:
    """Whether a request cannot use the model as it is loaded.

    An option that the request does not name asks for nothing. A context smaller than the loaded one is part of it; one
    beyond what the model was trained for is as large as can be. (Ollama reloads for every difference, so that two
    clients with different contexts make it load again and again.)
    """
    new, old = wanted.options, had.options
    if new.num_ctx is not None and min(new.num_ctx, loaded.n_ctx_train or new.num_ctx) > loaded.n_ctx:
        return True
    if new.num_batch is not None and new.num_batch != loaded.n_batch:
        return True
    pairs: list[tuple[object, object]] = [(new.use_mmap, old.use_mmap is not False), (new.draft, old.draft)]
    if not _without_gpu(had, loaded):
        pairs.append((new.main_gpu, old.main_gpu))
        if new.num_gpu is not None and new.num_gpu >= 0:
            pairs.append((new.num_gpu, old.num_gpu))
    if new.num_thread:
        pairs.append((new.num_thread, old.num_thread))
    return any(wish is not None and wish != have for wish, have in pairs)


def _without_gpu(had: ModelSpec, loaded: Loaded) -> bool:
    """Whether there is no GPU: the model could have gone to one, and none was found."""
    return had.options.num_gpu != 0 and bool(loaded.devices) and all(each["type"] == "cpu" for each in loaded.devices)


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a request is from having its model.

    Attributes:
        status: ``queued``, ``waiting for memory``, ``starting``, ``loading`` or ``ready``.
        fraction: Of the weights, 0 to 1.
        position: Requests before this one, where it waits.
    """

    status: str
    fraction: float = 0.0
    position: int = 0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One line of ``/api/ps``.

    Attributes:
        name: As it was asked for last.
        digest: Its id in the store.
        state: ``loading``, ``ready`` or ``stopping``.
        size: Bytes that it takes, on all devices; 0 while that is not known.
        size_vram: Bytes of them on GPUs.
        n_ctx: Tokens of context per request.
        n_parallel: Requests that it answers at once.
        n_active: Requests that use it.
        queued: How many of them wait for a place.
        waiting: Requests that wait for it to load.
        keep_alive: How long it stays after the last request.
        expires_at: When it goes if nobody asks for it; None: never.
        details: Of :class:`ModelSpec`.
        pid: Its process; None while there is none.
        flash_attn: Whether its attention is fused; None while that is not known.
        notes: What was lowered so that it fits.
    """

    name: str
    digest: str
    state: str
    size: int
    size_vram: int
    n_ctx: int
    n_parallel: int
    n_active: int
    queued: int
    waiting: int
    keep_alive: KeepAlive
    expires_at: datetime | None
    details: Any = None
    pid: int | None = None
    flash_attn: bool | None = None
    notes: tuple[str, ...] = ()
