"""What VMs use, from two looks at their guests. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from banger.core.units import format_duration
from banger.render.table import Column
from banger.render.views import size

Row = Mapping[str, Any]


def usage(vm: Row, facts: Row, before: Row | None) -> dict[str, Any]:
    """A row: the VM's name and id, the guest's facts, and ``cpu_percent`` since ``before``, 100 for one CPU."""
    return {"id": vm["id"], "name": vm["name"], "cpu_percent": _cpu_percent(facts, before), **facts}


def _cpu_percent(facts: Row, before: Row | None) -> float | None:
    """Nothing for a guest that was rebooted meanwhile, or whose figures make no sense."""
    if before is None or before.get("boot_id") != facts.get("boot_id"):
        return None
    now, then = facts["cpu"], before["cpu"]
    total, busy = int(now["total_ms"] - then["total_ms"]), int(now["busy_ms"] - then["busy_ms"])
    if total <= 0 or not 0 <= busy <= total:
        return None
    return round(100.0 * busy / total * max(int(now["count"]), 1), 1)


def _share(used: int, total: int) -> str:
    return f"{size(max(used, 0))} / {size(total)}" if total else ""


def _memory(row: Row) -> str:
    memory = row.get("memory") or {}
    return _share(memory.get("total_bytes", 0) - memory.get("available_bytes", 0), memory.get("total_bytes", 0))


def _disk(row: Row) -> str:
    root: Row = next((disk for disk in row.get("disks") or () if disk["mount_point"] == "/"), {})
    return _share(root.get("total_bytes", 0) - root.get("free_bytes", 0), root.get("total_bytes", 0))


def _net(row: Row) -> str:
    nets = [net for net in row.get("nets") or () if net["name"] != "lo"]
    received, sent = (sum(net[name] for net in nets) for name in ("received_bytes", "sent_bytes"))
    return f"{size(received)} / {size(sent)}" if nets else ""


def _cpu(row: Row) -> str:
    percent = row.get("cpu_percent")
    return "" if percent is None else f"{percent:.1f}%"


USAGE_COLUMNS = (
    Column("NAME", lambda row: row["name"], shrinks=True),
    Column("CPU", _cpu),
    Column("MEMORY", _memory),
    Column("DISK", _disk),
    Column("NET IN/OUT", _net),
    Column("LOAD", lambda row: f"{row['load1']:.2f}" if "load1" in row else ""),
    Column("PROCESSES", lambda row: str(row.get("processes", ""))),
    Column("UPTIME", lambda row: format_duration(row["uptime_ms"] / 1000) if "uptime_ms" in row else ""),
)
