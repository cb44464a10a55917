"""Detail pages: everything about one object, in sections."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from banger.core.clock import now, parse_rfc3339
from banger.core.plain_text import printable
from banger.core.units import MIB, format_duration, format_size
from banger.render.terminal import Terminal
from banger.render.views import age, ports, size, vm_state
from banger.render.waterfall import render_waterfall

Row = Mapping[str, Any]
Fields = Iterable[tuple[str, Any]]
#: Fields of a VM's spec that have a place on its page; the others come behind them.
_PLACED = frozenset(
    "image kernel cpus memory_mib disk_mib env user workdir hostname entrypoint command ports init network egress "
    "storage home home_mib vmm machine accelerator ephemeral ttl_s idle_s idle_suspend_s restart on_reboot "
    "labels".split()
)
#: The sections of a page line up.
_NAME_WIDTH = 10


def vm_page(vm: Row, terminal: Terminal) -> str:
    """A VM, with the waterfall of its last start."""
    spec = vm.get("spec") or {}
    engine = " on ".join(filter(None, (vm.get("vmm"), vm.get("accelerator"))))
    running = f"pid {vm['pid']}, {engine}" if vm.get("pid") else ""
    identity = [
        ("id", vm.get("id")),
        ("state", _join(vm_state(vm), running)),
        ("reason", vm.get("reason")),
        ("suspended", size(vm["suspended_bytes"]) if vm.get("suspended_bytes") else ""),
        ("created", _moment(vm, "created_at")),
        ("started", _moment(vm, "started_at")),
        ("stopped", _moment(vm, "stopped_at")),
        ("restarts", _restarts(vm)),
        ("forked from", _join(vm.get("forked_from"), vm.get("origin_snapshot"))),
        ("from template", vm.get("from_template")),
        ("labels", _pairs(spec.get("labels"))),
        ("ephemeral", "yes: deleted when it stops" if spec.get("ephemeral") else ""),
        ("time left", _time_left(vm)),
        ("stops idle", _time(spec, "idle_s")),
        ("sleeps idle", _time(spec, "idle_suspend_s")),
    ]
    machine = [
        ("image", _join(vm.get("image_name") or spec.get("image"), vm.get("image_id"))),
        ("kernel", _join(vm.get("kernel_name") or spec.get("kernel"), vm.get("kernel_id"))),
        ("cpus", spec.get("cpus")),
        ("memory", _mebibytes(spec.get("memory_mib"))),
        ("disk", _join(_mebibytes(spec.get("disk_mib")), vm.get("storage"))),
        ("home", spec.get("home")),
        ("vmm", _join(vm.get("vmm"), vm.get("vmm_reason"))),
        ("machine", spec.get("machine")),
        ("runs on", spec.get("accelerator")),
        ("init", spec.get("init")),
        ("hostname", spec.get("hostname")),
        ("entrypoint", _command(spec.get("entrypoint"), "none")),
        ("command", _command(spec.get("command"), "the image's own")),
        ("user", spec.get("user")),
        ("workdir", spec.get("workdir")),
        ("env", " ".join(spec.get("env") or ())),
        *_others(spec),
    ]
    network = [
        ("network", _network(vm)),
        ("egress", spec.get("egress") if spec.get("network") != "none" else ""),
        ("address", vm.get("address")),
        ("ports", ports(vm)),
    ]
    page = _section(str(vm.get("name") or vm.get("id")), identity, terminal)
    page += _section("Machine", machine, terminal) + _section("Network", network, terminal)
    return page + _timings("Last start", vm.get("timings") or (), terminal)


def _network(vm: Row) -> str:
    """The one that it was made for, or is on instead."""
    wished, real = (vm.get("spec") or {}).get("network"), vm.get("network")
    return str(wished or "") if real in (None, "", wished) else f"{real} instead of {wished} ({vm['network_reason']})"


def _others(spec: Row) -> Fields:
    """Other options of the VM that differ from their defaults."""
    from banger.core.wire.facts import defaults_of, facts_of  # noqa: PLC0415  # few pages are of a VM
    from banger.core.wire.vm_spec import VmSpec  # noqa: PLC0415

    for name, about in facts_of(VmSpec).items():
        value = spec.get(name)
        if name not in _PLACED and value is not None and value != defaults_of(VmSpec)[name]:
            yield about.title or name, _with_unit(name, value)


def _with_unit(name: str, value: Any) -> Any:
    """For people: names end in their units."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if name.endswith("_s"):
        return format_duration(float(value))
    return _mebibytes(value) if name.endswith("_mib") else value


def _restarts(vm: Row) -> str:
    """The policy, if there is one, and what it has done and is about to do."""
    spec, restarts = vm.get("spec") or {}, vm.get("restarts") or {}
    policy = spec.get("restart") or "no"
    words = [] if policy == "no" else [policy]
    if spec.get("on_reboot") == "stop":
        words.append("a reboot stops it")
    if restarts.get("count"):
        words.append(f"{restarts['count']} so far")
    if restarts.get("due_at"):
        words.append(f"next at {restarts['due_at']}")
    return ", ".join(words)


def why_page(why: Row, terminal: Terminal) -> str:
    """Why a VM is as it is: the reason first, then the evidence."""
    vm, evidence = why.get("vm") or {}, why.get("evidence") or {}
    facts = [
        ("why", why.get("why")),
        ("started", _moment(vm, "started_at")),
        ("stopped", _moment(vm, "stopped_at")),
        ("gone", "yes: this is what was kept of it" if vm.get("state") == "gone" else ""),
    ]
    page = _section(str(vm.get("name") or vm.get("id")), facts, terminal)
    page += _section("When it failed", _evidence_fields(evidence), terminal)
    page += _lines("Console", why.get("console") or (), terminal)
    page += _lines("VMM", why.get("vmm_log") or (), terminal)
    counted = sorted((why.get("error_counters") or {}).items())
    page += _section("Counted by the VMM", counted, terminal)
    page += _section("Others of that name", _other_fields(why.get("others") or ()), terminal)
    held = [(str(one["kind"]), _join(one["key"], one["state"])) for one in why.get("handles") or ()]
    page += _section("Held on the host", held, terminal)
    steps = () if vm.get("state") == "running" else evidence.get("steps")
    page += _timings("Last start", steps or vm.get("timings") or (), terminal)
    return page + f"{terminal.paint('next:', 'cyan')} {printable(why.get('next'))}\n"


def _evidence_fields(evidence: Row) -> Fields:
    versions = evidence.get("versions") or {}
    status = evidence.get("exit_status")
    return [
        ("when", _moment(evidence, "at")),
        *(("" if number else "how", line) for number, line in enumerate(str(evidence.get("cause") or "").splitlines())),
        ("exit", _join(evidence.get("exit_reason"), f"status {status}" if status is not None else "")),
        ("run on", _join(evidence.get("accelerator"), versions.get("vmm"))),
        ("image", _named(evidence.get("image"))),
        ("kernel", _named(evidence.get("kernel"))),
        ("host", versions.get("host")),
        ("evidence", evidence.get("id")),
    ]


def _other_fields(others: Sequence[Row]) -> Fields:
    return [(str(one.get("id")), _join(one.get("words"), _moment(one, "at"))) for one in others]


def _named(artifact: Any) -> str:
    known = artifact or {}
    return _join(known.get("name"), known.get("id"))


def artifact_page(artifact: Row, terminal: Terminal) -> str:
    """An image or a kernel."""
    config = artifact.get("config") or {}
    flags = [name for name in ("modules", "initrd") if artifact.get(f"has_{name}")]
    identity = [
        ("id", artifact.get("id")),
        ("broken", artifact.get("broken")),
        ("source", artifact.get("source")),
        ("digest", artifact.get("digest")),
        (
            "file",
            _join(artifact.get("rootfs_path"), "your own: never written to" if artifact.get("rootfs_path") else ""),
        ),
        ("platform", artifact.get("platform")),
        ("kernel", _join(artifact.get("kernel"), artifact.get("kernel_source"))),
        ("work seed", "yes" if artifact.get("has_seed") else ""),
        ("version", artifact.get("version")),
        ("format", _join(artifact.get("format"), ", ".join(flags))),
        ("size", _join(size(artifact.get("size_bytes")), _on_disk(artifact))),
        ("created", _moment(artifact, "created_at")),
        ("used by", ", ".join(artifact.get("used_by") or ())),
        ("arguments", artifact.get("cmdline")),
    ]
    sizes = artifact.get("defaults") or {}
    defaults = [
        ("cpus", sizes.get("cpus") or None),
        ("memory", _mebibytes(sizes.get("memory_mib"))),
        ("disk", _mebibytes(sizes.get("disk_mib"))),
        ("entrypoint", " ".join(config.get("entrypoint") or ())),
        ("command", " ".join(config.get("cmd") or ())),
        ("user", config.get("user")),
        ("workdir", config.get("workdir")),
        ("env", " ".join(config.get("env") or ())),
        ("labels", _pairs(config.get("labels"))),
    ]
    name = str(artifact.get("name") or artifact.get("id"))
    return _section(name, identity, terminal) + _section("Defaults", defaults, terminal)


def snapshot_page(snapshot: Row, terminal: Terminal) -> str:
    """A snapshot, and what goes on from it."""
    spec = snapshot.get("spec") or {}
    has_memory = bool(snapshot.get("memory_mib"))
    holds = "memory and disk" if has_memory else "disk only: the VM was stopped, and what is made from it boots"
    identity = [
        ("id", snapshot.get("id")),
        ("broken", snapshot.get("broken")),
        ("vm", _join(snapshot.get("vm_name"), snapshot.get("vm_id"))),
        ("parent", _join(snapshot.get("parent_name"), snapshot.get("parent_id"))),
        ("taken", _moment(snapshot, "created_at")),
        ("checkpoint", "yes: it goes when there are newer ones" if snapshot.get("is_checkpoint") else ""),
        ("holds", holds),
        ("memory", size(snapshot.get("memory_bytes")) if has_memory else ""),
        ("disk", size(snapshot.get("disk_bytes"))),
        ("vms", ", ".join(snapshot.get("vms") or ())),
    ]
    engine = " on ".join(filter(None, (_named_version(snapshot), snapshot.get("accelerator"))))
    machine = [
        ("image", _join(snapshot.get("image_name"), snapshot.get("image_id"))),
        ("kernel", _join(snapshot.get("kernel_name"), snapshot.get("kernel_id"))),
        ("cpus", spec.get("cpus")),
        ("memory", _mebibytes(spec.get("memory_mib"))),
        ("disk", _join(_mebibytes(spec.get("disk_mib")), snapshot.get("storage"))),
        ("needs", engine),
        ("cpu", snapshot.get("cpu")),
    ]
    return _section(str(snapshot.get("name")), identity, terminal) + _section("Machine", machine, terminal)


def _named_version(snapshot: Row) -> str:
    return f"{snapshot.get('vmm')} {snapshot.get('vmm_version')}" if snapshot.get("vmm") else ""


def operation_page(operation: Row, terminal: Terminal) -> str:
    """An operation and its steps."""
    error = operation.get("error") or {}
    fields = [
        ("id", operation.get("id")),
        ("state", operation.get("state")),
        ("error", _join(error.get("message"), error.get("cause"))),
        ("hint", error.get("hint")),
        ("begun", _moment(operation, "created_at")),
        ("time", format_duration(float(operation.get("elapsed_s") or 0.0))),
    ]
    title = f"{operation.get('kind')} {operation.get('subject')}"
    return _section(title, fields, terminal) + _timings("Steps", operation.get("steps") or (), terminal)


def fields_text(fields: Fields, least_width: int = 0) -> str:
    """Aligned ``name  value`` lines; what has no value is left out."""
    known = [(printable(name), printable(value)) for name, value in fields if value not in (None, "")]
    width = max(least_width, *(len(name) for name, _ in known), 0)
    return "".join(f"  {name.ljust(width)}  {value}\n" for name, value in known)


def _section(title: str, fields: Fields, terminal: Terminal) -> str:
    text = fields_text(fields, _NAME_WIDTH)
    return f"{terminal.paint(printable(title), 'bold')}\n{text}" if text else ""


def _lines(title: str, lines: Sequence[Any], terminal: Terminal) -> str:
    return terminal.paint(title, "bold") + "\n" + "".join(f"  {printable(line)}\n" for line in lines) if lines else ""


def _command(words: Sequence[str] | None, if_empty: str) -> str:
    """A command as it can be typed; nothing for one that was not given."""
    return "" if words is None else shlex.join(words) or if_empty


def _timings(title: str, timings: Sequence[Row], terminal: Terminal) -> str:
    return f"{terminal.paint(title, 'bold')}\n{render_waterfall(timings, terminal)}" if timings else ""


def _join(first: Any, second: Any) -> str:
    return f"{first} ({second})" if first and second else str(first or second or "")


def _moment(row: Row, field: str) -> str:
    since = age(row, field)
    return f"{row[field]} ({since} ago)" if since else ""


def _time_left(vm: Row) -> str:
    ttl_s = float((vm.get("spec") or {}).get("ttl_s") or 0)
    if not ttl_s or not vm.get("created_at"):
        return ""
    left_s = ttl_s - (now() - parse_rfc3339(vm["created_at"])).total_seconds()
    return f"{format_duration(max(left_s, 0))}: deleted then"


def _time(spec: Row, name: str) -> str:
    return format_duration(float(spec[name])) if spec.get(name) else ""


def _mebibytes(amount: Any) -> str:
    return format_size(int(amount) * MIB) if amount else ""


def _on_disk(artifact: Row) -> str:
    return f"{size(artifact['disk_bytes'])} on disk" if artifact.get("disk_bytes") is not None else ""


def _pairs(mapping: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in (mapping or {}).items())
