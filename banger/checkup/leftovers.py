"""Comparing the host before and after a check-up: what its VMs left behind, as far as this user can see it.

The daemon's own list (``GET /v1/system/objects``) is one witness; the others are the kernel and the file system, since
a daemon that forgets something forgets it in its list too. Others may work on this host meanwhile: only what carries a
mark of ours counts as left behind.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from banger.client import Client
from banger.core.errors import BangerError
from banger.core.names import saver_marker, vmm_marker
from banger.layout import Layout
from banger.posix.files import text_or_empty
from banger.posix.programs import run_program

_SETTINGS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
_NFT_TIMEOUT_S = 10.0

#: Kind of thing to the things of that kind, a line each.
Look = Mapping[str, frozenset[str]]


def look(client: Client, layout: Layout) -> Look:
    """What is on the host now."""
    objects = client.get("/v1/system/objects")
    return {
        "object": frozenset(f"{one['kind']} {one['key']}" for one in objects if one["is_leak"]),
        "process": frozenset(_processes()),
        "interface": frozenset(name for _, name in socket.if_nameindex()),
        "packet filter": frozenset(_tables()),
        "loop device": frozenset(_loops(layout)),
        "mount": frozenset(_mounts(layout)),
        "directory": frozenset(
            str(path / name) for path in (layout.data / "vms", layout.run / "vms") for name in _names(path)
        ),
        "setting": frozenset(f"{name.replace('/', '.')} = {value}" for name, value in _settings()),
    }


def left_behind(before: Look, after: Look, vm_ids: Collection[str], installation_id: str, *, others: bool) -> list[str]:
    """What is new and ours, a line each.

    Args:
        before: what :func:`look` saw first.
        after: what it saw last.
        vm_ids: the VMs that are gone.
        installation_id: of the daemon.
        others: other VMs of this installation run, which share its bridge and rules.
    """
    from banger.network.names import bridge_name, table_name, tap_name  # noqa: PLC0415  # not at start-up

    marks = {*vm_ids, *map(vmm_marker, vm_ids), *(tap_name(installation_id, vm_id) for vm_id in vm_ids)}
    if not others:
        marks |= {bridge_name(installation_id), table_name(installation_id)}
    return [
        f"{kind} {one}"
        for kind in before
        if kind != "setting"
        for one in sorted(after[kind] - before[kind])
        if kind == "object" or any(mark in one for mark in marks)
    ]


def switched(before: Look, after: Look) -> list[str]:
    """Settings of the kernel that have another value than before."""
    return sorted(after["setting"] - before["setting"])


def count(seen: Look) -> int:
    """How many things were compared."""
    return sum(map(len, seen.values()))


def _processes() -> Iterable[str]:
    """Every VMM of banger's, and all that help to save one, by the marker in their command lines."""
    markers = vmm_marker("").encode(), saver_marker("").encode()
    for name in _names(Path("/proc")):
        if not name.isdigit():
            continue
        with suppress(OSError):  # it may have ended
            for word in Path("/proc", name, "cmdline").read_bytes().split(b"\0"):
                if word.startswith(markers):
                    yield f"{name} {word.decode(errors='replace').partition(',')[0]}"


def _tables() -> Iterable[str]:
    """The tables of nftables, which only root may list."""
    if os.geteuid() == 0:
        with suppress(OSError, BangerError):
            return run_program(["nft", "list", "tables"], timeout_s=_NFT_TIMEOUT_S).text.splitlines()
    return []


def _loops(layout: Layout) -> Iterable[str]:
    for name in _names(Path("/sys/block")):
        backing = text_or_empty(Path("/sys/block", name, "loop/backing_file")).strip()
        if backing.startswith(str(layout.data)):
            yield f"{name} {backing}"


def _mounts(layout: Layout) -> Iterable[str]:
    """Mount points below our directories (proc(5), mountinfo)."""
    for line in text_or_empty(Path("/proc/self/mountinfo")).splitlines():
        words = line.split()
        if len(words) > 4 and words[4].startswith((f"{layout.data}/", f"{layout.run}/")):
            yield words[4]


def _settings() -> Iterable[tuple[str, str]]:
    for name in _SETTINGS:
        if value := text_or_empty(Path("/proc/sys", name)).strip():
            yield name, value


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  # names are all that is wanted
    except OSError:
        return []
