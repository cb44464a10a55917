"""Checks whether a VM can be requested at all. Pure; done before anything is written or created."""

from __future__ import annotations

from banger.core.egress import check_egress
from banger.core.names import check_home_name, check_hostname
from banger.core.publishing import check_forwards
from banger.core.restarting import check_restarting
from banger.core.wire.checks import check_field, check_request, refused
from banger.core.wire.facts import facts_of
from banger.core.wire.vm_spec import VmSpec


def check_spec(spec: VmSpec) -> None:
    """Raise ``usage`` (``conflict`` for ports), naming the field, for an invalid or contradictory spec."""
    check_request(spec)
    for variable in spec.env:
        if variable.find("=") < 1:
            raise refused("env", f"{variable[:20]!r} names no variable with a value", "write NAME=VALUE")
    if spec.hostname:
        check_hostname(spec.hostname)
    if spec.home:
        check_home_name(spec.home)
    check_egress(spec.egress, spec.network)
    check_restarting(spec)
    check_forwards(spec.ports)


def check_disk_mib(disk_mib: int) -> None:
    """Raise ``usage`` for an impossible disk size."""
    check_field("disk_mib", disk_mib, facts_of(VmSpec)["disk_mib"])
