"""Registries of drivers by name, and the error for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from banger.core.errors import BangerError, ErrorKind


class Named(Protocol):
    """Anything with a name."""

    name: str


T = TypeVar("T", bound=Named)


class Drivers(Generic[T]):
    """All drivers of one kind, and the one that is taken where nobody names one."""

    def __init__(self, noun: str, drivers: Iterable[T], default: str) -> None:
        """``noun`` says what they are, in errors. Raises ``usage`` if ``default`` is none of them."""
        self._noun = noun
        self._drivers = {driver.name: driver for driver in drivers}
        self.default = self.named(default)

    def __iter__(self) -> Iterator[T]:
        return iter(self._drivers.values())

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._drivers)

    def named(self, name: str) -> T:
        """The driver of that name. Raises ``usage`` that names those there are."""
        try:
            return self._drivers[name]
        except KeyError:
            raise BangerError(
                ErrorKind.USAGE, f'there is no {self._noun} "{name}"', subject=name,
                hint=f"choose from {', '.join(self._drivers)}",
            ) from None  # fmt: skip

    def chosen(self, name: str) -> T:
        """The driver of that name, or the default for none."""
        return self.named(name) if name else self.default
