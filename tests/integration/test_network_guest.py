"""A real guest on a tap: QEMU, the Debian kernel and banger's init, in a host that is a network namespace."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.core.ports import TapNic
from banger.core.wire.port_forward import PortForward
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from banger.network.resolver import Resolver
from tests.support.netlab import HOST, HOST6, OTHER_SERVER, SERVER, SERVER6, Lab, make_vm, needs_taps
from tests.support.qemu_boot import (
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    make_ssh_key,
    needs_qemu,
    overlay_disks,
    wait_until_ready,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.root, needs_qemu, needs_taps]


def test_real_guest_on_a_tap_reaches_what_it_may_and_is_reached(lab: Lab, tmp_path: Path) -> None:
    disks = overlay_disks(tmp_path, busybox_tree(tmp_path / "tree", "sh cat nc ip sleep"), 64)
    lab.resolver = Resolver(IPv4Address("127.0.0.1"), 5353)
    lab.servers.tcp(lab.host, "0.0.0.0", 9000)
    lab.host.run("ip link set up0 mtu 1420")
    given = lab.prepare(make_vm(1, egress=f"allow={SERVER},{SERVER6}", ports=(PortForward(80, 8080),)))
    (nic,) = given.devices
    assert isinstance(nic, TapNic)
    boot = LinuxGuestBoot(Layout(tmp_path, tmp_path, tmp_path, tmp_path / "cache"))
    config = guest_config(make_ssh_key(tmp_path), network=given.network)
    kernel = debian_kernel()
    with lab.host.entered(), machine(boot, kernel, disks, tmp_path, config, nic=nic) as guest:
        wait_until_ready(guest)
        assert guest.run("nc", "-w", "5", SERVER, "80").stdout == HOST
        assert guest.run("nc", "-w", "5", SERVER6, "80").stdout == HOST6
        assert guest.run("nc", "-w", "5", OTHER_SERVER, "80").returncode == 1
        assert guest.run("nc", "-w", "5", given.network.gateway, "9000").returncode == 1  # type: ignore[union-attr]
        assert "mtu 1420" in guest.run("ip", "link", "show", "eth0").stdout
        assert given.network
        assert given.network.gateway in guest.run("cat", "/etc/resolv.conf").stdout
        guest.run("sh", "-c", "nc -l -p 80 -e cat /etc/hostname </dev/null >/dev/null 2>&1 &")

        def answer() -> str:
            try:
                return lab.host.fetch("127.0.0.1", 8080)
            except OSError:  # it does not listen yet
                return ""

        assert eventually(answer) == "guest-1\n"
