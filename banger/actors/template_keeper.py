"""Making and deleting templates in time: periodic work, of which nobody should notice more than faster starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import datetime

from loguru import logger

from banger.actors.messages import DeleteTemplate, MakeTemplate
from banger.actors.services import Services
from banger.core import clock
from banger.core.cancel import Deadline
from banger.core.errors import BangerError
from banger.core.templates import KEPT, MOST, Template, Wish
from banger.core.units import MIB
from banger.core.waiter import Waiter
from banger.host.resources import memory

#: A template's memory file and its disk take less than the machine's memory, and twice that is to stay free of it.
_ROOM = 2


class TemplateKeeper:
    """Nobody waits for what it asks for: the next tick sees whether it was done."""

    def __init__(self, services: Services, is_busy: Callable[[], bool]) -> None:
        """``is_busy``: somebody waits for an operation now."""
        self._services = services
        self._is_busy = is_busy
        self._making: Waiter | None = None

    def begin(self) -> None:
        """Delete what another banger, or another VMM, has left. Once, after the first reconcile."""
        for template in self._services.store.templates.all():
            if why := self._outdated(template):
                self._delete(template, why)

    def tick(self) -> None:
        """Delete what nobody uses, or whose room is needed; make what is due, one at a time."""
        there = self._services.store.templates.all()
        if self._setting == "off":
            for template in there:
                self._delete(template, "run.templates is off")
            return
        now = clock.now()
        old = [one for one in there if now - one.used_at > KEPT]
        for template in old:
            self._delete(template, "nobody has used it for a week")
        rest = sorted((one for one in there if one not in old), key=lambda one: one.used_at)
        if rest and self._free_bytes() < self._services.config.number("storage.resume_free_mib") * MIB:
            self._delete(rest[0], "the host is about to run out of room")
        elif len(rest) > MOST:
            self._delete(rest[0], f"there are {len(rest)}")
        elif self._making is None or self._making.answered:
            self._make(now, {one.key for one in there})

    @property
    def _setting(self) -> str:
        return self._services.config.text("run.templates")

    def _make(self, now: datetime, there: Iterable[str]) -> None:
        wishes, after = self._services.store.wishes, self._services.config.number("run.template_after")
        due = [wish for wish in wishes.all() if wish.id not in there and wish.is_due(now, after)]
        wanted = next((wish for wish in due if self._has_room(wish)), None)
        if wanted is None or self._is_busy():
            return
        logger.info("a template of {} is being made: it was started {} times", wanted.spec.image, wanted.starts)
        self._making = self._services.submit(MakeTemplate(wanted.id, wanted), Deadline.never())
        wishes.forget(now - KEPT)

    def _has_room(self, wish: Wish) -> bool:
        """Memory for the machine, and disk for what is saved of it, with as much again to spare."""
        spare = wish.spec.memory_mib * _ROOM
        keeps = self._services.config.number("storage.resume_free_mib")
        return memory().available_mib > spare and self._free_bytes() > (spare + keeps) * MIB

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._services.layout.data).free

    def _outdated(self, template: Template) -> str:
        """Why nothing will ever be started from it; empty if that may be."""
        saved = template.snapshot
        try:
            version = self._services.vms.vmms.drivers.named(saved.vmm).version()
        except BangerError as error:
            return error.message
        if version != saved.vmm_version:
            return f'it was saved with "{saved.vmm_version}", and "{version}" is installed now'
        is_here = self._services.layout.template_dir(template.id).is_dir()
        return "" if is_here else "its files are gone"

    def _delete(self, template: Template, why: str) -> None:
        self._services.submit(DeleteTemplate(template.key, template.id, why), Deadline.never())
