"""The base of all tables of named objects; images, kernels and VMs add their own queries."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from banger.core import lookup
from banger.core.errors import BangerError, ErrorKind
from banger.store.database import Database, IntegrityError
from banger.store.rows import columns_of, from_row, to_row


class Stored(Protocol):
    """A dataclass with an id and a name."""

    @property
    def id(self) -> str:
        """Primary key."""
        ...

    @property
    def name(self) -> str:
        """Unique name."""
        ...


T = TypeVar("T", bound=Stored)


class Table(Generic[T]):
    """Rows of one dataclass. Every method is one statement or one transaction; all threads may call it."""

    def __init__(self, database: Database, cls: type[T], table: str, noun: str, nullable: tuple[str, ...]) -> None:
        self._database = database
        self._cls = cls
        self._table = table
        self._noun = noun
        self._nullable = nullable
        self._columns = ", ".join(columns_of(cls))

    def all(self) -> list[T]:
        """Every object, oldest first."""
        return self._select("1 ORDER BY created_at, id")

    def get(self, object_id: str) -> T | None:
        """The object with exactly this id."""
        return self._one("id = ?", object_id)

    def by_name(self, name: str) -> T | None:
        """The object with exactly this name."""
        return self._one("name = ?", name)

    def find(self, query: str) -> T:
        """The object addressed by name, id or unique prefix; see :func:`banger.core.lookup.find` for errors."""
        exact = self._select("name = ? OR id = ?", query, query) if query else []
        return exact[0] if len(exact) == 1 else lookup.find(query, self.all(), self._noun)

    def insert(self, value: T) -> None:
        """Add a row. Raises ``already_exists`` if the name is taken."""
        row = to_row(value, self._nullable)
        columns = ", ".join(row)
        marks = ", ".join("?" * len(row))
        try:
            self._database.execute(f"INSERT INTO {self._table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608  # our own names
        except IntegrityError as error:
            raise self._refused(value, error) from error

    def update(self, value: T) -> None:
        """Write all columns of an existing row. Raises ``not_found`` if it is gone."""
        row = to_row(value, self._nullable)
        assignments = ", ".join(f"{column} = ?" for column in row)
        try:
            changed = self._database.execute(
                f"UPDATE {self._table} SET {assignments} WHERE id = ?",  # noqa: S608  # our own names
                [*row.values(), value.id],
            )
        except IntegrityError as error:
            raise self._refused(value, error) from error
        if not changed:
            raise lookup.not_found(value.name or value.id, self._noun, [])

    def delete(self, object_id: str) -> bool:
        """Remove a row; False if it was not there. Raises ``conflict`` while something refers to it."""
        try:
            return bool(self._database.execute(f"DELETE FROM {self._table} WHERE id = ?", [object_id]))  # noqa: S608  # our own names
        except IntegrityError as error:
            raise BangerError(
                ErrorKind.CONFLICT, f'{self._noun} "{object_id}" is in use', subject=object_id, cause=str(error)
            ) from error

    def _refused(self, value: T, error: Exception) -> BangerError:
        if "FOREIGN KEY" in str(error):
            return BangerError(
                ErrorKind.CONFLICT,
                f'{self._noun} "{value.name}" refers to something that was deleted meanwhile',
                subject=value.name,
                hint="try again",
            )
        return BangerError(
            ErrorKind.ALREADY_EXISTS,
            f'{self._noun} "{value.name}" already exists',
            subject=value.name,
            hint=f"banger {self._noun.lower()} show {value.name}",
        )

    def _one(self, where: str, *parameters: Any) -> T | None:
        return next(iter(self._select(where, *parameters)), None)

    def _select(self, where: str, *parameters: Any) -> list[T]:
        rows = self._database.select(f"SELECT {self._columns} FROM {self._table} WHERE {where}", parameters)  # noqa: S608  # our own names
        return [from_row(self._cls, row) for row in rows]
