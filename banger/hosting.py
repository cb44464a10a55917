"""What VMs can have on this host: every capability, made and joined. A new one is a line here and nothing elsewhere."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from loguru import logger

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Capability
from banger.dns.model import DnsSettings
from banger.dns.service import DnsService
from banger.forwarding.forwarders import Forwarders
from banger.forwarding.host_ports import Taken
from banger.forwarding.publisher import Publisher, held_ports
from banger.guest.boot import SSH_PORT
from banger.host.ledger import Ledger
from banger.host.user_network import UserNetwork
from banger.layout import Layout
from banger.network.probe import available
from banger.network.resolver import Resolver, host_resolver
from banger.network.tap import TapNetwork, TapSettings
from banger.storage.home_disk import HomeDisk
from banger.store import Store
from banger.vm_names import VmNames


@dataclass(frozen=True, slots=True)
class Hosting:
    """The capabilities in the order in which a start prepares them, and the resolver that some of them need."""

    capabilities: Sequence[Capability]
    homes: HomeDisk
    dns: DnsService


def make_hosting(layout: Layout, config: Config, store: Store, ledger: Ledger, installation_id: str) -> Hosting:
    """Make every capability that this daemon has the rights for. The resolver is made, not started."""

    def taken(besides: str) -> Taken:
        return held_ports(ledger.all(), {vm.id: vm.name for vm in store.vms.all()}, besides)

    publisher = Publisher(Forwarders(installation_id), taken)

    # Ports of the host come last on the way down, which is the other way round: taps give theirs back themselves.
    capabilities: list[Capability] = [UserNetwork(SSH_PORT, publisher)]
    taps: list[TapNetwork] = []

    def open_addresses(vm_id: str, addresses: Sequence[str], lifetime_s: int) -> None:
        for tap in taps:
            tap.add_allowed(vm_id, addresses, lifetime_s)

    dns = DnsService(DnsSettings.from_config(config), VmNames(store, ledger).world(open_addresses))

    def resolver(gateway: IPv4Address) -> Resolver | None:
        """Banger's own at the bridge's address; what the host asks if that cannot be had."""
        try:
            dns.listen_on(str(gateway))
        except BangerError as error:
            logger.warning("guests on taps ask the host's resolver, and names cannot be allowed: {}", error)
            return host_resolver(gateway)
        return Resolver(None, follows_names=True)

    # Whoever may not make taps is spared loading what makes them; a VM that asks for one is told why by its start.
    if available()[0] or not os.getuid():
        settings = TapSettings(config.text("network.subnet"), config.text("network.ipv6") == "on", os.getuid())
        taps.append(
            TapNetwork(
                installation_id, layout.data / "network.json", SSH_PORT, ledger.all, publisher, settings, resolver
            )
        )
    homes = HomeDisk(layout, config)
    return Hosting([*capabilities, *taps, homes], homes, dns)


def installation_id(layout: Layout) -> str:
    """Twelve hex digits that mark every host object of this installation; made at the first start.

    Raises:
        BangerError: ``unavailable`` if the file holds anything else: with another mark nothing of ours would be found.
    """
    file = layout.installation_id_file
    try:
        known = file.read_text(errors="replace").strip()
    except FileNotFoundError:
        known = secrets.token_hex(6)
        fresh = file.with_suffix(".new")
        with fresh.open("w") as out:
            out.write(f"{known}\n")
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    if not re.fullmatch("[0-9a-f]{12}", known):
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{file}" does not hold an installation\'s id',
            subject=str(file),
            cause=f'twelve hex digits are expected, "{known[:40]}" is there',
            hint="put the file back; the names of this installation's taps and devices carry the id",
        )
    return known
