"""``oras``, imported without checkers of formats that happen to be installed.

It imports ``jsonschema``, which looks for a checker of every format of JSON Schema when it is imported. None of them
is a dependency of ours and none is ever asked; the one for IRIs compiles a grammar, which takes longer than all else
that a pull has to import.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHECKERS = ("rfc3987_syntax", "rfc3986_validator", "isoduration", "webcolors")


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """In here, importing these modules fails, but for those that have been imported."""
    modules: dict[str, Any] = sys.modules  # a name whose value is None cannot be imported
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


with _absent(*_CHECKERS):
    from oras.provider import Registry

__all__ = ["Registry"]
