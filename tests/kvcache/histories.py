"""What the two state machines share: sequences grow, are cut, and share what they begin with."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

__all__ = ["N_SEQUENCES", "SEQUENCES", "Growing", "histories"]

N_SEQUENCES = 4
SEQUENCES = st.integers(0, N_SEQUENCES - 1)


def histories(examples: int, steps: int) -> settings:
    """Settings of a run; the same histories each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


class Growing(RuleBasedStateMachine):
    """Model: the tokens of each sequence. ``lab.cache`` is under test."""

    lab: Any
    tokens = st.integers(0, 15)

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[int, list[int]] = {i: [] for i in range(N_SEQUENCES)}

    def put(self, parts: dict[int, list[int]]) -> None:
        """Compute tokens that continue sequences, and check them."""
        raise NotImplementedError

    def may_forget(self, seq_id: int) -> bool:
        """Whether the cache may have lost what sequence ``seq_id`` needs to go on."""
        raise NotImplementedError

    def shared(self, source: int, to: int) -> None:
        """``to`` has become a prefix of ``source``."""

    def draw(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(self.tokens, min_size=1, max_size=6))

    @rule(seq_id=SEQUENCES, data=st.data())
    def append(self, seq_id: int, data: st.DataObject) -> None:
        self.put({seq_id: self.draw(data)})

    @rule(seq_id=st.integers(0, N_SEQUENCES - 2), data=st.data())
    def append_to_two(self, seq_id: int, data: st.DataObject) -> None:
        self.put({seq_id + 1: self.draw(data), seq_id: self.draw(data)})

    @precondition(lambda self: any(self.said.values()))
    @rule(seq_id=SEQUENCES, data=st.data())
    def cut(self, seq_id: int, data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(self.said[seq_id])))
        self.lab.cache.remove(seq_id, length)
        self.said[seq_id] = self.said[seq_id][:length]
        self.forget_what_cannot_go_on(seq_id)

    @precondition(lambda self: any(self.said.values()))
    @rule(source=SEQUENCES, to=SEQUENCES, data=st.data())
    def share(self, source: int, to: int, data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(self.said[source])))
        self.lab.cache.copy_prefix(source, to, length)
        self.said[to] = self.said[source][:length]
        self.shared(source, to)
        self.forget_what_cannot_go_on(to)

    def forget_what_cannot_go_on(self, seq_id: int) -> None:
        if not self.lab.cache.can_resume(seq_id, len(self.said[seq_id])):
            assert self.may_forget(seq_id), "a cache that sees all keeps all"
            self.lab.cache.remove(seq_id, 0)
            self.said[seq_id] = []
