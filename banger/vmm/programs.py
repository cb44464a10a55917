"""The VMMs that are on this host, for people: which release, whose it is, whether it works and is still supported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError
from banger.core.models import VmmProgram
from banger.core.ports import InstalledRelease
from banger.layout import Layout
from banger.vmm.firecracker import binary, installed
from banger.vmm.firecracker.releases import support_of
from banger.vmm.qemu.binary import find_binary


def all_programs(layout: Layout, config: Config) -> list[VmmProgram]:
    """Every one, those first that new starts of VMs take. What does not work is among them, with the reason."""
    return [*_qemu(), *_firecracker(layout, config)]


def check_installed(layout: Layout, program: VmmProgram) -> str:
    """What is wrong with the files of one that banger has installed, after reading all of them; empty for others."""
    release = installed.find_installed(layout, program.version) if program.origin == binary.INSTALLED else None
    return installed.check(release) if release is not None else ""


def _qemu() -> Iterator[VmmProgram]:
    try:
        found = find_binary()
    except BangerError as error:
        yield VmmProgram("qemu", "", "host", broken=str(error))
    else:
        number = re.search(r"version (\S+)", found.version)
        yield VmmProgram("qemu", number[1] if number else found.version, "host", found.path, is_default=True)


def _firecracker(layout: Layout, config: Config) -> Iterator[VmmProgram]:
    default, why_none = _default(layout, config)
    others = []
    for release in installed.installed(layout):
        program = _installed(release, default)
        if program.is_default:
            yield program
        else:
            others.append(program)
    if default is not None and default.origin != binary.INSTALLED:
        support = support_of(default.text, clock.now().date())
        yield VmmProgram(
            installed.NAME,
            default.text,
            default.origin,
            str(default.path),
            is_default=True,
            jail_problem=default.why_not_jailed,
            support=support.words,
            is_outdated=support.is_over,
        )
    elif default is None and why_none:
        yield VmmProgram(installed.NAME, "", "", broken=why_none)
    yield from others


def _default(layout: Layout, config: Config) -> tuple[binary.Binary | None, str]:
    """What a new start takes; or why that does not work, empty if there is simply none."""
    try:
        return binary.find_binary(layout, config), ""
    except BangerError as error:
        return None, str(error) if binary.is_wanted(layout, config) else ""


def _installed(release: InstalledRelease, default: binary.Binary | None) -> VmmProgram:
    path, record = release.directory / installed.VMM, release.record
    support = support_of(release.version, clock.now().date())
    broken, jail_problem = release.broken, ""
    if not broken:
        broken, jail_problem = _looked_at(path)
    return VmmProgram(
        installed.NAME,
        release.version,
        binary.INSTALLED,
        str(path),
        is_default=default is not None and default.path == path,
        jail_problem=jail_problem,
        support=support.words,
        is_outdated=support.is_over,
        broken=broken,
        source=record.source if record else "",
        digest=record.digest if record else "",
        size_bytes=record.size_bytes if record else 0,
        created_at=record.created_at if record else None,
    )


def _looked_at(path: Path) -> tuple[str, str]:
    """Why it does not work, and why its jailer cannot start it."""
    try:
        return "", binary.inspect(path, binary.INSTALLED).why_not_jailed
    except BangerError as error:
        return str(error), ""
