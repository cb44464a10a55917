"""Commands to the owner of a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from banger.actors.messages.commands import Command, OwnerKey, OwnerKind
from banger.core.templates import Wish


@dataclass(frozen=True, slots=True)
class TemplateCommand(Command):
    """A command to the owner of one template, by its key."""

    template_key: str

    @property
    def key(self) -> OwnerKey:
        """The template's owner."""
        return OwnerKey(OwnerKind.TEMPLATE, self.template_key)

    @property
    def subject(self) -> str:
        """The beginning of its key."""
        return self.template_key[:12]


@dataclass(frozen=True, slots=True)
class MakeTemplate(TemplateCommand):
    """Boot what is wished for and save it, unless that was done; answers the template."""

    verb: ClassVar[str] = "template.make"
    wish: Wish

    def __hash__(self) -> int:
        return hash(self.template_key)  # the spec's labels are a mapping


@dataclass(frozen=True, slots=True)
class DeleteTemplate(TemplateCommand):
    """Delete it, unless a VM is being made from it now. Already gone is success. ``why`` is for the log."""

    verb: ClassVar[str] = "template.delete"
    makes_room: ClassVar[bool] = True
    template_id: str
    why: str = ""
