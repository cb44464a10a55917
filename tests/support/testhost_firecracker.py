"""A VM that runs on Firecracker in the test host: how it is confined, and that it can be copied."""

from __future__ import annotations

from typing import Any

from tests.support import reach
from tests.support.testhost import HostInside
from tests.support.testhost_daemon import vm_facts
from tests.support.testhost_world import HERE, SERVER
from tests.support.who import WHO, WHO_LINES, check_all_differ

#: What a VM with the default policy reaches of the world, and not of the test host.
_WORLD, _HOST = f"tcp/{SERVER}/80", f"tcp/{HERE}/9000"


def check_forks(service: HostInside, vm: str) -> None:
    """Two forks of a snapshot go on from the VM's memory, as machines of their own, and so does the VM itself."""

    def told(name: str, script: str) -> str:
        return service.ask("vm", "exec", name, "--", "sh", "-c", script).ok().text

    told(vm, "echo first > /run/memory; echo first > /on-disk; sync")
    service.ask("vm", "snapshot", "create", vm, "--name", "ready").ok()
    told(vm, "echo later > /run/memory; echo later > /on-disk")
    forks = service.ask("vm", "fork", "ready", "-n", "2", "--name", f"{vm}-{{n}}").ok().text.split()
    service.ask("snapshot", "delete", "ready").ok()
    machines = [vm, *forks]
    facts: list[dict[str, Any]] = [vm_facts(service, one) for one in machines]
    lines = [told(one, f"{WHO}; ip -o addr; cat /run/memory /on-disk").splitlines() for one in machines]
    assert [one[-2:] for one in lines] == [["later"] * 2, ["first"] * 2, ["first"] * 2]
    assert [one[0] for one in lines] == machines
    check_all_differ(["\n".join(one[:WHO_LINES]) for one in lines])
    for known, one in zip(facts, lines, strict=True):
        assert f" {known['address']}/" in "\n".join(one[WHO_LINES:]), one
    answered = reach.answers(service.ask("vm", "exec", forks[0], "--", *reach.command([_WORLD, _HOST])).ok().text)
    assert reach.reached(answered, [_WORLD, _HOST]) == [_WORLD], answered
    users = [check_jailed(service, known["pid"], is_fork=known["name"] != vm) for known in facts]
    assert len(set(users)) == len(users)
    service.ask("vm", "delete", "--force", *forks).ok()


def check_jailed(service: HostInside, pid: int, *, is_fork: bool = False) -> int:
    """The VMM of a root's daemon is in the jail that its own jailer makes. Its user."""
    look = f"cd /proc/{pid} && cat status && echo ThreadsBehind: $(cat task/*/status | grep ^Seccomp: | sort -u)"
    lines = service.shell(f"{look} && echo Root: $(ls root/)").ok().text.splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    user = int(found["Uid"][0])
    assert user >= 2_100_000_000
    assert found["Gid"] == [str(user)] * 4
    assert found["NSpid"][1:] == ["1"]
    assert {found[f"Cap{one}"][0] for one in ("Eff", "Prm", "Inh", "Amb")} == {"0" * 16}
    assert found["ThreadsBehind"] == ["Seccomp:", "2"]
    begun_with = "saved" if is_fork else "initrd kernel"
    seen = f"dev drives firecracker firecracker.pid {begun_with} run saving vm vmm-metrics.log vmm.log"
    assert {"drives", "firecracker"} <= set(found["Root"]) <= set(seen.split())
    return user
