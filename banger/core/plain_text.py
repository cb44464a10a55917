"""Text of guests, images and registries, made harmless for terminals and logs. Pure.

What it takes away is what steers a terminal (ECMA-48: C0 and C1, among them the single character for CSI), ends a line
unseen, or makes text look like another one (the bidirectional controls of Unicode, see Unicode Technical Report 36).
"""

from __future__ import annotations

import codecs
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: Colours and the like (SGR) change nothing but the looks; serial consoles end lines with any number of returns.
_LOOKS = re.compile(r"\x1b\[[0-9;:]*m")
_LINE_END = re.compile(r"\r+\n")
#: What may be the beginning of one of them, at the end of a piece.
_UNFINISHED = re.compile(r"(?:\r{1,8}|\x1b(?:\[[0-9;:]{0,32})?)\Z")


def printable(value: object) -> str:
    """``value`` as one line that does nothing but be read."""
    return _CONTROL.sub(lambda match: " " if match[0] in "\n\t" else _escaped(match), str(value))


def printable_lines(text: str) -> str:
    """``text`` without colours and with its other control characters shown; its lines stay lines."""
    plain = _LOOKS.sub("", _LINE_END.sub("\n", text))
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else _escaped(match), plain)


class PrintableStream:
    """The same for text that arrives in pieces, of any encoding; what is no UTF-8 is shown as such."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, piece: bytes) -> str:
        """What can be shown by now."""
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return printable_lines(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What is left."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return printable_lines(text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def json_escaped(document: str) -> str:
    """A JSON document that means the same, with every such character that JSON itself lets pass escaped."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t\r" else f"\\u{ord(match[0]):04x}", document)
