"""The tables of templates, and of the starts that one could have been used for."""

from __future__ import annotations

from datetime import datetime

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.templates import Template, Wish
from banger.store.database import Database
from banger.store.leases import LeaseTable, directory_key
from banger.store.table import Table


class TemplateTable(Table[Template]):
    """Rows of templates. They go with their image or kernel, which they keep nobody from deleting."""

    def __init__(self, database: Database, leases: LeaseTable) -> None:
        super().__init__(database, Template, "templates", "template", nullable=())
        self._leases = leases

    def by_key(self, key: str) -> Template | None:
        """The template that stands for ``key``."""
        return self._one("key = ?", key)

    def by_name(self, name: str) -> Template | None:
        """As by its id."""
        return self.get(name)

    def publish(self, new: Template) -> None:
        """Write the row. Raises ``already_exists`` if there is one for its key."""
        self.insert(new)

    def note_use(self, template_id: str, now: datetime) -> None:
        """A VM was started from it; of one that is gone by now, nothing is noted."""
        if found := self.get(template_id):
            self._database.execute(
                "UPDATE templates SET used_at = ?, uses = uses + 1 WHERE id = ?", (_text(now), found.id)
            )

    def delete(self, object_id: str) -> bool:
        """Remove a row. Raises ``conflict`` while somebody holds its directory, to make a VM from it."""
        deleted = False

        def take_away() -> None:
            nonlocal deleted
            deleted = super(TemplateTable, self).delete(object_id)

        if self._leases.unless_held(directory_key(object_id), take_away):
            return deleted
        raise BangerError(
            ErrorKind.CONFLICT, f'template "{object_id}" is in use', subject=object_id,
            cause="a VM is being made from it now", hint="wait for that: banger op list",
        )  # fmt: skip


class WishTable(Table[Wish]):
    """Rows of wishes."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, Wish, "template_wishes", "wish", nullable=())

    def by_name(self, name: str) -> Wish | None:
        """As by its id."""
        return self.get(name)

    def all(self) -> list[Wish]:
        """Every wish, the most frequent first."""
        return self._select("1 ORDER BY starts DESC, id")

    def put(self, wish: Wish) -> None:
        """Insert or replace, unless its image or kernel is gone by now."""
        with self._database.transaction():
            self._database.execute("DELETE FROM template_wishes WHERE id = ?", (wish.id,))
            self.insert(wish)

    def forget(self, before: datetime) -> None:
        """Remove those of which nobody was heard since."""
        self._database.execute("DELETE FROM template_wishes WHERE at < ?", (_text(before),))


def _text(moment: datetime) -> str:
    return clock.rfc3339(moment)
