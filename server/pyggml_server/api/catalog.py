"""Models by the names that requests give, with what prompts need: renderer and tokenizer, kept per digest."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pyggml.errors import PyggmlError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.tokenizer import Tokenizer
from pyggml_server.errors import (
    BadRequestError,
    CloudError,
    InvalidNameError,
    ModelNotFoundError,
    ServerError,
    StoreError,
)
from pyggml_server.names import Name
from pyggml_server.scheduler import LoadOptions, ModelSpec
from pyggml_server.store import Store, StoredModel
from pyggml_server.templates import PromptRenderer

__all__ = ["Catalog", "Facts", "OpenModel", "sort_capabilities"]

_KEEP: Final = 16
"""Renderers and tokenizers that stay in memory; a vocabulary of 262,144 tokens takes about 100 MB."""

_ORDER: Final = ("completion", "vision", "tools", "insert", "embedding", "thinking")

_T = TypeVar("_T")
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A stored model with what turns conversations into tokens.

    Attributes:
        stored: The model in the store.
        renderer: Writes prompts.
        tokenizer: Of its vocabulary.
        n_ctx_train: Longest context the model was trained for; 0: the file does not say.
    """

    stored: StoredModel
    renderer: PromptRenderer
    tokenizer: Tokenizer
    n_ctx_train: int

    @property
    def full_name(self) -> str:
        """Host, namespace, model and tag: how Ollama names a model in some errors."""
        return "{}/{}/{}:{}".format(*self.stored.name.parts)

    def can(self, capability: str) -> bool:
        """Whether the model has a capability, by Ollama's names."""
        return capability in self.renderer.capabilities

    def spec(self, load: LoadOptions) -> ModelSpec:
        """What the scheduler must know to load it."""
        stored = self.stored
        return ModelSpec(
            name=stored.name.display,
            digest=stored.digest,
            path=stored.path,
            adapters=stored.adapters,
            projectors=stored.projectors,
            options=load,
            embedding=not self.can("completion"),
            details=stored.details,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What lists of models tell of one.

    Attributes:
        capabilities: By Ollama's names, sorted as it sorts them.
        n_ctx_train: Longest context the model was trained for; 0: unknown.
        n_embd: Length of its vectors; 0: unknown.
    """

    capabilities: tuple[str, ...]
    n_ctx_train: int
    n_embd: int


class Catalog:
    """Looks models up and keeps what is slow to build.

    Args:
        store: Where the models are.
    """

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self._facts: Final[dict[str, Facts]] = {}
        self._executor: Final = ThreadPoolExecutor(4, thread_name_prefix="prompts")
        self._renderers: Final = _Cache[PromptRenderer]()
        self._vocabularies: Final = _Cache[tuple[Tokenizer, int]]()

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run what takes more than a moment in one of the catalog's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def find(self, text: str) -> StoredModel:
        """The model of a name.

        Raises:
            BadRequestError: there is no name.
            CloudError: the name means a model on somebody else's computers.
            ModelNotFoundError: there is no such model, or one of its files is gone; also where the name is no name, as
                Ollama has it.
        """
        if not text:
            raise BadRequestError("model is required")
        try:
            name = Name.parse(text.removesuffix(":local"))
            return await self.run(self.store.get, name)
        except (InvalidNameError, ModelNotFoundError):
            if text.endswith((":cloud", "-cloud")):
                raise CloudError(f"model '{text}' runs in a cloud; this server only runs models of its own") from None
            raise ModelNotFoundError(f"model '{text}' not found") from None
        except StoreError as error:
            if await self.run(self._complete, name):
                raise
            _log.warning("%s", error)
            raise ModelNotFoundError(f'model "{text}" not found, try pulling it first') from None

    def _complete(self, name: Name) -> bool:
        """Whether all files are there that a model's manifest names."""
        return all(self.store.blobs.path(digest).exists() for digest in self.store.manifests.read(name).digests)

    async def open(self, text: str) -> OpenModel:
        """The model of a name, with its renderer and tokenizer; see :meth:`find` for the errors."""
        stored = await self.find(text)
        renderer, (tokenizer, n_ctx_train) = await asyncio.gather(
            self._renderers.get(stored.digest, lambda: self.run(PromptRenderer.for_model, stored)),
            self._vocabularies.get(stored.weights.digest, lambda: self.run(self._read_vocabulary, stored)),
        )
        return OpenModel(stored, renderer, tokenizer, n_ctx_train)

    async def facts(self, name: Name) -> Facts | None:
        """What lists tell of a model; None where its files are damaged or gone. Read once per model."""
        try:
            stored = await self.run(self.store.get, name)
            found = self._facts.get(stored.digest)
            if found is None:
                found = self._facts[stored.digest] = await self.run(_read_facts, stored)
            return found
        except (ServerError, PyggmlError, OSError) as error:
            _log.warning("%s: %s", name.display, error)
            return None

    def _read_vocabulary(self, stored: StoredModel) -> tuple[Tokenizer, int]:
        folder = self.store.work_folder() / "tokenizers"
        with GGUFFile(stored.path) as file:
            tokenizer = Tokenizer.from_metadata(file.metadata, cache_dir=folder)
            return tokenizer, ModelMetadata(file).get_int("context_length", default=0)


def sort_capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Capabilities in the order of Ollama's lists."""
    return tuple(sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)))


def _read_facts(stored: StoredModel) -> Facts:
    renderer = PromptRenderer.for_model(stored)
    with GGUFFile(stored.path) as file:
        metadata = ModelMetadata(file)
        return Facts(
            sort_capabilities(renderer.capabilities),
            metadata.get_int("context_length", default=0),
            metadata.get_int("embedding_length", default=0),
        )


class _Cache(Generic[_T]):
    """Values by digest, the least recently used dropped first; those who ask for one at once wait for the same one."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, asyncio.Task[_T]] = OrderedDict()

    async def get(self, key: str, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(make())
            while len(self._tasks) > _KEEP:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(key)
        # a caller that goes away must not take the value from the others
        await asyncio.wait({task})
        if task.exception() is not None and self._tasks.get(key) is task:
            del self._tasks[key]
        return task.result()
