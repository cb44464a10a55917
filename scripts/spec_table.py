"""The table of what a VM is made with in docs/cli.md, from the fields of its spec. Prints it; a test compares."""

from __future__ import annotations

from banger.core.wire.facts import facts_of
from banger.core.wire.vm_spec import VmSpec


def rows() -> list[str]:
    """One Markdown table row per field."""
    return [
        f"| {_flags(about.flags, about.metavar)} | `{name}` | {_cell(f'{about.help} {about.detail}'.strip())} |"
        for name, about in facts_of(VmSpec).items()
    ]


def _flags(flags: tuple[str, ...], metavar: str) -> str:
    return " ".join(f"`{word}`" for word in (*flags, metavar) if word and flags)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print("\n".join(rows()))
