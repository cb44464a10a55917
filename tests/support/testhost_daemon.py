"""The daemon that the test host's systemd runs: what it and systemd say."""

from __future__ import annotations

import json
from typing import Any

from tests.support.testhost import HostInside

UNIT = "banger.service"


def known_objects(service: HostInside, noun: str) -> list[dict[str, Any]]:
    """The images, kernels or VMs that its daemon knows."""
    known: list[dict[str, Any]] = json.loads(service.banger(noun, "list", "--json").ok().text)
    return known


def vm_facts(service: HostInside, name: str) -> dict[str, Any]:
    """What its daemon says of a VM."""
    shown: dict[str, Any] = json.loads(service.banger("vm", "show", "--json", name).ok().text)
    return shown


def unit_facts(host: HostInside, unit: str = UNIT) -> dict[str, str]:
    """What systemd says of a unit."""
    lines = host.run("systemctl", "show", unit).ok().text.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def vm_units(host: HostInside) -> list[str]:
    """Services that VMs are."""
    listed = host.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-*.service").ok().text
    return [line.split()[0] for line in listed.splitlines()]


def doctor_checks(host: HostInside) -> dict[str, dict[str, str]]:
    """What ``banger doctor`` finds, by name."""
    return {check["name"]: check for check in json.loads(host.banger("doctor", "--json").text)}
