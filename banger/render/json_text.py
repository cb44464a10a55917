"""JSON for standard output."""

from __future__ import annotations

import json
from typing import Any

from banger.render.terminal import Terminal


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON and a newline; characters that standard output has no bytes for are escaped."""
    return json.dumps(value, indent=indent, ensure_ascii=not Terminal.stdout().unicode) + "\n"
