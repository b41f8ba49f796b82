"""The draft model beside the engine: loaded, measured, asked."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyggml.engine import DraftModel, Engine, EngineConfig, fit
from pyggml.errors import ModelError, PyggmlError
from pyggml.gguf import GGUFFile, ModelMetadata

__all__ = ["Drafts", "draft_bytes"]

log = logging.getLogger("pyggml.runner")


class Drafts:
    """What a smaller model proposes; the answer stays the larger one's.

    An error of the small model costs its drafts from then on, and nothing else.

    Args:
        path: The draft model's file.
        engine: The model that verifies, open.

    Raises:
        ModelError: the two do not go together; the message names both.
        as for :class:`pyggml.engine.Engine`.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._failed = False
        with ExitStack() as stack, _naming_both(path, engine.file.path):
            self.engine: Final = Engine(path, draft_config(path, engine.config, n_ctx=engine.n_ctx))
            """The smaller model's."""
            stack.callback(self.engine.close)
            self._model = DraftModel(self.engine, engine.tokenizer)
            stack.pop_all()

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        """What may follow: at most ``n_max`` tokens."""
        if self._failed:
            return []
        try:
            return self._model.draft(tokens, n_max=n_max)
        except PyggmlError as error:
            self._failed = True
            log.warning("the draft model failed, answers go on without it: %s", error)
            return []

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        """How the last draft fared."""
        self._model.accepted(n_drafted, n_accepted)

    def close(self) -> None:
        """Give the memory back."""
        self.engine.close()


def draft_config(path: Path, config: EngineConfig, *, n_ctx: int) -> EngineConfig:
    """Options of a draft model: on the first of the model's devices, with as many sequences.

    Args:
        path: The draft model's file.
        config: Options of the model, settled.
        n_ctx: Positions that a sequence of the model has; drafts end where the draft model's own training ends.

    Raises:
        GGUFError: this is no model.
    """
    with GGUFFile(path) as file:
        trained = ModelMetadata(file).get_int("context_length", default=0)
    offloaded = bool(config.devices) and config.n_gpu_layers != 0
    return replace(
        config,
        n_ctx=min(n_ctx, trained) if trained else n_ctx,
        devices=tuple(config.devices[:1]) if offloaded else (),
        n_gpu_layers=-1 if offloaded else None,
        tensor_split=(),
        tensor_overrides=(),
        cpu_moe=False,
        n_cpu_moe=0,
        adapters=(),
        snapshot_dir=None,
    )


def draft_bytes(path: Path, config: EngineConfig, *, model: Path) -> int:
    """Bytes that a draft model takes, wherever it lies.

    Args:
        path: Its file.
        config: Options of the model that it drafts for.
        model: That model's file.

    Raises:
        GGUFError, ModelError: it cannot be loaded.
    """
    alone = draft_config(path, replace(config, devices=(), n_gpu_layers=None), n_ctx=config.n_ctx)
    with _naming_both(path, model):
        return sum(device.need.total for device in fit(path, alone).devices)


@contextmanager
def _naming_both(path: Path, model: Path) -> Iterator[None]:
    """What is wrong with a draft model is told with the names of both: clients know nothing of the server's files."""
    try:
        yield
    except ModelError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ModelError(
            f"the draft model {_title(path)!r} cannot draft for {_title(model)!r}: {reason} "
            "(draft_num_predict 0 does without it)"
        ) from error


def _title(path: Path) -> str:
    with GGUFFile(path) as file:
        return str(file.metadata.get("general.name") or path.name)
