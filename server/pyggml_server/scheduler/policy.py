"""Decisions without doing: who goes, who fits. Pure functions, so that they can be tested by the million."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Resident", "Room", "check_room", "choose_victim"]


@dataclass(slots=True)
class Resident:
    """A model in memory, as far as decisions need it. Times are seconds of one clock.

    Attributes:
        state: ``loading``, ``ready`` or ``stopping``.
        active: requests that use it.
        waiting: requests that wait for it.
        keep_alive: seconds that it stays after its last request.
        last_used: when the last request ended, or it was loaded.
        reserved: bytes that it takes by device; None while it is loading and that is not known.
        file_size: bytes of its weights on disk, what it is taken to need until more is known.
    """

    state: str = "loading"
    active: int = 0
    waiting: int = 0
    keep_alive: float = 0.0
    last_used: float = 0.0
    reserved: Mapping[str, int] | None = None
    file_size: int = 0

    @property
    def size(self) -> int:
        """Bytes that it takes on all devices, as far as known."""
        return self.file_size if self.reserved is None else sum(self.reserved.values())

    @property
    def idle(self) -> bool:
        """Whether it can be put out of memory without harm to anybody."""
        return self.state == "ready" and self.active == 0


def choose_victim(residents: Iterable[Resident]) -> Resident | None:
    """Who goes when room is needed; None: nobody can.

    Among the idle ones: first those that nobody waits for; then the shortest keep-alive, then the one that was used
    longest ago, then the largest.
    """
    candidates = [each for each in residents if each.idle]
    return min(
        candidates, key=lambda each: (each.waiting > 0, each.keep_alive, each.last_used, -each.size), default=None
    )


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a model can be loaded beside others.

    Attributes:
        fits: every device has room, and no layer is left to the CPU that a GPU would have taken.
        accounted: it would fit if the devices had all the memory that nobody is known to use: what was freed
            is not reported yet.
        lacking: bytes by device.
    """

    fits: bool
    accounted: bool
    lacking: Mapping[str, int] = field(default_factory=dict)


def check_room(devices: Sequence[Mapping[str, Any]], others: Sequence[Resident], *, margin: int, partial: bool) -> Room:
    """Compare what a model needs with what the others leave.

    What a device reports as free may hold weights that are mapped and not yet read, or memory that a process just gave
    back; so what the others are known to take counts, too.

    Args:
        devices: from :class:`pyggml_server.protocol.Measured`.
        others: who else is in memory, or on the way there.
        margin: bytes that stay free on each GPU.
        partial: layers on the CPU are what was asked for.
    """
    lacking: dict[str, int] = {}
    accounted = True
    for device in devices:
        name, needed = device["name"], device["needed"]
        if not needed:
            continue
        taken = sum(other.file_size if other.reserved is None else other.reserved.get(name, 0) for other in others)
        left = device["total"] - taken - (margin if device["type"] != "cpu" else 0)
        accounted = accounted and needed <= left
        short = needed - min(left, device["free"])
        if short > 0:
            lacking[name] = short
    spilled = not partial and _spills(devices)
    return Room(not lacking and not spilled, accounted and not spilled, lacking)


def _spills(devices: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a model is partly on GPUs and partly not."""
    on_cpu: int = sum(device["layers"] for device in devices if device["type"] == "cpu")
    on_gpu: int = sum(device["layers"] for device in devices if device["type"] != "cpu")
    return on_gpu > 0 and on_cpu > 0
