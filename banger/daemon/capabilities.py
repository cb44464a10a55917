"""The capabilities of this host: what VMs can have. A new one needs one line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from banger.config import Config
from banger.core.ports import Capability
from banger.daemon.networks import Networks
from banger.daemon.vm_names import VmNames
from banger.dns.model import DnsSettings
from banger.dns.service import DnsService
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders
from banger.forwarding.host_ports import Taken
from banger.forwarding.publisher import PORT_KIND, Publisher, held_ports
from banger.host.ledger import Ledger
from banger.host.user_network import UserNetwork
from banger.layout import Layout
from banger.network.guests import ADDRESS_KIND
from banger.storage.home_disk import HomeDisk
from banger.store import Store


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities in the order in which a start prepares them, and the resolver that some of them need."""

    all: Sequence[Capability]
    homes: HomeDisk
    dns: DnsService
    publisher: Publisher


def make_capabilities(
    layout: Layout,
    config: Config,
    store: Store,
    ledger: Ledger,
    installation_id: str,
    forwarders: Forwarders,
    doorbells: Doorbells,
) -> Capabilities:
    """Make every capability that this daemon has the rights for. The resolver is made, not started."""

    def taken(besides: str) -> Taken:
        return held_ports(ledger.all(PORT_KIND), {vm.id: vm.name for vm in store.vms.all()}, besides)

    publisher = Publisher(forwarders, taken, doorbells)
    networks = Networks(installation_id, layout, config, publisher)
    dns = DnsService(DnsSettings.from_config(config), VmNames(store, ledger).world(networks.open_addresses))
    # Ports of the host come last on the way down, which is the other way round: taps give theirs back themselves.
    taps = networks.make(partial(ledger.all, ADDRESS_KIND), dns)
    capabilities: list[Capability] = [UserNetwork(publisher, networks.obstacle), *taps]
    homes = HomeDisk(layout, config)
    return Capabilities([*capabilities, homes], homes, dns, publisher)
