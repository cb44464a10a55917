"""The options that describe a VM, and the spec they become."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from typer import Argument, Option

from banger.config import Config
from banger.core.egress import EgressPolicy
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB, parse_duration, parse_size
from banger.layout import Layout

ImageArgument = Annotated[
    str, Argument(metavar="[IMAGE]", show_default=False, help="An image, a catalog name or a registry reference.")
]
Name = Annotated[str, Option("--name", metavar="NAME", help="Made up when not given.")]
Cpus = Annotated[int | None, Option("--cpus", min=1, metavar="N", help="Virtual CPUs.")]
Memory = Annotated[str, Option("--memory", "-m", metavar="SIZE", help="Memory: 512M, 2G; a bare number is MiB.")]
Disk = Annotated[str, Option("--disk", metavar="SIZE", help="Writable disk, sparse.")]
Kernel = Annotated[str, Option("--kernel", metavar="KERNEL", help="Kernel to boot.")]
Env = Annotated[list[str] | None, Option("--env", "-e", metavar="K[=V]", help="Environment; bare K takes yours.")]
User = Annotated[str, Option("--user", "-u", metavar="USER", help="User that runs the command.")]
Workdir = Annotated[str, Option("--workdir", "-w", metavar="DIR", help="Directory that the command starts in.")]
Publish = Annotated[
    list[str] | None, Option("--publish", "-p", metavar="[[ADDRESS:]HOST:]GUEST", help="Forward a TCP port.")
]
Init = Annotated[str, Option("--init", metavar="WHICH", help="Pid 1: auto, image (its own) or none (banger's).")]
Network = Annotated[str, Option("--network", metavar="KIND", help="user, tap or none.")]
Egress = Annotated[
    str, Option("--egress", metavar="POLICY", help="On a tap: open, public, none, allow=CIDR,…, allow-names=NAME,….")
]
Storage = Annotated[str, Option("--storage", metavar="DRIVER", help="How the disk is kept apart from the image.")]
Home = Annotated[
    str, Option("--home-disk", "--home", metavar="NAME", help="A disk of its own for /root, kept for the next VM.")
]
HomeSize = Annotated[str, Option("--home-size", metavar="SIZE", help="Size of a new home disk, or what it grows to.")]
Ttl = Annotated[str, Option("--ttl", metavar="TIME", help="Delete it so long after it was made: 30m, 8h.")]
Idle = Annotated[str, Option("--idle", metavar="TIME", help="Stop it when nobody has used it for so long.")]
Machine = Annotated[str, Option("--machine", metavar="TYPE", help="QEMU machine: microvm or q35.")]
Accelerator = Annotated[str, Option("--accelerator", metavar="WHICH", help="auto, kvm (or fail) or tcg (emulation).")]
Labels = Annotated[list[str] | None, Option("--label", metavar="K=V", help="Label to find it by.")]


def build_spec(
    layout: Layout,
    *,
    image: str,
    cpus: int | None,
    memory: str,
    disk: str,
    kernel: str,
    env: Sequence[str] | None,
    user: str,
    workdir: str,
    publish: Sequence[str] | None,
    init: str,
    network: str,
    machine: str,
    label: Sequence[str] | None,
    accelerator: str = "",
    egress: str = "",
    storage: str = "",
    home: str = "",
    home_size: str = "",
    ttl: str = "",
    idle: str = "",
    ephemeral: bool = False,
) -> dict[str, Any]:
    """A ``VmSpec`` in its JSON form; what was not given comes from the settings, or is left to the image.

    Raises:
        BangerError: ``usage`` for a value that is none.
    """
    config = Config.load(layout.config_file)
    return {
        "image": image or config.text("vm.image"),
        "kernel": kernel,
        "cpus": cpus if cpus is not None else config.chosen("vm.cpus"),
        "memory_mib": mebibytes(memory) if memory else config.chosen("vm.memory_mib"),
        "disk_mib": mebibytes(disk) if disk else config.chosen("vm.disk_mib"),
        "init": one_of("--init", init, ("auto", "image", "none")),
        "env": environment(env),
        "user": user,
        "workdir": workdir,
        "ports": [_port(text) for text in publish or ()],
        "network": one_of("--network", network or config.text("vm.network"), ("user", "tap", "none")),
        "egress": str(EgressPolicy.parse(egress or "open")),
        "storage": storage,
        "home": home,
        "home_mib": mebibytes(home_size) if home_size else 0,
        "machine": one_of("--machine", machine, ("", "microvm", "q35")),
        "accelerator": one_of("--accelerator", accelerator, ("", "auto", "kvm", "tcg")).replace("auto", ""),
        "ephemeral": ephemeral,
        "ttl_s": parse_duration(ttl) if ttl else 0.0,
        "idle_s": parse_duration(idle) if idle else 0.0,
        "labels": labels(label),
    }


def environment(variables: Sequence[str] | None, env: Mapping[str, str] | None = None) -> list[str]:
    """``K=V`` as typed; a bare ``K`` takes the value it has here, and is left out where it has none."""
    env = os.environ if env is None else env
    found = []
    for variable in variables or ():
        name, assigned, _ = variable.partition("=")
        if not name:
            message = f'"{variable}" is no environment variable'
            raise BangerError(ErrorKind.USAGE, message, subject=variable, hint="write --env NAME=VALUE")
        if assigned:
            found.append(variable)
        elif name in env:
            found.append(f"{name}={env[name]}")
    return found


def labels(pairs: Sequence[str] | None) -> dict[str, str]:
    """``K=V`` pairs as a mapping."""
    found = {}
    for pair in pairs or ():
        key, assigned, value = pair.partition("=")
        if not (key and assigned):
            raise BangerError(ErrorKind.USAGE, f'"{pair}" is no label', subject=pair, hint="write --label KEY=VALUE")
        found[key] = value
    return found


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """``value``, if it is one of ``choices``."""
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        raise BangerError(ErrorKind.USAGE, f'"{value}" is no value for {option}', subject=value, hint=f"use {known}")
    return value


def mebibytes(text: str) -> int:
    """A size as typed, in MiB; a bare number is MiB."""
    return parse_size(text, bare=MIB) // MIB


def _port(text: str) -> dict[str, Any]:
    from banger.core.codec import to_plain
    from banger.core.models import PortForward

    port: dict[str, Any] = to_plain(PortForward.parse(text))
    return port
