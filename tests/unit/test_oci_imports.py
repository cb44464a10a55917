"""What the first pull of a daemon has to import before it asks its registry anything."""

from __future__ import annotations

import subprocess
import sys

#: Prints which of some modules the registry client has brought, and whether they can still be had afterwards.
_SCRIPT = """
import importlib.util, sys
from banger.oci import registry
names = ["rfc3987_syntax", "lark", "arrow"]
print([name for name in names if name in sys.modules])
print([name for name in names if name in sys.modules and sys.modules[name] is None])
"""


def test_registry_client_imports_no_checkers_of_formats_although_they_are_installed() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["[]", "[]"]
