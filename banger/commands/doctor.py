"""``banger doctor``."""

from __future__ import annotations

from typing import Annotated

from typer import Context, Option

from banger.commands.session import CliSession
from banger.core.codec import to_plain
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.core.plain_text import printable
from banger.doctor import Check, Status, diagnose
from banger.render.terminal import Terminal
from banger.render.views import OBJECT_COLUMNS

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red"}


def doctor(
    ctx: Context,
    *,
    leaks: Annotated[bool, Option("--leaks", help="List banger's objects on the host and their owners.")] = False,
    fix: Annotated[bool, Option("--fix", help="With --leaks: remove what has no owner.")] = False,
    boot: Annotated[bool, Option("--boot", help="Boot temporary VMs and check that they work.")] = False,
    image: Annotated[str, Option("--image", metavar="IMAGE", help="With --boot: the image to boot.")] = "",
    kernel: Annotated[str, Option("--kernel", metavar="KERNEL", help="With --boot: the kernel to boot.")] = "",
    network: Annotated[
        list[str] | None,
        Option("--network", metavar="KIND", help="With --boot: user, tap, slirp or none; may be repeated."),
    ] = None,
    reach: Annotated[
        str, Option("--reach", metavar="HOST:PORT", help="With --boot: what guests must reach if this host can.")
    ] = "",
) -> int:
    """Check whether this host can run VMs, and what to do if not."""
    session: CliSession = ctx.obj
    if fix and not leaks:
        raise BangerError(ErrorKind.USAGE, "--fix goes with --leaks", hint="banger doctor --leaks --fix")
    if boot and leaks:
        raise BangerError(ErrorKind.USAGE, "--boot and --leaks exclude each other")
    if boot:
        from banger.commands.checkup import check_up  # only for this question

        return check_up(session, image=image, kernel=kernel, networks=network or (), reach=reach)
    if image or kernel or network or reach:
        message = "--image, --kernel, --network and --reach go with --boot"
        raise BangerError(ErrorKind.USAGE, message, hint="banger doctor --boot")
    if leaks:
        return _leaks(session, fix=fix)
    terminal = Terminal.stdout()
    checks = []
    for check in diagnose(session.layout):
        checks.append(check)
        if not session.json:
            terminal.write(_lines(check, terminal))
    if session.json:
        session.show_document(to_plain(checks), "")
    failed = any(check.verdict is Status.FAILED for check in checks)
    return EXIT_CODES[ErrorKind.UNAVAILABLE] if failed else 0


def _leaks(session: CliSession, *, fix: bool) -> int:
    """What is on the host; exit code 1 if something of it is nobody's and stays."""
    if fix:
        session.long("POST", "/v1/system/reconcile", {"fix": True})
    found = session.client.get("/v1/system/objects")
    session.show_list(found, OBJECT_COLUMNS, key="key")
    left = [one for one in found if one["is_leak"]]
    if left:
        have = "has" if len(left) == 1 else "have"
        session.tell(f"{len(left)} of these {have} no owner: banger doctor --leaks --fix")
    return EXIT_CODES[ErrorKind.INTERNAL] if left else 0


def _lines(check: Check, terminal: Terminal) -> str:
    verdict = terminal.paint(f"{check.verdict.value:<8}", _COLOURS[check.verdict])
    line = f"{verdict} {check.name:<15} {printable(check.detail)}\n"
    if check.remedy and check.verdict is not Status.OK:
        line += f"{'':<24} {terminal.paint('hint:', 'cyan')} {printable(check.remedy)}\n"
    return line
