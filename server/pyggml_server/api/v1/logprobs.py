"""Log-probabilities of tokens, in the forms of chat and of completions."""

from collections.abc import Sequence
from typing import Any

from pyggml.tokenizer import Tokenizer
from pyggml_server.api.v1.common_types import LogProbItem, TopLogProb
from pyggml_server.protocol import LogProbs

__all__ = ["chat_logprobs", "legacy_logprobs"]


def chat_logprobs(tokenizer: Tokenizer, found: Sequence[LogProbs]) -> list[LogProbItem]:
    """As chat completions and responses have them: text, natural logarithm and bytes of each token."""
    items = []
    for one in found:
        text, data = _text(tokenizer, one.token)
        top = [TopLogProb(*_named(tokenizer, token, logprob)) for token, logprob in one.top]
        items.append(LogProbItem(text, one.logprob, data, top))
    return items


def legacy_logprobs(tokenizer: Tokenizer, found: Sequence[LogProbs], *, offset: int) -> dict[str, Any]:
    """As completions have them: parallel lists; ``text_offset`` counts characters from ``offset``."""
    texts, offsets = [], []
    for one in found:
        text, _ = _text(tokenizer, one.token)
        texts.append(text)
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [one.logprob for one in found],
        "top_logprobs": [{_text(tokenizer, token)[0]: value for token, value in one.top} for one in found],
        "text_offset": offsets,
    }


def _named(tokenizer: Tokenizer, token: int, logprob: float) -> tuple[str, float, list[int]]:
    text, data = _text(tokenizer, token)
    return text, logprob, data


def _text(tokenizer: Tokenizer, token: int) -> tuple[str, list[int]]:
    data = tokenizer.token_bytes(token)
    # a token may hold a part of a character; its bytes say which
    return data.decode("utf-8", "replace"), list(data)
