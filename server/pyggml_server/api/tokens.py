"""``/api/tokenize`` and ``/api/detokenize``: nothing is loaded but the vocabulary."""

from pyggml_server.api.answering import token_text
from pyggml_server.api.answers import Text, Tokens, TokenText
from pyggml_server.api.endpoint import Call, Document, Reply
from pyggml_server.api.inference import messages_of
from pyggml_server.api.schema import DetokenizeRequest, TokenizeRequest
from pyggml_server.api.tasks import ChatTask, Settings
from pyggml_server.errors import BadRequestError

__all__ = ["detokenize", "tokenize"]


async def tokenize(call: Call) -> Reply:
    """Tokens of a text, or of the prompt that a conversation becomes."""
    body: TokenizeRequest = call.body
    text = body.text if body.text is not None else body.content
    if (text is None) == (body.messages is None):
        raise BadRequestError("either text or messages is required")
    prompt = None
    if body.messages is not None:
        task = ChatTask(
            model=body.model or "",
            messages=messages_of(body.messages),
            tools=body.tools or (),
            settings=Settings(think=body.think, truncate=False),
        )
        model, rendered = await call.state.generator.render(task, limited=False)
        prompt, ids = rendered.text, rendered.tokens
    else:
        model = await call.state.catalog.open(body.model or "")
        add, parse = body.add_special is not False, body.parse_special is not False
        ids = await call.state.catalog.run(
            lambda: model.tokenizer.encode(text or "", add_special=add, parse_special=parse)
        )
    answer = Tokens(model=body.model or "", tokens=ids, count=len(ids), prompt=prompt)
    if body.with_pieces:
        for token in ids:
            piece, data = token_text(model.tokenizer, token)
            answer.pieces.append(TokenText(id=token, text=piece, bytes=data))
    return Document(answer)


async def detokenize(call: Call) -> Reply:
    """The text of tokens."""
    body: DetokenizeRequest = call.body
    model = await call.state.catalog.open(body.model or "")
    text = await call.state.catalog.run(
        lambda: model.tokenizer.decode(body.tokens, skip_special=bool(body.skip_special))
    )
    return Document(Text(model=body.model or "", text=text))
