"""Owners: objects that hold something outside of Python and give it back when told."""

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """Base of every owner: ``with`` closes it, and closing twice does no harm."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Give back what is owned; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
