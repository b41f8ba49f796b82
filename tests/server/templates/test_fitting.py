"""Which messages stay when a conversation is too long."""

from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml_server.templates import FittedPrompt, Message, PromptRenderer, ToolCall, fit_messages

Family = Callable[[str], PromptRenderer]


def words(text: str) -> int:
    return len(text.split())


def fit(family: Family, messages: Sequence[Message], n_ctx: int) -> FittedPrompt:
    return fit_messages(family("plain"), messages, count=words, n_ctx=n_ctx)


def talk(n: int) -> list[Message]:
    turns = [(Message("user", f"question {i}"), Message("assistant", f"answer {i}")) for i in range(n)]
    return [
        Message("system", "be short"),
        *(message for turn in turns for message in turn),
        Message("user", "last one"),
    ]


def test_what_fits_stays(family: Family) -> None:
    fitted = fit(family, talk(2), 100)
    assert (fitted.n_dropped, fitted.n_tokens) == (0, 18)
    assert fit(family, talk(2), 18).n_dropped == 0


def test_whole_turns_go_oldest_first(family: Family) -> None:
    fitted = fit(family, talk(3), 17)
    assert fitted.n_dropped == 4
    assert fitted.prompt.text.split("\n")[:3] == ["system: be short", "user: question 2", "assistant: answer 2"]


def test_system_and_last_question_always_stay(family: Family) -> None:
    fitted = fit(family, talk(3), 1)
    assert (fitted.n_dropped, fitted.n_tokens) == (6, 6)
    assert fitted.prompt.text == "system: be short\nuser: last one\n"


def test_system_message_at_the_cut_stays(family: Family) -> None:
    messages = [Message("user", "a b c d"), Message("assistant", "e"), Message("system", "rule"), Message("user", "f")]
    assert fit(family, messages, 4).prompt.text == "system: rule\nuser: f\n"


def test_what_follows_the_last_question_stays(family: Family) -> None:
    call = Message("assistant", "calls", tool_calls=[ToolCall("1", 0, "f", {})])
    messages = [Message("user", "old"), Message("assistant", "old"), Message("user", "new"), call, Message("tool", "r")]
    fitted = fit(family, messages, 2)
    assert (fitted.n_dropped, fitted.prompt.text) == (2, "user: new\nassistant: calls\ntool: r\n")


def test_without_questions_nothing_goes(family: Family) -> None:
    assert fit(family, [Message("system", "a b c")], 1).n_dropped == 0
    assert fit(family, [Message("assistant", "a b c")], 1).n_dropped == 0


def test_few_renderings(family: Family) -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    fit_messages(family("plain"), talk(500), count=count, n_ctx=100)
    assert len(counted) <= 12


_MESSAGES = st.lists(
    st.builds(
        Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(["a", "a b", "a b c d"])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(messages=_MESSAGES, n_ctx=st.integers(1, 40))
def test_as_much_as_fits(family: Family, messages: list[Message], n_ctx: int) -> None:
    fitted = fit(family, messages, n_ctx)
    renderer = family("plain")

    def text(start: int) -> str:
        kept = [m for i, m in enumerate(messages) if i >= start or m.role == "system"]
        return renderer.render_chat(kept).text

    users = [i for i, m in enumerate(messages) if m.role == "user"]
    starts = [0, *users]
    fitting = [start for start in starts if words(text(start)) <= n_ctx]
    assert fitted.prompt.text == text(fitting[0] if fitting else starts[-1])
    assert fitted.n_tokens == words(fitted.prompt.text)
