"""Names of answers, and when they were made."""

import secrets
import time

import msgspec

__all__ = ["Stamp", "new_id"]


def new_id(prefix: str) -> str:
    """A name that no other answer has."""
    return f"{prefix}{secrets.token_hex(12)}"


class Stamp(msgspec.Struct, frozen=True):
    """What all pieces of an answer carry: its id, its second, the model as the request names it."""

    id: str
    created: int
    model: str

    @classmethod
    def now(cls, prefix: str, model: str) -> "Stamp":
        """A new answer."""
        return cls(new_id(prefix), int(time.time()), model)
