"""A small world beyond the test host, in a network namespace of it: what its VMs reach of it, and what not."""

from __future__ import annotations

from collections.abc import Callable

from tests.support import reach
from tests.support.command import Result
from tests.support.testhost import HostInside

#: The command of a VM that listens on port 80.
LISTENING = ("nc", "-ll", "-p", "80", "-e", "echo", "a guest")
#: A server, one on a private network, and where clouds keep their metadata.
SERVER, PRIVATE_SERVER, METADATA = "198.51.100.10", "10.255.255.9", "169.254.169.254"
#: The test host at its end of the wire to that world; it listens at port 9000 of all its addresses.
HERE = "192.0.2.1"

#: What nft and tc would have loaded one after the other, which takes an emulated machine longer than banger waits.
_MODULES = """
tun veth bridge sch_ingress cls_bpf nf_tables nft_chain_nat nft_ct nft_fib_inet nft_masq nft_nat nft_reject_inet nft_reject_bridge nft_meta_bridge
"""
_MAKE = f"""
set -e
modprobe --all --quiet {" ".join(_MODULES.split())} || true
ip netns add world
ip link add up0 type veth peer name eth0 netns world
ip link set up0 up; ip addr add {HERE}/24 dev up0
ip -n world link set eth0 up; ip -n world addr add 192.0.2.254/24 dev eth0; ip -n world link set lo up
for one in {SERVER} {PRIVATE_SERVER} {METADATA}; do
    ip -n world addr add $one/32 dev lo
    ip route add $one/32 via 192.0.2.254
done
ip route show default | grep -q . || ip route add default via 192.0.2.254
systemd-run --quiet --unit=world ip netns exec world busybox nc -ll -p 80 -e echo the world
systemd-run --quiet --unit=here busybox nc -ll -p 9000 -e echo the host
"""


def make_world(host: HostInside) -> None:
    """Make it, if it is not there."""
    if host.run("ip", "-n", "world", "link").code:
        host.shell(_MAKE).ok()


def check_network(host: HostInside, banger: Callable[..., Result], vm: str, port: int) -> None:
    """A VM with the default policy reaches the world and nothing else; its port 80, published at ``port``, is reached.

    ``banger`` runs the command in the test host as the user whose VM it is.
    """
    allowed = [f"tcp/{SERVER}/80"]
    forbidden = [f"tcp/{one}/80" for one in (PRIVATE_SERVER, METADATA)]
    forbidden += ["tcp/gateway/9000", f"tcp/{HERE}/9000", "loopback/127.0.0.1/9000"]
    answered = reach.answers(banger("vm", "exec", vm, "--", *reach.command([*allowed, *forbidden])).ok().text)
    assert reach.reached(answered, [*allowed, *forbidden]) == allowed, answered
    assert host.run("busybox", "nc", "-w", "20", "127.0.0.1", str(port)).ok().text == "a guest\n"
