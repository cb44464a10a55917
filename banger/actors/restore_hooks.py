"""Hooks of an image, run in a guest that was started from a saved machine: what only the image can renew."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from banger.actors.guest_commands import run_to_end
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.identity import Renewal
from banger.core.ports import EntryKind, RunningGuest

HOOK_DIRECTORY = "/etc/banger/restore.d"
#: How long one hook may take; how many there may be, and how many entries their directory may have.
HOOK_LIMIT_S = 30.0
MOST_HOOKS = 100
_MOST_ENTRIES = 1000


class HookError(BangerError):
    """A hook that failed; ``path`` is its file in the guest."""

    def __init__(self, kind: ErrorKind, path: str, cause: str) -> None:
        hint = f"mend {path} in the VM that was saved, and save it again"
        super().__init__(kind, f'the hook "{path}" failed', subject=path, cause=cause, hint=hint)
        self.path = path


async def run_hooks(guest: RunningGuest, renewal: Renewal) -> None:
    """Run every program in :data:`HOOK_DIRECTORY` as root, one after the other, in the order of their names.

    Each has :data:`HOOK_LIMIT_S` seconds. Files that cannot be executed, begin with a dot or end with a tilde are none.

    Raises:
        HookError: of the first one that fails; the others do not run.
        BangerError: what the guest refuses.
    """
    for name in await _find(guest):
        await _run(guest, name, renewal)


async def _find(guest: RunningGuest) -> list[str]:
    found, seen = [], 0
    try:
        async with aclosing(guest.files.list(HOOK_DIRECTORY)) as entries:
            async for entry in entries:
                seen += 1
                is_program = entry.kind is EntryKind.FILE and bool(entry.mode & 0o111)
                is_link = entry.kind is EntryKind.LINK and entry.target != "/dev/null"  # which masks a hook
                if is_link or is_program:
                    found.append(entry.name)
                if seen > _MOST_ENTRIES:
                    break
    except BangerError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return []
        raise
    names = sorted(name for name in found if not name.startswith(".") and not name.endswith("~"))
    if seen > _MOST_ENTRIES or len(names) > MOST_HOOKS:
        raise BangerError(ErrorKind.UNAVAILABLE, f"more than {MOST_HOOKS} hooks", subject=HOOK_DIRECTORY)
    return names


async def _run(guest: RunningGuest, name: str, renewal: Renewal) -> None:
    path = f"{HOOK_DIRECTORY}/{name}"
    request = ExecRequest((path,), env=renewal.environment(), user="root", has_input=False)
    try:
        async with asyncio.timeout(HOOK_LIMIT_S):
            code, words = await run_to_end(await guest.exec(request))
    except TimeoutError:
        raise HookError(ErrorKind.TIMEOUT, path, f"it did not end within {HOOK_LIMIT_S:g} s") from None
    if code:
        raise HookError(ErrorKind.UNAVAILABLE, path, f"exit code {code}" + (f": {words}" if words else ""))
