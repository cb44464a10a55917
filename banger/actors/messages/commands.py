"""The base of all commands: their owner, and how they are queued."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class OwnerKind(StrEnum):
    """Kinds of owners."""

    IMAGE = "image"
    KERNEL = "kernel"
    VM = "vm"
    SNAPSHOT = "snapshot"
    TEMPLATE = "template"
    DRIVER = "driver"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """Who owns what: one actor for each key.

    ``name`` is an image's, kernel's, snapshot's or VMM driver's name, a template's key, or a VM's id.
    """

    kind: OwnerKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Command:
    """Something an owner is asked to do."""

    verb: ClassVar[str] = ""
    joinable: ClassVar[bool] = True
    #: Housekeeping: not worth a log line when it finds nothing to do, and never worth waiting for a busy owner.
    background: ClassVar[bool] = False
    #: It makes room on the disk, or ends what takes it: on a full one it may have what is kept in reserve.
    makes_room: ClassVar[bool] = False

    @property
    def key(self) -> OwnerKey:
        """The owner that does it."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """The name that people know it by."""
        return self.key.name

    @property
    def overtakes(self) -> bool:
        """True if what waits for a guest before it is to wait no longer: its end is what this is about."""
        return False

    @property
    def yields(self) -> bool:
        """True if it is to be refused, not queued, while its owner has other work."""
        return False
