"""The daemon that the test host's systemd runs: what it and systemd say."""

from __future__ import annotations

import json
from typing import Any

from tests.support.soak import IS_SOAK
from tests.support.testhost import HostInside

UNIT = "banger.service"
#: Seconds that anything which systemd does by itself may take in an emulated machine.
PATIENCE_S = 600.0 if IS_SOAK else 240.0


def known_objects(service: HostInside, noun: str) -> list[dict[str, Any]]:
    """The images, kernels or VMs that its daemon knows."""
    known: list[dict[str, Any]] = service.ask(noun, "list", "--json").json()
    return known


def vm_facts(service: HostInside, name: str) -> dict[str, Any]:
    """What its daemon says of a VM."""
    shown: dict[str, Any] = service.ask("vm", "show", "--json", name).json()
    return shown


def unit_facts(host: HostInside, unit: str = UNIT) -> dict[str, str]:
    """What systemd says of a unit."""
    lines = host.run("systemctl", "show", unit).ok().text.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def restart(host: HostInside) -> None:
    """As an administrator does; systemd counts starts, and tests make many."""
    host.shell(f"systemctl daemon-reload; systemctl reset-failed {UNIT}; systemctl restart {UNIT}").ok()


def wait_restarted(host: HostInside, former: str) -> None:
    """Until systemd has started another one than the process ``former``."""
    script = f"""
until [ "$(systemctl show --value --property=ActiveState {UNIT})" = active ] &&
    [ "$(systemctl show --value --property=MainPID {UNIT})" != {former} ]
do sleep 1; done
"""
    host.shell(script, timeout_s=PATIENCE_S).ok()  # asked in there: each question from here would keep it from its work


def vm_units(host: HostInside) -> list[str]:
    """Services that VMs are."""
    listed = host.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-*.service").ok().text
    return [line.split()[0] for line in listed.splitlines()]


def doctor_checks(host: HostInside) -> dict[str, dict[str, str]]:
    """What ``banger doctor`` finds, by name."""
    return {check["name"]: check for check in json.loads(host.banger("doctor", "--json").text)}
