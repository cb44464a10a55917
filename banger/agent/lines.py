"""Words of a guest's answers that are lines of text. Pure; any of them may be nonsense."""

from __future__ import annotations

import re
from collections.abc import Sequence

from banger.agent.wire import WireError
from banger.core.codec import MOST
from banger.core.plain_text import printable

_MOST_WORD = 4096
_NUMBER = re.compile(r"[0-9]{1,20}\Z", re.ASCII)
_ESCAPE = re.compile(r"\\([0-3][0-7]{2})")


def numbers(words: Sequence[str], count: int) -> tuple[int, ...]:
    """The first ``count`` words as numbers that the API can carry. Raises :class:`WireError` if they are none."""
    if len(words) < count or not all(_NUMBER.match(word) for word in words[:count]):
        raise WireError("figures that are none")
    return tuple(min(int(word), MOST) for word in words[:count])


def word(words: Sequence[str]) -> str:
    """A name as a line that does nothing but be read, without the escapes that it has come in."""
    raw = words[0] if words else ""
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), raw[:_MOST_WORD])
    return printable(plain)
