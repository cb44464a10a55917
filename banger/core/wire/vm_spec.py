"""The spec of a VM: every field once, with its meaning, its option and its limits.

A new field is added here and used where it takes effect; the command line, the SDK, the API and the documentation have
it then (CONTRIBUTING.md, "Adding a field").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypedDict

from banger.core.egress import EgressPolicy
from banger.core.network_names import NETWORKS
from banger.core.publishing import parse_publish
from banger.core.units import LONGEST_S, parse_duration
from banger.core.vmm_names import ACCELERATORS, AUTO, DRIVERS, MACHINES
from banger.core.wire import reading, sizes
from banger.core.wire.facts import FACTS, Facts, described, facts_of
from banger.core.wire.port_forward import PortForward

_HUNDRED_YEARS = f"{LONGEST_S:.0f} (a hundred years)"


class InitChoice(StrEnum):
    """Which process is pid 1 of the guest once the root file system is in place."""

    AUTO = "auto"
    IMAGE = "image"
    NONE = "none"


def _egress(text: str) -> str:
    return str(EgressPolicy.parse(text))


def _automatic(text: str) -> str:
    return "" if text == AUTO else text


@dataclass(frozen=True, slots=True)
class VmSpec:
    """What the user wished for. Never changed by what happens on the host."""

    image: str = field(
        metadata={
            FACTS: Facts(
                "An image, a catalog name or a registry reference.",
                setting="vm.image",
                detail="As requested; the VM's `image_id` is what it resolved to.",
            )
        }
    )
    kernel: str = described(
        "", Facts("Kernel to boot.", ("--kernel",), "KERNEL", "Empty: the image's own, or else the default kernel.")
    )
    cpus: int = described(0, sizes.CPUS)
    memory_mib: int = described(0, sizes.MEMORY_MIB)
    disk_mib: int = described(0, sizes.DISK_MIB)
    env: tuple[str, ...] = described(
        (),
        Facts(
            "Set an environment variable; K alone takes your value.",
            ("--env", "-e"),
            "K[=V]",
            "`NAME=VALUE`, for every process.",
        ),
    )
    user: str = described("", Facts("User to run the command as.", ("--user", "-u"), "USER", "Empty: the image's own."))
    workdir: str = described(
        "", Facts("Working directory of the command.", ("--workdir", "-w"), "DIR", "Empty: the image's own.")
    )
    hostname: str = described(
        "",
        Facts(
            "Host name in the guest; by default, --name.",
            ("--hostname",),
            "NAME",
            "Empty: the VM's name, which is also what others resolve.",
        ),
    )
    entrypoint: tuple[str, ...] | None = described(
        None,
        Facts(
            "Override the image's entrypoint and command; '' for none.",
            ("--entrypoint",),
            "PROGRAM",
            "For the run that creates the VM. null: the image's, empty: none.",
            read=reading.entrypoint,
            is_blank_a_value=True,
            is_of_runs=True,
        ),
    )
    command: tuple[str, ...] | None = described(
        None,
        Facts(
            "Command of a detached run.",
            detail="Started at every boot, after the entrypoint; empty: the image's own, null: none.",
        ),
    )
    ports: tuple[PortForward, ...] = described(
        (),
        Facts(
            "Publish a port or a range of ports.",
            ("--publish", "-p"),
            "[[ADDRESS:]HOST:]GUEST[/udp]",
            read=parse_publish,
        ),
    )
    init: InitChoice = described(
        InitChoice.AUTO,
        Facts(
            "PID 1: auto, image (its own) or none (banger's).",
            ("--init",),
            "WHICH",
            choices=tuple(InitChoice),
            choices_hint="; every VM has an init, so that --init alone is not needed",
            is_blank_a_value=True,
        ),
    )
    network: str = described(
        "user",
        Facts(
            "Network: user, tap, slirp or none.",
            ("--network",),
            "KIND",
            choices=NETWORKS,
            choices_hint="; user needs no privileges, tap is on this host's own network, slirp confines nothing",
            setting="vm.network",
        ),
    )
    egress: str = described(
        "public",
        Facts(
            "Egress policy: public, open, none, allow=CIDR,…, allow-names=NAME,….",
            ("--egress",),
            "POLICY",
            read=_egress,
            setting="network.egress",
        ),
    )
    storage: str = described(
        "",
        Facts(
            "Storage driver of the disk.",
            ("--storage",),
            "DRIVER",
            "Empty: the configured driver.",
            offers=("overlay", "reflink", "dm-snapshot", "copy"),
        ),
    )
    home: str = described(
        "",
        Facts(
            "Persistent disk for /root, kept for the next VM.",
            ("--home-disk", "--home"),
            "NAME",
            "Created if it does not exist; empty: no home disk.",
            title="home",
        ),
    )
    home_mib: int = described(
        0,
        Facts(
            "Size of the home disk; an existing one is grown.",
            ("--home-size",),
            "SIZE",
            "0: the configured size, for a new one.",
            read=reading.mebibytes,
            most=sizes.MOST_DISK_MIB,
            most_words=sizes.DISK_MIB.most_words,
        ),
    )
    vmm: str = described(
        "",
        Facts(
            "VMM: auto, qemu or firecracker.",
            ("--vmm",),
            "DRIVER",
            "Empty: the setting `vmm.driver`, by default chosen automatically.",
            read=_automatic,
            choices=("", *DRIVERS),
            offers=(AUTO,),
        ),
    )
    machine: str = described(
        "",
        Facts(
            "QEMU machine: microvm or q35.",
            ("--machine",),
            "TYPE",
            "Empty: the configured one.",
            choices=("", *MACHINES),
        ),
    )
    accelerator: str = described(
        "",
        Facts(
            "auto, kvm (required) or tcg (emulation).",
            ("--accelerator",),
            "WHICH",
            "Empty: the setting, by default chosen automatically.",
            read=_automatic,
            choices=("", *ACCELERATORS),
            offers=(AUTO,),
        ),
    )
    cold: bool = described(
        default=False,
        facts=Facts(
            "Boot it, even if banger has a template.",
            ("--cold",),
            detail="Otherwise its first start may go on from a machine of the same kind that has booted already.",
        ),
    )
    ephemeral: bool = described(
        default=False, facts=Facts("Delete the VM when its run session ends, or when it stops by itself.")
    )
    ttl_s: float = described(
        0.0,
        Facts(
            "Delete the VM this long after its creation: 30m, 8h.",
            ("--ttl",),
            "TIME",
            "Seconds; 0: never.",
            read=parse_duration,
            most=LONGEST_S,
            most_words=_HUNDRED_YEARS,
        ),
    )
    idle_s: float = described(
        0.0,
        Facts(
            "Stop the VM when it has not been used for this long.",
            ("--idle",),
            "TIME",
            "Seconds; 0: never.",
            read=parse_duration,
            most=LONGEST_S,
            most_words=_HUNDRED_YEARS,
        ),
    )
    idle_suspend_s: float = described(
        0.0,
        Facts(
            "Suspend the VM to disk when it has not been used for this long.",
            ("--idle-suspend",),
            "TIME",
            "Seconds; 0: never. It wakes when it is used.",
            read=parse_duration,
            most=LONGEST_S,
            most_words=_HUNDRED_YEARS,
            title="sleeps idle",
        ),
    )
    restart: str = described(
        "no",
        Facts(
            "Restart policy: no, on-failure[:N], always or unless-stopped.",
            ("--restart",),
            "POLICY",
            is_blank_a_value=True,
            offers=("no", "on-failure", "always", "unless-stopped"),
        ),
    )
    on_reboot: str = described(
        "restart",
        Facts(
            "When the guest reboots: restart or stop.",
            ("--on-reboot",),
            "WHAT",
            choices=("restart", "stop"),
            is_blank_a_value=True,
        ),
    )
    stop_timeout_s: float | None = described(
        None,
        Facts(
            "Time for a guest to power off before it is killed.",
            ("--stop-timeout",),
            "TIME",
            "Seconds; null: the setting `vm.stop_timeout_s`. `vm stop --timeout` takes precedence.",
            read=parse_duration,
            most=LONGEST_S,
            most_words=_HUNDRED_YEARS,
            title="stops within",
        ),
    )
    labels: Mapping[str, str] = field(
        default_factory=dict,
        metadata={FACTS: Facts("Add a label.", ("--label", "-l"), "K[=V]", read=reading.labels)},
    )


class SpecOptions(TypedDict, total=False):
    """The same as arguments of the SDK; the settings decide what is left out. Sizes in MiB, times in seconds."""

    kernel: str
    cpus: int
    memory_mib: int
    disk_mib: int
    env: Mapping[str, str]
    user: str
    workdir: str
    hostname: str
    entrypoint: Sequence[str] | None
    command: Sequence[str] | None
    ports: Sequence[PortForward]
    init: Literal["auto", "image", "none"]
    network: Literal["user", "tap", "slirp", "none"]
    egress: str
    storage: str
    home: str
    home_mib: int
    vmm: Literal["", "qemu", "firecracker"]
    machine: Literal["", "microvm", "q35"]
    accelerator: Literal["", "kvm", "tcg"]
    cold: bool
    ttl_s: float
    idle_s: float
    idle_suspend_s: float
    restart: str
    on_reboot: Literal["restart", "stop"]
    stop_timeout_s: float | None
    labels: Mapping[str, str]


def from_settings(chosen: Callable[[str], Any]) -> dict[str, Any]:
    """The fields that the settings decide where nothing is given.

    Args:
        chosen: the value of a key that somebody set, or None.
    """
    values = {name: chosen(one.setting) for name, one in facts_of(VmSpec).items() if one.setting}
    return {name: value for name, value in values.items() if value is not None}
