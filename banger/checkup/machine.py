"""One temporary VM: boot it, run the checks one by one, power it off, delete it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from banger.checkup import basics, network
from banger.checkup.bounded import bounded
from banger.checkup.guest import Guest
from banger.checkup.network import NetworkBaseline
from banger.checkup.plan import Candidate
from banger.checkup.report import CheckFailedError, Finding, MachineReport, Row, Verdict
from banger.client import Client, path_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import format_duration
from banger.core.vmm_names import HARDWARE
from banger.core.wire.vm_spec import VmSpec
from banger.core.wire.vms import CreateVmBody

#: What one boot may take besides the guest's own time: a kernel may have to be downloaded first, in seconds.
_PREPARING_S = 900.0
_STOP_TIMEOUT_S = 20.0
_DELETE_TIMEOUT_S = 60.0
#: A guest that ran a check may take so long to say that it is still there.
_ALIVE_TIMEOUT_S = 15.0
#: A VM that nobody could delete (this process was killed) goes by itself after so many seconds.
_TTL_S = 3600.0
#: The probe said yes and the VM did not come up: how to have all VMs do without.
_WITHOUT_KVM = 'for all VMs: BANGER_VMM_ACCELERATOR=tcg, or accelerator = "tcg" under [vmm] in config.toml'
_TOO_SLOW = "is this host busy (uptime)? Then try again when it is not; else with another kernel: --kernel NAME"
#: Shorter steps of a start are not listed.
_WORTH_TELLING_S = 0.05


class Watcher(Protocol):
    """Whoever shows a check-up while it runs."""

    def machine(self, candidate: Candidate) -> None:
        """A machine is tried next, or explained."""

    def row(self, row: Row) -> None:
        """A check has ended."""

    def event(self, event: Mapping[str, Any] | None) -> None:
        """Something moved (an operation's event in its JSON form), or time passed (``None``)."""


@dataclass(frozen=True, slots=True)
class Check:
    """A named question to a running guest. ``run`` answers, or raises what is wrong, within ``bound_s`` seconds."""

    name: str
    bound_s: float
    run: Callable[[Guest], Finding]


@dataclass(slots=True)
class Trial:
    """One machine to try.

    Attributes:
        spec: what all machines of this check-up have in common.
        boot_timeout_s: what a guest may take until it answers, as configured.
        release: tells the release of a kernel by its id; empty if its file did not tell.
        vm_ids: gets the ids of the VMs that were made.
    """

    client: Client
    candidate: Candidate
    spec: VmSpec
    boot_timeout_s: float
    around: NetworkBaseline
    release: Callable[[str], str]
    watcher: Watcher
    vm_ids: set[str]
    _rows: list[Row] = field(default_factory=list)

    def run(self) -> MachineReport:
        """Try it; what was found. Whatever happens, Ctrl-C too, the VM is deleted."""
        candidate = self.candidate
        self.watcher.machine(candidate)
        try:
            guest = self._boot()
            if guest is not None:
                self._check(guest)
        finally:
            self._delete()
        prospect = candidate.prospect
        return MachineReport(
            prospect.accelerator, candidate.driver, candidate.network, usable=True, reason=prospect.reason,
            rows=tuple(self._rows),
        )  # fmt: skip

    def _boot(self) -> Guest | None:
        """Make and start the VM; None if it did not come up, or came up emulated because KVM does not take its kernel.

        KVM is not asked for but left to be chosen, as for every VM: then the start also finds out what it is worth.
        """
        accelerator = self.candidate.prospect.accelerator
        requested = "" if accelerator == HARDWARE else accelerator
        machine = replace(self.spec, vmm=self.candidate.driver, accelerator=requested)
        spec = replace(
            machine,
            network=self.candidate.network,
            egress="open",  # the router that is to answer is on a private network
            ephemeral=True,
            ttl_s=_TTL_S,
        )
        body = CreateVmBody(spec, start=True)
        limit_s = self.boot_timeout_s + _PREPARING_S
        booted: list[Guest] = []
        notes, listen = self._notes()
        with self._row("boot", _WITHOUT_KVM if accelerator == HARDWARE else "") as say:
            vm = self.client.long("POST", "/v1/vms", body=body, on_event=listen, timeout_s=limit_s)
            self.vm_ids.add(vm["id"])
            if vm["accelerator"] != accelerator:
                if accelerator == HARDWARE:
                    say(Finding("; ".join(notes) or "VMs are emulated here", note=True))
                    return None
                raise CheckFailedError(f"asked for {accelerator}, and runs on {vm['accelerator']}")
            booted.append(Guest(self.client, vm))
            say(_booted(vm, self.candidate.network))
        return booted[0] if booted else None

    def _check(self, guest: Guest) -> None:
        """Every check in its turn; one that fails does not keep the others from being tried, unless the VM is gone."""
        checks = self._checks(guest)
        for index, check in enumerate(checks):
            with self._row(check.name) as say:
                say(bounded(lambda check=check: check.run(guest), check.bound_s, lambda: self.watcher.event(None)))  # type: ignore[misc]
            if self._rows[-1].verdict is Verdict.FAILED and (gone := self._gone(guest)):
                for left in checks[index + 1 :]:
                    self._add(Row(left.name, Verdict.SKIPPED, gone))
                return
        self._shut_down(guest)

    def _checks(self, guest: Guest) -> list[Check]:
        around = self.around
        checks = [
            Check("kernel", 30, lambda one: basics.check_kernel(one, self.release(str(guest.vm["kernel_id"])))),
            Check("console", 45, basics.check_console),
            Check("root", 60, basics.check_root),
            Check("exec", 60, basics.check_exec),
            Check("cp", 90, basics.check_copy),
            Check("dns", 60, lambda one: network.check_dns(one, around)),
            Check("egress", 60, lambda one: network.check_egress(one, around)),
            Check("mtu", 90, lambda one: network.check_mtu(one, around)),
        ]
        if around.reach:
            checks.append(Check("reach", 60, lambda one: network.check_reach(one, around)))
        # Last of all: a clock that runs at a wrong pace has had the most time to show it.
        return [*checks, Check("clock", 45, basics.check_clock)]

    def _gone(self, guest: Guest) -> str:
        """Why nothing more can be asked of the VM: it is gone, or hangs; empty if it lives."""
        try:
            why = self.client.get(path_of("vms", guest.id, "why"))
            if why["vm"]["state"] != "running":
                return f"not tried: the VM is {why['why']}"
            bounded(lambda: guest.shell(":", timeout_s=_ALIVE_TIMEOUT_S), 2 * _ALIVE_TIMEOUT_S)
        except BangerError as error:
            return f"not tried: the guest does not answer any more ({error})"
        return ""

    def _shut_down(self, guest: Guest) -> None:
        """The guest powers itself off when it is asked, in time."""
        notes, listen = self._notes()
        with self._row("shutdown") as say:
            vm = self.client.long(
                "POST", path_of("vms", guest.id, "stop"), {"timeout_s": _STOP_TIMEOUT_S},
                on_event=listen, timeout_s=_STOP_TIMEOUT_S + _DELETE_TIMEOUT_S,
            )  # fmt: skip
            if killed := next((note for note in notes if "killed" in note), ""):
                hint = "a service of the image holds it up, or the image's own poweroff does not: try --init none"
                raise CheckFailedError(killed, hint=hint)
            say(Finding(f"{vm['state']}, {vm['exit_reason']}"))

    def _notes(self) -> tuple[list[str], Callable[[Mapping[str, Any] | None], None]]:
        """A list, and what listens to events and puts into it what the daemon notes."""
        notes: list[str] = []

        def listen(event: Mapping[str, Any] | None) -> None:
            if event is not None and event.get("kind") == "note":
                notes.append(str(event.get("message") or ""))
            self.watcher.event(event)

        return notes, listen

    def _delete(self) -> None:
        """Take the VM away. What this leaves behind is the host's row, so a failure here is told there."""
        for vm_id in self.vm_ids:
            with suppress(BangerError):
                self.client.long(
                    "DELETE", path_of("vms", vm_id), {"force": True},
                    on_event=self.watcher.event, timeout_s=_DELETE_TIMEOUT_S,
                )  # fmt: skip

    @contextmanager
    def _row(self, name: str, advice: str = "") -> Iterator[Callable[[Finding], None]]:
        """Time a check and write down how it ended. ``advice`` goes with the daemon's hint if it refuses."""
        found: list[Finding] = []
        self.watcher.event({"kind": "step_started", "step": name})
        began = time.monotonic()
        failure: CheckFailedError | None = None
        try:
            yield found.append
        except CheckFailedError as error:
            failure = error
        except BangerError as error:
            if error.kind is ErrorKind.CANCELLED:
                raise
            usual = _TOO_SLOW if error.kind is ErrorKind.TIMEOUT and not error.hint else error.hint
            hint = "; ".join(filter(None, (usual, advice)))
            failure = CheckFailedError(error.message, cause=error.cause, hint=hint)
        except OSError as error:  # of this host: a disk that is full, say
            failure = CheckFailedError("this host got in the way", cause=str(error))
        finally:
            self.watcher.event({"kind": "step_finished", "step": name})
        elapsed_s = round(time.monotonic() - began, 3)
        if failure is not None:
            self._add(Row(name, Verdict.FAILED, failure.detail, elapsed_s, failure.cause, failure.hint))
        else:
            verdict = Verdict.NOTE if found[0].note else Verdict.OK
            self._add(Row(name, verdict, found[0].detail, elapsed_s))

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        self.watcher.row(row)


def _booted(vm: Mapping[str, Any], network: str) -> Finding:
    """How it came up, and whether it is on the network that was to be tried."""
    real = vm.get("network") or network
    if real == network:
        return Finding(_steps(vm))
    return Finding(f"{_steps(vm)}; on the network {real} instead of {network}: {vm['network_reason']}", note=True)


def _steps(vm: Mapping[str, Any]) -> str:
    """The steps of a start that take time, as the daemon measured them."""
    long = [one for one in vm["timings"] if one["duration_s"] >= _WORTH_TELLING_S]
    steps = [f"{one['name']} {format_duration(one['duration_s'])}" for one in long]
    return f"on {vm['accelerator']}: {', '.join(steps)}" if steps else f"on {vm['accelerator']}"
