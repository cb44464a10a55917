"""The options that describe a VM, and the spec they become.

They are the fields of :class:`VmWish`; a verb that makes a VM takes them all by :func:`takes_wish`.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from typer import Argument, Option

from banger.commands.environment import environment
from banger.config import Config
from banger.core.egress import EgressPolicy
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB, parse_duration, parse_size, whole_number
from banger.core.vmm_names import ACCELERATORS, MACHINES
from banger.layout import Layout

_T = TypeVar("_T")
#: 4 MiB in bytes, and 4 TiB in MiB.
_SURELY_BYTES = 4 << 20
_INIT_HINT = "; every VM has an init, so that --init alone is not needed"
_NETWORK_HINT = "; user reaches what this host reaches, tap gives an address of its own"

ImageArgument = Annotated[
    str | None,
    Argument(metavar="[IMAGE]", show_default=False, help="An image, a catalog name or a registry reference."),
]
Name = Annotated[str, Option("--name", metavar="NAME", help="Made up when not given.")]
Cpus = Annotated[str | None, Option("--cpus", metavar="N", help="Virtual CPUs.")]
Memory = Annotated[str, Option("--memory", "-m", metavar="SIZE", help="Memory: 512M, 2G; a bare number is MiB.")]
Disk = Annotated[str, Option("--disk", metavar="SIZE", help="Writable disk, sparse.")]
Kernel = Annotated[str, Option("--kernel", metavar="KERNEL", help="Kernel to boot.")]
Env = Annotated[list[str] | None, Option("--env", "-e", metavar="K[=V]", help="Environment; bare K takes yours.")]
EnvFiles = Annotated[
    list[Path] | None, Option("--env-file", metavar="FILE", help="Environment, K=V or K a line; --env counts for more.")
]
Hostname = Annotated[str, Option("--hostname", metavar="NAME", help="Its name for itself; otherwise --name.")]
Entrypoint = Annotated[
    str | None,
    Option("--entrypoint", metavar="PROGRAM", help="In place of the image's entrypoint and command; '' for none."),
]
Pull = Annotated[str, Option("--pull", metavar="WHEN", help="Fetch the image: always, missing or never.")]
Privileged = Annotated[bool, Option("--privileged", hidden=True, help="Taken: root in a VM has every right.")]
User = Annotated[str, Option("--user", "-u", metavar="USER", help="User that runs the command.")]
Workdir = Annotated[str, Option("--workdir", "-w", metavar="DIR", help="Directory that the command starts in.")]
Publish = Annotated[
    list[str] | None,
    Option("--publish", "-p", metavar="[[ADDRESS:]HOST:]GUEST[/udp]", help="Forward a port, or a range of them."),
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
Restart = Annotated[
    str, Option("--restart", metavar="POLICY", help="Start it again: no, on-failure[:N], always or unless-stopped.")
]
OnReboot = Annotated[
    str, Option("--on-reboot", metavar="WHAT", help="When the guest reboots: restart the machine, or stop.")
]
Machine = Annotated[str, Option("--machine", metavar="TYPE", help="QEMU machine: microvm or q35.")]
Accelerator = Annotated[str, Option("--accelerator", metavar="WHICH", help="auto, kvm (or fail) or tcg (emulation).")]
Labels = Annotated[list[str] | None, Option("--label", "-l", metavar="K[=V]", help="Label to find it by.")]


@dataclass(frozen=True, slots=True)
class VmWish:
    """The options that describe a VM, as they were typed."""

    name: Name = ""
    cpus: Cpus = None
    memory: Memory = ""
    disk: Disk = ""
    kernel: Kernel = ""
    env: Env = None
    env_file: EnvFiles = None
    user: User = ""
    workdir: Workdir = ""
    hostname: Hostname = ""
    publish: Publish = None
    init: Init = "auto"
    network: Network = ""
    machine: Machine = ""
    accelerator: Accelerator = ""
    label: Labels = None
    egress: Egress = ""
    storage: Storage = ""
    home: Home = ""
    home_size: HomeSize = ""
    ttl: Ttl = ""
    idle: Idle = ""
    restart: Restart = "no"
    on_reboot: OnReboot = "restart"
    pull: Pull = "missing"
    privileged: Privileged = False

    def spec(self, layout: Layout, image: str | None, *, ephemeral: bool = False) -> dict[str, Any]:
        """A ``VmSpec`` in its JSON form; what was not given comes from the settings, or is left to the image.

        Raises:
            BangerError: ``usage`` for a value that is none.
        """
        if image == "":
            hint = "see whether a variable of your script is set"
            raise BangerError(ErrorKind.USAGE, "the image's name is empty", hint=hint)
        config = Config.load(layout.config_file)
        return {
            "image": image or config.text("vm.image"),
            "kernel": self.kernel,
            "cpus": cpu_count(self.cpus) if self.cpus is not None else config.chosen("vm.cpus"),
            "memory_mib": mebibytes(self.memory) if self.memory else config.chosen("vm.memory_mib"),
            "disk_mib": mebibytes(self.disk) if self.disk else config.chosen("vm.disk_mib"),
            "init": one_of("--init", self.init, ("auto", "image", "none"), _INIT_HINT),
            "env": environment(self.env, self.env_file),
            "user": self.user,
            "workdir": self.workdir,
            "hostname": self.hostname,
            "ports": _ports(self.publish or ()),
            "network": one_of(
                "--network", self.network or config.text("vm.network"), ("user", "tap", "none"), _NETWORK_HINT
            ),
            "egress": str(EgressPolicy.parse(self.egress or "open")),
            "storage": self.storage,
            "home": self.home,
            "home_mib": mebibytes(self.home_size) if self.home_size else 0,
            "machine": one_of("--machine", self.machine, ("", *MACHINES)),
            "accelerator": one_of("--accelerator", self.accelerator, ("", "auto", *ACCELERATORS)).replace("auto", ""),
            "ephemeral": ephemeral,
            "ttl_s": parse_duration(self.ttl) if self.ttl else 0.0,
            "idle_s": parse_duration(self.idle) if self.idle else 0.0,
            "restart": self.restart,
            "on_reboot": one_of("--on-reboot", self.on_reboot, ("restart", "stop")),
            "labels": labels(self.label),
        }


def takes_wish(verb: Callable[..., _T]) -> Callable[..., _T]:
    """Let a verb take the options of :class:`VmWish`, and hand them over as its one parameter ``wish``."""
    own = inspect.signature(verb, eval_str=True)
    hints = get_type_hints(VmWish, include_extras=True)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(VmWish)
    ]

    @wraps(verb)
    def with_wish(*args: Any, **given: Any) -> _T:
        wish = VmWish(**{option.name: given.pop(option.name) for option in options})
        return verb(*args, wish=wish, **given)

    before = [param for param in own.parameters.values() if param.kind is not inspect.Parameter.KEYWORD_ONLY]
    after = [param for name, param in own.parameters.items() if param not in before and name != "wish"]
    with_wish.__signature__ = own.replace(parameters=[*before, *options, *after])  # type: ignore[attr-defined]
    return with_wish


def entrypoint_of(text: str | None) -> list[str] | None:
    """``--entrypoint`` as typed: a program, a JSON list of words (as Podman takes it), or empty for none at all."""
    if text is None or not text.strip():
        return None if text is None else []
    if not text.startswith("["):
        return [text]
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        message = f'"{text}" is no list of words'
        raise BangerError(ErrorKind.USAGE, message, subject=text, hint="""write --entrypoint '["sh", "-c"]'""")
    return words


def cpu_count(text: str) -> int:
    """A number of virtual CPUs as typed."""
    if re.fullmatch(r"0*[1-9][0-9]*", text):
        return int(text)
    cause, whole = "", "2"
    if re.fullmatch(r"[0-9]*\.[0-9]+", text):
        cause, whole = "a VM has whole CPUs", str(math.ceil(float(text)) or 1)
    message = f'"{text}" is not a number of CPUs'
    raise BangerError(ErrorKind.USAGE, message, subject=text, cause=cause, hint=f"write --cpus {whole}")


def labels(pairs: Sequence[str] | None) -> dict[str, str]:
    """``K=V`` pairs as a mapping; a bare ``K`` has an empty value."""
    found = {}
    for pair in pairs or ():
        key, _, value = pair.partition("=")
        if not key:
            raise BangerError(ErrorKind.USAGE, f'"{pair}" is no label', subject=pair, hint="write --label KEY=VALUE")
        found[key] = value
    return found


def one_of(option: str, value: str, choices: Sequence[str], more: str = "") -> str:
    """``value``, if it is one of ``choices``; the hint of an error names them, and says ``more``."""
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        hint = f"use {known}{more}"
        raise BangerError(ErrorKind.USAGE, f'"{value}" is no value for {option}', subject=value, hint=hint)
    return value


def mebibytes(text: str) -> int:
    """A size as typed, in MiB; a bare number is MiB, unless it can only have been meant as bytes."""
    number = whole_number(text.strip())
    if number is not None and number >= _SURELY_BYTES:
        message = f'"{text}" MiB is more than any host has'
        cause, hint = "a number without a unit is MiB", f"write {number // MIB}M"
        raise BangerError(ErrorKind.USAGE, message, subject=text, cause=cause, hint=hint)
    return parse_size(text, bare=MIB) // MIB


def _ports(texts: Sequence[str]) -> list[dict[str, Any]]:
    if not texts:
        return []
    from banger.core.codec import to_plain
    from banger.core.publishing import parse_publish

    ports: list[dict[str, Any]] = to_plain(parse_publish(texts))
    return ports
