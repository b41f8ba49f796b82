"""How transfers behave: sizes, patience, places of keys."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

__all__ = ["RegistrySettings"]


def _home(*parts: str) -> Path:
    return Path("~").expanduser().joinpath(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Sizes in bytes, times in seconds.

    Attributes:
        key_folder: Holds the key ``id_ed25519``.
        docker_config: Docker's file with passwords of registries.
        smallest_part: A blob is fetched in parts at least so large …
        largest_part: … and at most so large; a sixteenth of it in between.
        streams: Parts fetched at once.
        attempts: How often in a row a request may fail, or a part bring nothing.
        backoff: The first pause between attempts; each further one is twice as long.
        stall: How long nothing may arrive before a part is asked for again.
        connect: How long connecting may take.
        hubs: Hosts that speak Hugging Face's own protocol, too, and serve split models only by that.
    """

    key_folder: Path = field(default_factory=lambda: _home(".ollama"))
    docker_config: Path = field(default_factory=lambda: _home(".docker", "config.json"))
    smallest_part: int = 100_000_000
    largest_part: int = 1_000_000_000
    streams: int = 8
    attempts: int = 6
    backoff: float = 1.0
    stall: float = 30.0
    connect: float = 10.0
    hubs: frozenset[str] = frozenset({"hf.co", "huggingface.co"})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The defaults, with ``DOCKER_CONFIG`` for the folder of docker's file."""
        folder = (os.environ if environment is None else environment).get("DOCKER_CONFIG")
        return cls(docker_config=Path(folder) / "config.json") if folder else cls()

    def part_size(self, size: int) -> int:
        """How large the parts of a blob of ``size`` bytes are."""
        return min(max(-(-size // 16), self.smallest_part), self.largest_part)
