"""One JSON document a line (https://github.com/ndjson/ndjson-spec)."""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "application/x-ndjson"


def line(value: Any) -> bytes:
    """``value`` as one line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
