"""The SQLite store, and the only place with SQL."""

from banger.store.store import Store

__all__ = ["Store"]
