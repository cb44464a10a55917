"""Named places where a test makes the process die, to prove that a restart copes with a crash there.

``BANGER_CRASHPOINT=name`` ends the process at that place as ``kill -9`` would: no cleanup, no buffers flushed. The
names are found in the source itself, so that a new point is tested without anybody listing it.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

#: What ``kill -9`` leaves as a status in a shell.
EXIT_CODE = 137

_armed = os.environ.get("BANGER_CRASHPOINT", "")


def crashpoint(name: str) -> None:
    """Die here if this point is armed. ``name`` is a literal: ``noun.verb:where``."""
    if _armed and _armed == name:
        os._exit(EXIT_CODE)


def arm(name: str) -> None:
    """Arm a point in this process; for tests that fork."""
    global _armed  # noqa: PLW0603  # the one switch of this module
    _armed = name


def all_points(package: Path | None = None) -> list[str]:
    """Every name that is passed to :func:`crashpoint` anywhere in the package, sorted."""
    root = package or Path(__file__).parent.parent
    names: set[str] = set()
    for source in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crashpoint":
                argument = node.args[0]
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise TypeError(f"{source}:{node.lineno}: a crash point's name must be a literal")
                names.add(argument.value)
    return sorted(names)
