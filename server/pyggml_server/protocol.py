"""What the service and a runner process say to each other.

Over a unix socket, each way a stream of frames: four bytes of length, little-endian, then a msgpack map. The ``type``
field tells which of the structs below it is. Every request has an ``id`` that its answers repeat; many are under way at
once. Both ends send :data:`VERSION` first and hang up on another one.
"""

import struct
from collections.abc import Iterable
from typing import Any, Final

import msgspec

__all__ = [
    "MAX_FRAME",
    "VERSION",
    "Cancel",
    "Done",
    "Embed",
    "Failed",
    "FrameError",
    "FrameReader",
    "Generate",
    "GrammarText",
    "Hello",
    "Load",
    "Loaded",
    "Loading",
    "LogProbs",
    "Measure",
    "Measured",
    "Metrics",
    "MetricsReply",
    "Ping",
    "Pong",
    "Rerank",
    "Shutdown",
    "Text",
    "ToRunner",
    "ToService",
    "Vectors",
    "pack",
]

VERSION = 1
MAX_FRAME = 256 * 2**20


class Hello(msgspec.Struct, tag="hello"):
    """Both ways, first."""

    version: int
    pid: int


# -- to the runner --------------------------------------------------------------------------------------------------


class Load(msgspec.Struct, tag="load"):
    """Open a model; answered by :class:`Loading` any number of times, then :class:`Loaded` or :class:`Failed`.

    ``config`` holds fields of :class:`pyggml.engine.EngineConfig` by name: types of caches as text (``q8_0``), paths as
    text. An ``n_ctx`` of 0 is chosen by the memory of the GPUs; one that the model was not trained for is lowered.
    ``flexible`` names the fields that may be lowered until the model fits: ``n_parallel``, ``n_gpu_layers``.
    ``automatic``: the runner chooses the devices, a single GPU where that is enough unless ``spread``; ``main_gpu``
    names one by its index, which then is the only one. ``draft`` is the file of a smaller model that proposes tokens.
    """

    id: int
    path: str
    config: dict[str, Any] = {}
    flexible: list[str] = []
    automatic: bool = True
    spread: bool = False
    main_gpu: int | None = None
    draft: str | None = None


class Measure(msgspec.Struct, tag="measure"):
    """What :class:`Load` with the same fields would take now, without loading; answered by :class:`Measured`."""

    id: int
    path: str
    config: dict[str, Any] = {}
    flexible: list[str] = []
    automatic: bool = True
    spread: bool = False
    main_gpu: int | None = None
    draft: str | None = None


class GrammarText(msgspec.Struct, tag="grammar"):
    """A :class:`pyggml.grammar.Grammar`: its kind, its text, whether unknown keywords are ignored."""

    kind: str
    text: str
    lenient: bool = False


class Generate(msgspec.Struct, tag="generate"):
    """Continue a prompt; answered by :class:`Text` any number of times, then :class:`Done` or :class:`Failed`.

    ``sampling`` holds fields of :class:`pyggml.sampling.SamplingParams` by name. The other fields are those of
    :class:`pyggml.engine.Request`; ``speculate`` is the longest draft, 0 for none: by prompt lookup, or by the draft
    model where ``by_model``. ``n_ctx`` is the context that the request asked for, where it is less than the engine's:
    prompts are cut to it, and without ``shift`` the answer ends there.
    """

    id: int
    tokens: list[int]
    sampling: dict[str, Any] = {}
    max_tokens: int | None = None
    stop: list[str] = []
    ignore_eos: bool = False
    keep_special: bool = False
    shift: bool = True
    truncate: bool = True
    n_keep: int = 4
    logprobs: int | None = None
    grammar: GrammarText | None = None
    speculate: int = 0
    by_model: bool = False
    adapters: dict[int, float] = {}
    priority: int = 0
    n_ctx: int | None = None


class Embed(msgspec.Struct, tag="embed"):
    """Vectors of texts, given as tokens; answered by :class:`Vectors` or :class:`Failed`.

    A text that is cut keeps its last token where that ends texts (``[SEP]``).
    """

    id: int
    texts: list[list[int]]
    normalize: bool = True
    dimensions: int | None = None
    truncate: bool = True


class Rerank(msgspec.Struct, tag="rerank"):
    """Scores of documents for a query; answered by :class:`Vectors` of one column, or :class:`Failed`."""

    id: int
    query: str
    documents: list[str]
    truncate: bool = True


class Cancel(msgspec.Struct, tag="cancel"):
    """Stop what was asked for under ``id`` before the next batch; it still answers with :class:`Done`."""

    id: int


class Metrics(msgspec.Struct, tag="metrics"):
    """Ask for counters; answered by :class:`MetricsReply`."""

    id: int


class Ping(msgspec.Struct, tag="ping"):
    """Ask for a sign of life; answered by :class:`Pong` even while a model is loading."""

    id: int


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Finish nothing, save what is to be saved, end."""


ToRunner = Hello | Load | Measure | Generate | Embed | Rerank | Cancel | Metrics | Ping | Shutdown


# -- to the service -------------------------------------------------------------------------------------------------


class Loading(msgspec.Struct, tag="loading"):
    """How much of the weights is there, 0 to 1."""

    id: int
    fraction: float


class Loaded(msgspec.Struct, tag="loaded"):
    """The model is open. Sizes are bytes: of everything, and of what lies on other devices than the CPU.

    ``devices`` holds a map for each device: ``name``, ``type`` (``cpu``, ``gpu``), ``layers``, and in bytes ``needed``,
    ``free`` and ``total``. ``notes`` say what was lowered so that it fits.
    """

    id: int
    n_ctx: int
    n_ctx_train: int
    n_parallel: int
    n_vocab: int
    n_embd: int
    flash_attn: bool
    size: int
    size_vram: int
    load_ns: int
    devices: list[dict[str, Any]] = []
    n_batch: int = 0
    notes: list[str] = []


class Measured(msgspec.Struct, tag="measured"):
    """What a model would take; ``devices`` as in :class:`Loaded`, ``fits``: the free memory is enough."""

    id: int
    fits: bool
    devices: list[dict[str, Any]] = []


class LogProbs(msgspec.Struct):
    """Natural logarithms: of the token, and of the most likely ones as pairs of id and logarithm."""

    token: int
    logprob: float
    top: list[tuple[int, float]] = []


class Text(msgspec.Struct, tag="text"):
    """Pieces of an answer since the last message: ids, the text they complete, log-probabilities where asked for."""

    id: int
    tokens: list[int]
    text: str
    logprobs: list[LogProbs] = []


class Done(msgspec.Struct, tag="done"):
    """The end of an answer. ``reason`` is ``stop``, ``length`` or ``cancelled``; times are nanoseconds."""

    id: int
    reason: str
    stop_string: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    truncated_tokens: int = 0
    shifts: int = 0
    eval_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    queue_ns: int = 0
    prompt_ns: int = 0
    eval_ns: int = 0


class Vectors(msgspec.Struct, tag="vectors"):
    """``data`` is float32, little-endian, ``rows`` of ``columns`` each; the tokens computed of each text."""

    id: int
    rows: int
    columns: int
    data: bytes
    n_tokens: list[int] = []
    n_truncated: int = 0


class Failed(msgspec.Struct, tag="failed"):
    """An exception: the name of its class in :mod:`pyggml.errors` (or ``internal``) and its message."""

    id: int
    error: str
    message: str


class MetricsReply(msgspec.Struct, tag="metrics_reply"):
    """Fields of :class:`pyggml.engine.StepMetrics` and :class:`pyggml.engine.DecoderStats` by name, and gauges."""

    id: int
    counters: dict[str, float]
    running: int
    waiting: int


class Pong(msgspec.Struct, tag="pong"):
    """Answer to :class:`Ping`; ``state`` is ``empty``, ``loading`` or ``ready``."""

    id: int
    state: str


ToService = Hello | Loading | Loaded | Measured | Text | Done | Vectors | Failed | MetricsReply | Pong


# -- frames ---------------------------------------------------------------------------------------------------------

_HEAD: Final = struct.Struct("<I")
_encode: Final = msgspec.msgpack.Encoder().encode


class FrameError(ValueError):
    """What came is no frame, or no message that is known."""


def pack(messages: Iterable[msgspec.Struct]) -> bytes:
    """Messages as frames, to be written at once.

    Raises:
        FrameError: a message is longer than :data:`MAX_FRAME`.
    """
    parts: list[bytes] = []
    for message in messages:
        body = _encode(message)
        if len(body) > MAX_FRAME:
            raise FrameError(f"a {type(message).__name__} of {len(body)} bytes is too long; the limit is {MAX_FRAME}")
        parts += (_HEAD.pack(len(body)), body)
    return b"".join(parts)


class FrameReader:
    """Puts frames together from what arrives in pieces of any size."""

    def __init__(self, messages: Any) -> None:
        """``messages``: :data:`ToRunner` or :data:`ToService`."""
        self._decode = msgspec.msgpack.Decoder(messages).decode
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete now.

        Raises:
            FrameError: a frame is too long, or holds no known message.
        """
        rest, found = self._rest, list[Any]()
        if not rest:  # most reads bring whole frames
            at = self._take(data, found)
            if at < len(data):
                rest += data[at:]
            return found
        rest += data
        with memoryview(rest) as view:
            at = self._take(view, found)
        if at:
            del rest[:at]
        return found

    def _take(self, data: bytes | memoryview, found: list[Any]) -> int:
        """Decode the frames at the beginning of ``data``; how many bytes they took."""
        at, end, decode = 0, len(data), self._decode
        try:
            while end - at >= 4:
                (length,) = _HEAD.unpack_from(data, at)
                if length > MAX_FRAME:
                    raise FrameError(f"a frame of {length} bytes is too long; the limit is {MAX_FRAME}")
                begin, at_next = at + 4, at + 4 + length
                if at_next > end:
                    break
                found.append(decode(data[begin:at_next]))
                at = at_next
        except msgspec.MsgspecError as error:
            raise FrameError(f"a message that is not understood: {error}") from error
        return at
