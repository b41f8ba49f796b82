"""The first of two passes: where thoughts end, and what stands before the answer proper."""

from collections.abc import Callable

import pytest

from pyggml_server.templates import (
    PromptRenderer,
    Thinking,
    answer_opening,
    open_prelude,
    output_parser,
    tool_choice_grammar,
)

Family = Callable[[str], PromptRenderer]
TOOLS = [{"type": "function", "function": {"name": "stop"}}]
_CALL = '<tool_call>{"name": "stop", "arguments": {}}</tool_call>'
_START = "<|start|>assistant"

CASES = [
    ("hermes", "q", "<think>a b</think>\n\nc", "a b", "<think>a b</think>\n\n"),
    ("hermes", "q<think>", "a b</think>", "a b", "a b</think>\n\n"),
    ("hermes", "q<think>", "a b", "a b", "a b\n</think>\n\n"),
    ("hermes", "q", "Hello", "", ""),
    # a call is made in the second pass, in the grammar
    ("hermes", "q", _CALL, "", ""),
    ("hermes", "q", f"<think>a</think>{_CALL}", "a", "<think>a</think>\n\n"),
    (
        "harmony",
        _START,
        f"<|channel|>analysis<|message|>hm <b<|end|>{_START}<|channel|>final<|message|>yes",
        "hm <b",
        f"<|channel|>analysis<|message|>hm <b<|end|>{_START}",
    ),
    ("harmony", _START, "<|channel|>analysis<|message|>hm", "hm", f"<|channel|>analysis<|message|>hm<|end|>{_START}"),
    ("harmony", _START, "<|channel|>commentary to=functions.stop<|message|>{}<|call|>", "", ""),
    ("harmony", _START, "<|channel|>final<|message|>yes", "", ""),
    ("harmony", "prefilled", "yes", "", ""),
]


@pytest.mark.parametrize(("name", "prompt", "text", "thoughts", "closed"), CASES)
@pytest.mark.parametrize("calls", [True, False])
def test_thoughts_end_where_the_answer_begins(
    family: Family, name: str, prompt: str, text: str, thoughts: str, closed: str, *, calls: bool
) -> None:
    renderer = family(name)
    for pieces in ([text], list(text)):
        prelude = open_prelude(renderer, prompt, calls=calls)
        parser = output_parser(renderer, think=True, prompt=prompt)
        events = []
        for piece in pieces:
            events += prelude.take(piece, parser.feed(piece))
            if prelude.finished:
                break
        else:
            events += prelude.take("", parser.finish())
        assert "".join(event.text for event in events if isinstance(event, Thinking)) == thoughts
        opening = answer_opening(renderer, prompt, calls=calls)
        assert prelude.closed() == closed + opening
        assert bool(opening) == (name == "harmony" and prompt == _START and not calls)


def test_calls_of_gpt_oss_follow_the_thoughts(family: Family) -> None:
    renderer = family("harmony")
    grammar = tool_choice_grammar(renderer, TOOLS, "required", parallel=False)
    assert grammar.text.startswith('start: "<|channel|>commentary to=functions." call')
