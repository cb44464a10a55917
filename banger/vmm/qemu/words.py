"""A QEMU command line that ``arguments`` has made, taken apart and changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from banger.vmm.qemu.arguments import escape

#: Options that no value follows.
_FLAGS = frozenset({"-nodefaults", "-no-user-config", "-no-reboot", "-S"})


@dataclass(frozen=True, slots=True)
class Option:
    """One option, with its dash, and its value as it is typed; None for one that takes none."""

    name: str
    value: str | None = None

    @property
    def kind(self) -> str:
        """The first word of the value: ``virtio-blk-device`` of ``virtio-blk-device,drive=disk0``."""
        return next(_split(self.value or ""))

    def get(self, field: str) -> str:
        """The value of a field: ``disk0`` of ``drive``; empty without one."""
        pairs = (part.partition("=") for part in _split(self.value or ""))
        return next((value for key, _, value in pairs if key == field), "")

    def with_field(self, field: str, value: object) -> Option:
        """The same with one more field, or another value of it."""
        kept = (part for part in _split(self.value or "") if part.partition("=")[0] != field)
        return Option(self.name, ",".join([*map(escape, kept), f"{field}={escape(value)}"]))

    def without(self, *fields: str) -> Option:
        """The same without some fields."""
        kept = (part for part in _split(self.value or "") if part.partition("=")[0] not in fields)
        return Option(self.name, ",".join(map(escape, kept)))

    def words(self) -> list[str]:
        """As they are typed."""
        return [self.name] if self.value is None else [self.name, self.value]


def options_of(argv: Sequence[str]) -> list[Option]:
    """The options of a command line, without its program."""
    words = iter(argv[1:])
    return [Option(name) if name in _FLAGS else Option(name, next(words, "")) for name in words]


def with_options(program: str, options: Iterable[Option]) -> list[str]:
    """The command line that these make."""
    return [program, *(word for option in options for word in option.words())]


def changed(options: Iterable[Option], change: Callable[[Option], Option | None]) -> list[Option]:
    """All of them changed, without those that become None."""
    return [new for new in map(change, options) if new is not None]


def first(options: Iterable[Option], name: str) -> Option:
    """The first option of that name, or one that says nothing."""
    return next((option for option in options if option.name == name), Option(name, ""))


def _split(value: str) -> Iterator[str]:
    """At commas; two of them are one that is meant."""
    for part in value.replace(",,", "\0").split(","):
        yield part.replace("\0", ",")
