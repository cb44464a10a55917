"""Commands whose arguments end in another command line: ``banger run --cpus 2 debian ls -l``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand

#: Who names a program of the image means what follows the image for it, whatever it looks like.
_PROGRAM_OPTION = "--entrypoint"


class TrailingCommand(TyperCommand):
    """Own options end at ``--`` or behind the one positional argument; the rest is ``command``, verbatim.

    Right behind the positional argument, an option that is ours (or nearly) is still ours, and any other begins the
    command: it is for the image's entrypoint.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse our part only."""
        flags = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        flags |= set(self.get_help_option_names(ctx))
        valued = {name for param in self.params if not getattr(param, "is_flag", False) for name in param.opts}
        own, command = split_command(args, valued, flags)
        rest = super().parse_args(ctx, own)
        ctx.params["command"] = command
        return rest


def split_command(args: Sequence[str], valued: Collection[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Cut a command line into our part and the trailing command.

    Args:
        args: what was typed behind the verb.
        valued: our options that take a value, with their dashes.
        known: all our options, with their dashes.
    """
    seen_positional = strict = False
    i = 0
    while i < len(args):
        arg = args[i]
        if arg == "--":
            return list(args[:i]), list(args[i + 1 :])
        if arg.startswith("-") and arg != "-" and not (seen_positional and (strict or not _is_ours(arg, known))):
            strict = strict or arg.partition("=")[0] == _PROGRAM_OPTION
            i += 2 if _takes_next(arg, valued) else 1
            continue
        if seen_positional:
            return list(args[:i]), list(args[i:])
        seen_positional = True
        strict = strict and "--" not in args
        i += 1
    return list(args), []


def _is_ours(arg: str, known: Collection[str]) -> bool:
    """True for our options, and for what was probably meant as one."""
    if not arg.startswith("--"):
        return arg[:2] in known
    name = arg.partition("=")[0]
    return name in known or bool(get_close_matches(name, known, n=1, cutoff=0.8))


def _takes_next(arg: str, valued: Collection[str]) -> bool:
    """True if ``arg`` is an option whose value is the next argument: ``--name``, ``-e``, ``-te``; not ``-eK=V``."""
    if arg.startswith("--"):
        return arg in valued
    for i, letter in enumerate(arg[1:], start=1):
        if f"-{letter}" in valued:
            return i == len(arg) - 1
    return False
