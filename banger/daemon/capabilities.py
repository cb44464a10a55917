"""The capabilities of this host: what VMs can have. A new one needs one line here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from loguru import logger

from banger.config import Config
from banger.core.errors import BangerError
from banger.core.ports import Capability
from banger.daemon.vm_names import VmNames
from banger.dns.model import DnsSettings
from banger.dns.service import DnsService
from banger.forwarding.forwarders import Forwarders
from banger.forwarding.host_ports import Taken
from banger.forwarding.publisher import Publisher, held_ports
from banger.host.ledger import Ledger
from banger.host.user_network import UserNetwork
from banger.layout import Layout
from banger.network.probe import available
from banger.network.resolver import Resolver, host_resolver
from banger.network.tap import TapNetwork, TapSettings
from banger.storage.home_disk import HomeDisk
from banger.store import Store


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities in the order in which a start prepares them, and the resolver that some of them need."""

    all: Sequence[Capability]
    homes: HomeDisk
    dns: DnsService


def make_capabilities(
    layout: Layout, config: Config, store: Store, ledger: Ledger, installation_id: str, forwarders: Forwarders
) -> Capabilities:
    """Make every capability that this daemon has the rights for. The resolver is made, not started."""

    def taken(besides: str) -> Taken:
        return held_ports(ledger.all(), {vm.id: vm.name for vm in store.vms.all()}, besides)

    publisher = Publisher(forwarders, taken)

    # Ports of the host come last on the way down, which is the other way round: taps give theirs back themselves.
    capabilities: list[Capability] = [UserNetwork(publisher)]
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
            TapNetwork(installation_id, layout.data / "network.json", ledger.all, publisher, settings, resolver)
        )
    homes = HomeDisk(layout, config)
    return Capabilities([*capabilities, *taps, homes], homes, dns)
