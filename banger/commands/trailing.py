"""Commands that end in somebody else's command line: ``banger run --cpus 2 debian ls -l``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperCommand


class TrailingCommand(TyperCommand):
    """Own options end at ``--`` or behind the one positional argument; the rest is ``command``, verbatim."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse our part only."""
        valued = {name for param in self.params if not getattr(param, "is_flag", False) for name in param.opts}
        own, command = split_command(args, valued)
        rest = super().parse_args(ctx, own)
        ctx.params["command"] = command
        return rest


def split_command(args: Sequence[str], valued: Collection[str]) -> tuple[list[str], list[str]]:
    """Cut a command line into our part and the trailing command.

    Args:
        args: what was typed behind the verb.
        valued: our options that take a value, with their dashes.
    """
    seen_positional = False
    i = 0
    while i < len(args):
        arg = args[i]
        if arg == "--":
            return list(args[:i]), list(args[i + 1 :])
        if arg.startswith("-") and arg != "-":
            i += 2 if _takes_next(arg, valued) else 1
            continue
        if seen_positional:
            return list(args[:i]), list(args[i:])
        seen_positional = True
        i += 1
    return list(args), []


def _takes_next(arg: str, valued: Collection[str]) -> bool:
    """True if ``arg`` is an option whose value is the next argument: ``--name``, ``-e``, ``-te``; not ``-eK=V``."""
    if arg.startswith("--"):
        return arg in valued
    for i, letter in enumerate(arg[1:], start=1):
        if f"-{letter}" in valued:
            return i == len(arg) - 1
    return False
