"""Applying and reading packet filter rules with the program ``nft``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from banger.network.rules import names_set
from banger.network.tools import run_tool, try_tool

FAMILIES = ("inet", "bridge")


def apply(transaction: str) -> None:
    """Apply a text as one transaction: all of it or, with an ``unavailable`` error, nothing."""
    run_tool("nft", "-f", "-", stdin=transaction)


def remove(table: str) -> None:
    """Delete a table from both families; already gone is success."""
    apply("".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in FAMILIES))


def listings(table: str) -> list[tuple[str, str]]:
    """Family and text of each table as the kernel has it, without what changes by itself; those that are there."""
    # -s: no counters; -t: no elements of named sets.
    asked = ((family, try_tool("nft", "-s", "-t", "list", "table", family, table)) for family in FAMILIES)
    return [(family, text) for family, (status, text, _) in asked if not status]


def members(family: str, table: str, name: str) -> str:
    """The text of one map or set (``map NAME``) with its elements; empty if it is not there."""
    kind, _, own = name.partition(" ")
    status, text, _ = try_tool("nft", "list", kind, family, table, own)
    return "" if status else text


def tables() -> list[tuple[str, str]]:
    """``(family, name)`` of every table on the host."""
    return parse_tables(run_tool("nft", "-j", "list", "tables"))


def parse_tables(text: str) -> list[tuple[str, str]]:
    """Read ``nft -j list tables`` (libnftables-json(5))."""
    return [(one["table"]["family"], one["table"]["name"]) for one in _objects(text) if "table" in one]


def elements(table: str, vm_ids: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """What the sets of allowed names hold now, by the set's name; nothing for a set that is not there."""
    found = {}
    for name in [names_set(vm_id, version) for vm_id in vm_ids for version in (4, 6)]:
        status, text, _ = try_tool("nft", "-j", "list", "set", "inet", table, name)
        if not status:
            found[name] = parse_elements(text)
    return found


def parse_elements(text: str) -> list[tuple[str, int]]:
    """``(address, seconds left)`` of ``nft -j list set``. What is about to expire is left out."""
    members = [member for one in _objects(text) if "set" in one for member in one["set"].get("elem", [])]
    timed = [member["elem"] for member in members if isinstance(member, dict) and "elem" in member]
    return [(str(one["val"]), int(one["expires"])) for one in timed if int(one.get("expires", 0)) > 0]


def allow(table: str, vm_id: str, addresses: Sequence[IPv4Address | IPv6Address], ttl_s: int) -> None:
    """Add addresses to a VM's sets of allowed names, for at least ``ttl_s`` seconds from now.

    An element that is there keeps its old timeout when it is added again, so each is added, deleted and added anew,
    which no packet sees.
    """
    lines = []
    for address in addresses:
        element = f"element inet {table} {names_set(vm_id, address.version)} {{ {address}"
        lines += [f"add {element} }}", f"delete {element} }}", f"add {element} timeout {ttl_s}s }}"]
    if lines:
        apply("\n".join([*lines, ""]))


def _objects(text: str) -> list[dict[str, Any]]:
    found = json.loads(text or "{}").get("nftables", [])
    return [one for one in found if isinstance(one, dict)]
