"""JSON for standard output."""

from __future__ import annotations

import json
from typing import Any

from banger.core.plain_text import json_escaped
from banger.render.terminal import Terminal


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON and a newline; what standard output has no bytes for, or may steer a terminal, is escaped."""
    return json_escaped(json.dumps(value, indent=indent, ensure_ascii=not Terminal.stdout().unicode)) + "\n"
