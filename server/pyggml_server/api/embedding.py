"""``/api/embed``, ``/api/embeddings`` and ``/api/rerank``."""

from typing import Any

import numpy as np

from pyggml_server.api.answers import EmbedAnswer, EmbeddingsAnswer, RerankAnswer, Score
from pyggml_server.api.endpoint import Call, Document, Reply
from pyggml_server.api.inference import parse_keep_alive
from pyggml_server.api.schema import EmbeddingsRequest, EmbedRequest, RerankRequest
from pyggml_server.errors import BadRequestError

__all__ = ["embed", "embeddings", "rerank"]


async def embed(call: Call) -> Reply:
    """Vectors of length 1 for one text or many; without texts, the model is loaded."""
    body: EmbedRequest = call.body
    found = await call.state.vectors.embed(
        body.model or "",
        _texts(body.input),
        dimensions=body.dimensions or None,
        truncate=body.truncate is not False,
        options=body.options,
        keep_alive=parse_keep_alive(body.keep_alive),
        priority=body.priority or 0,
    )
    answer = EmbedAnswer(
        model=body.model or "",
        embeddings=found.rows.tolist(),
        total_duration=found.total_ns,
        load_duration=found.load_ns,
        prompt_eval_count=found.n_tokens,
        truncated=found.n_truncated,
    )
    return Document(answer)


async def embeddings(call: Call) -> Reply:
    """The vector of one text as the model gives it, of any length (an old route)."""
    body: EmbeddingsRequest = call.body
    found = await call.state.vectors.embed(
        body.model or "",
        [body.prompt] if body.prompt else [],
        normalize=False,
        options=body.options,
        keep_alive=parse_keep_alive(body.keep_alive),
    )
    return Document(EmbeddingsAnswer(embedding=found.rows[0].tolist() if len(found.rows) else []))


async def rerank(call: Call) -> Reply:
    """Documents in the order in which they answer a query."""
    body: RerankRequest = call.body
    if body.top_n is not None and body.top_n < 1:
        raise BadRequestError(f"top_n must be 1 or more, got {body.top_n}")
    found = await call.state.vectors.rerank(
        body.model or "",
        body.query,
        body.documents,
        truncate=body.truncate is not False,
        options=body.options,
        keep_alive=parse_keep_alive(body.keep_alive),
        priority=body.priority or 0,
    )
    # what the model gives is the logarithm of the odds
    scores: list[float] = (1 / (1 + np.exp(-found.rows[:, 0].astype(np.float64)))).tolist() if len(found.rows) else []
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    answer = RerankAnswer(
        model=body.model or "",
        results=[
            Score(
                index=index,
                relevance_score=scores[index],
                document=body.documents[index] if body.return_documents else None,
            )
            for index in order
        ],
        total_duration=found.total_ns,
        load_duration=found.load_ns,
        prompt_eval_count=found.n_tokens,
        truncated=found.n_truncated,
    )
    return Document(answer)


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise BadRequestError("invalid input type")
