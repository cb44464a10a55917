"""The networks of this host: where VMs are on a bridge, and who answers their DNS questions there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from loguru import logger

from banger.config import Config
from banger.core.errors import BangerError
from banger.core.ports import Handle
from banger.dns.service import DnsService
from banger.forwarding.publisher import Publisher
from banger.layout import Layout
from banger.network.namespace.place import NamespacePlace
from banger.network.place import HostPlace, Place
from banger.network.probe import available
from banger.network.resolver import Resolver, host_resolver
from banger.network.tap import TapNetwork, TapSettings


class Networks:
    """The networks ``user`` and, for whoever may make taps on the host's own network, ``tap``."""

    def __init__(self, installation_id: str, layout: Layout, config: Config, publisher: Publisher) -> None:
        """Nothing is made yet; :meth:`make` must follow."""
        self._id = installation_id
        self._layout = layout
        self._publisher = publisher
        self._settings = TapSettings(config.text("network.subnet"), config.text("network.ipv6") == "on", os.getuid())
        self._inside = NamespacePlace(installation_id, layout.run, self._forget_inside)
        self._inner_gateways: set[str] = set()
        self._dns: DnsService | None = None
        self.all: list[TapNetwork] = []

    def obstacle(self) -> str:
        """Why there is no network ``user`` here; empty if there is."""
        return self._inside.obstacle()

    def open_addresses(self, vm_id: str, addresses: Sequence[str], lifetime_s: int) -> None:
        """Let a guest reach what a name stands for; the network that it is not on does nothing."""
        for network in self.all:
            network.add_allowed(vm_id, addresses, lifetime_s)

    def make(self, handles: Callable[[], Sequence[Handle]], dns: DnsService) -> Sequence[TapNetwork]:
        """Make them. ``handles`` are the addresses in the ledger, ``dns`` answers guests."""

        def made(place: Place, settings: TapSettings, resolver: Callable[[IPv4Address], Resolver | None]) -> TapNetwork:
            return TapNetwork(self._id, place, handles, self._publisher, settings, resolver)

        self._dns = dns
        # In the namespace, the only user is the one whose it is, and his own number there is 0.
        inner = replace(self._settings, subnet="", vmm_uid=0)
        self.all.append(made(self._inside, inner, lambda gateway: self._inner_resolver(gateway, dns)))
        # Whoever may not make taps is spared loading what makes them; a VM that asks for one is told why by its start.
        if available()[0] or not os.getuid():
            place = HostPlace(self._layout.data / "network.json")
            self.all.append(made(place, self._settings, lambda gateway: _resolver(gateway, dns)))
        return self.all

    def _inner_resolver(self, gateway: IPv4Address, dns: DnsService) -> Resolver | None:
        """Banger's own, in the namespace, where the host's may not be."""
        try:
            dns.listen_on(str(gateway), make=self._inside.socket)
        except BangerError as error:
            logger.warning("guests have no resolver: {}", error)
            return None
        self._inner_gateways.add(str(gateway))
        return Resolver(None, follows_names=True)

    def _forget_inside(self) -> None:
        """The namespace is another one: what listens in the old one hears nobody."""
        while self._inner_gateways and self._dns is not None:
            self._dns.leave(self._inner_gateways.pop())


def _resolver(gateway: IPv4Address, dns: DnsService) -> Resolver | None:
    """Banger's own at the bridge's address; what the host asks if that cannot be had."""
    try:
        dns.listen_on(str(gateway))
    except BangerError as error:
        logger.warning("guests on taps ask the host's resolver, and names cannot be allowed: {}", error)
        return host_resolver(gateway)
    return Resolver(None, follows_names=True)
