"""What a capability adds to one start of a VM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from banger.core.ports.guest import Mount
from banger.core.ports.guest_network import GuestNetwork
from banger.core.ports.machine import Device
from banger.core.wire.port_forward import PortForward


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one capability adds, or several together.

    Attributes:
        devices: for the machine, besides the drives of the storage driver.
        mounts: for the guest: where it mounts drives that are among ``devices``.
        network: the addresses behind the network card.
        network_name: which network the VM is on, if it is not the one of its spec.
        network_reason: why it is not, in one line.
        files: path in the guest to content.
        address: where the host reaches what the guest publishes.
        ports: published ports, every host port chosen.
    """

    devices: Sequence[Device] = ()
    mounts: Sequence[Mount] = ()
    network: GuestNetwork | None = None
    network_name: str = ""
    network_reason: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    address: str = ""
    ports: tuple[PortForward, ...] = ()


def joined(contributions: Iterable[Contribution]) -> Contribution:
    """All of them as one. Of networks and addresses there is one; the first that gives it counts."""
    given = list(contributions)
    return Contribution(
        devices=tuple(device for one in given for device in one.devices),
        mounts=tuple(mount for one in given for mount in one.mounts),
        network=next((one.network for one in given if one.network), None),
        network_name=next((one.network_name for one in given if one.network_name), ""),
        network_reason=next((one.network_reason for one in given if one.network_reason), ""),
        files={path: content for one in given for path, content in one.files.items()},
        address=next((one.address for one in given if one.address), ""),
        ports=tuple(port for one in given for port in one.ports),
    )
