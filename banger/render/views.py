"""The columns of banger's lists, for each kind of object, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banger.core.clock import now, parse_rfc3339
from banger.core.units import MIB, format_age, format_duration, format_size
from banger.render.table import Column

Row = Mapping[str, Any]


def age(row: Row, field: str = "created_at") -> str:
    """How long ago ``field`` was, or nothing."""
    try:
        return format_age(parse_rfc3339(row[field]), now())
    except (KeyError, ValueError, TypeError):
        return ""


def size(size_bytes: Any) -> str:
    """Bytes in IEC units; nothing where the size is not known."""
    return format_size(int(size_bytes)) if size_bytes is not None else ""


#: Why a VM stands still that its user has not paused.
_PAUSED = {"guard": "no room", "disk": "disk failed"}


def vm_state(row: Row) -> str:
    """``running``, ``stopped (guest_panic)``, ``broken: reason``."""
    if row.get("broken"):
        return f"broken: {row['broken']}"
    state, why = str(row.get("state") or ""), row.get("exit_reason") or ""
    if state == "stopped" and (row.get("restarts") or {}).get("due_at"):
        return f"restarting ({why or 'unknown'})"
    if state == "paused" and (cause := _PAUSED.get(str(row.get("paused_by")))):
        return f"paused ({cause})"
    return f"{state} ({why})" if state == "stopped" and why not in ("", "requested") else state


def ports(row: Row) -> str:
    """``127.0.0.1:8080->80/tcp`` for each forward: the real ones while running or suspended, else the requested ones.

    Neighbours are one range, as in ``docker ps``.
    """
    held = row.get("last_ports") if row.get("state") == "suspended" else ()
    forwards = row.get("ports") or held or (row.get("spec") or {}).get("ports") or []
    runs: list[list[Row]] = []
    for forward in forwards:
        if runs and _continues(runs[-1][-1], forward):
            runs[-1].append(forward)
        else:
            runs.append([forward])
    return ", ".join(_forwards(run[0], run[-1]) for run in runs)


def _continues(last: Row, forward: Row) -> bool:
    same = all(last.get(field) == forward.get(field) for field in ("host_address", "protocol"))
    steps = {int(forward.get(field) or 0) - int(last.get(field) or 0) for field in ("host_port", "guest_port")}
    return same and steps == {1} and not (last.get("host_port_end") or forward.get("host_port_end"))


def _forwards(first: Row, last: Row) -> str:
    address = str(first.get("host_address"))
    host_end = first.get("host_port_end") or last.get("host_port")
    host = _span(first.get("host_port"), host_end) if first.get("host_port") else "?"
    guest = _span(first.get("guest_port"), last.get("guest_port"))
    return f"{f'[{address}]' if ':' in address else address}:{host}->{guest}/{first.get('protocol') or 'tcp'}"


def _span(first: Any, last: Any) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _spec(row: Row, field: str) -> Any:
    return (row.get("spec") or {}).get(field)


def _memory(row: Row) -> str:
    memory_mib = _spec(row, "memory_mib")
    return format_size(int(memory_mib) * MIB) if memory_mib else ""


def artifact_source(row: Row) -> str:
    """Where an image or a kernel came from, or why it cannot be used."""
    return f"broken: {row['broken']}" if row.get("broken") else str(row.get("source") or "")


def snapshot_contents(row: Row) -> str:
    """What is in a snapshot, or why it cannot be used."""
    if row.get("broken"):
        return f"broken: {row['broken']}"
    return "memory and disk" if row.get("memory_mib") else "disk"


def driver_state(row: Row) -> str:
    """Whether a VMM works, and is still supported."""
    if row.get("broken"):
        return f"broken: {row['broken']}"
    return "; ".join(filter(None, (row.get("support"), row.get("jail_problem")))) or "works"


VM_COLUMNS = (
    Column("NAME", lambda row: row.get("name") or row["id"], shrinks=True),
    Column("STATE", vm_state, shrinks=True),
    Column("IMAGE", lambda row: row.get("image_name") or _spec(row, "image") or "", shrinks=True),
    Column("CPUS", lambda row: str(_spec(row, "cpus") or "")),
    Column("MEMORY", _memory),
    Column("ADDRESS", lambda row: row.get("address") or ""),
    Column("PORTS", ports, shrinks=True),
    Column("AGE", age),
)

ARTIFACT_COLUMNS = (
    Column("NAME", lambda row: row.get("name") or "", shrinks=True),
    Column("ID", lambda row: row["id"]),
    Column("SIZE", lambda row: size(row.get("size_bytes"))),
    Column("SOURCE", artifact_source, shrinks=True),
    Column("USED-BY", lambda row: ", ".join(row.get("used_by") or ()), shrinks=True),
    Column("AGE", age),
)

SNAPSHOT_COLUMNS = (
    Column("NAME", lambda row: row["name"], shrinks=True),
    Column("ID", lambda row: row["id"]),
    Column("VM", lambda row: row.get("vm_name") or "", shrinks=True),
    Column("HOLDS", snapshot_contents, shrinks=True),
    Column("SIZE", lambda row: size(int(row.get("memory_bytes") or 0) + int(row.get("disk_bytes") or 0))),
    Column("AGE", age),
)

HOME_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("SIZE", lambda row: size(row.get("disk_bytes"))),
    Column("IMAGE", lambda row: row.get("image") or "", shrinks=True),
    Column("VM", lambda row: row.get("vm") or ("broken" if row.get("broken") else "")),
)

DRIVER_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("VERSION", lambda row: row.get("version") or "", shrinks=True),
    Column("DEFAULT", lambda row: "yes" if row.get("is_default") else ""),
    Column("ORIGIN", lambda row: row.get("origin") or ""),
    Column("STATE", driver_state, shrinks=True),
    Column("USED-BY", lambda row: ", ".join(row.get("used_by") or ()), shrinks=True),
    Column("AGE", age),
)

CATALOG_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("KIND", lambda row: row["kind"]),
    Column("SUMMARY", lambda row: row.get("summary") or "", shrinks=True),
    Column("SOURCE", lambda row: row.get("source") or "", shrinks=True),
    Column("ORIGIN", lambda row: row.get("origin") or "", shrinks=True),
)

OPERATION_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("KIND", lambda row: row.get("kind") or ""),
    Column("SUBJECT", lambda row: row.get("subject") or "", shrinks=True),
    Column("STATE", lambda row: row.get("state") or ""),
    Column("TIME", lambda row: format_duration(float(row.get("elapsed_s") or 0.0))),
    Column("AGE", age),
)


OBJECT_COLUMNS = (
    Column("KIND", lambda row: row["kind"]),
    Column("OBJECT", lambda row: row["key"], shrinks=True),
    Column("VM", lambda row: row.get("owner") or ""),
    Column("LEAK", lambda row: "yes" if row.get("is_leak") else ""),
    Column("REASON", lambda row: row.get("reason") or "", shrinks=True),
)


def finding_columns(findings: Sequence[Row]) -> Sequence[Column]:
    """What a lint found. Nothing of it is cut off; hints have a column if there are any."""
    columns = [
        Column("SEVERITY", lambda row: row["severity"]),
        Column("CODE", lambda row: row["code"]),
        Column("MESSAGE", lambda row: row["message"]),
    ]
    hint = Column("HINT", lambda row: row.get("hint") or "")
    return [*columns, hint] if any(map(hint.cell, findings)) else columns
