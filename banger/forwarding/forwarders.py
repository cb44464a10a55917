"""The daemon's side: starting, finding and stopping the processes that forward published ports.

A forwarder is a session of its own and outlives the daemon, as its VMM does; it ends with the VMM, or with the cleanup
of its VM. It is found by a marker in its command line and known by its identity, both in the VM's ledger.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import banger
from banger.core import codec
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity, Vm
from banger.core.names import ID_LENGTH, PORTS_LOG_PREFIX
from banger.core.ports import Handle, HostObject, VmLedger
from banger.forwarding.endings import Endings
from banger.launch.environment import vmm_environment
from banger.vmm import identity as processes

#: Kind of the ledger's entry; its key is the marker.
FORWARDER_KIND = "forwarder"
_KILL_TIMEOUT_S = 10.0
#: ``-I -S``: nothing of the environment, no site packages; an interpreter of a few megabytes.
_START = "import sys; sys.path.insert(0, sys.argv[2]); from banger.forwarding.process import main; main()"


@dataclass(frozen=True, slots=True)
class Opened:
    """A port of the host that is open already, and the guest's port that it leads to."""

    port: socket.socket
    guest_port: int


@dataclass(frozen=True, slots=True)
class Reach:
    """A VM as its forwarder has to do with it.

    Attributes:
        path: the Unix socket that leads to the guest's agent.
        vsock_port: what to ask the VMM for there; 0: nothing, the socket is the guest's port itself.
        log: the VMM's, where an operator looks.
        patience_s: how long an agent may take to say whether somebody listens, in an emulated guest that boots.
    """

    path: Path
    vsock_port: int
    log: Path
    patience_s: float = 20.0

    def config(self, ports: Sequence[Opened], *, waits: bool) -> dict[str, object]:
        """As the process reads it."""
        opened = [{"fd": one.port.fileno(), "guest_port": one.guest_port} for one in ports]
        way = {"path": str(self.path), "vsock_port": self.vsock_port, "patience_s": self.patience_s}
        return {**way, "log_prefix": PORTS_LOG_PREFIX, "ports": opened, "waits": waits}


class Forwarders:
    """The forwarders of one installation. Thread-safe as far as one VM is one thread's."""

    def __init__(self, installation_id: str, reach: Callable[[Vm], Reach], endings: Endings | None = None) -> None:
        """``endings`` are told of those that run, if anybody wants to hear of their ends."""
        self._reach = reach
        self._endings = endings
        self._prefix = f"banger-ports-{installation_id}-"
        self._pipes: dict[str, int] = {}  # by VM: to those that do not know their VMM yet
        self._lock = threading.Lock()

    def start(self, vm: Vm, ports: Sequence[Opened], ledger: VmLedger, *, waits: bool = False) -> None:
        """Start one for these ports, which it inherits; :meth:`begin` must follow.

        One that ``waits`` lets nobody in before that: at the ports of a VM that is being woken somebody waits already.

        Raises:
            BangerError: ``unavailable`` if no process can be started.
        """
        self._end(vm.id, ledger)  # of a start that was given up
        marker = self._prefix + vm.id
        ledger.intend(FORWARDER_KIND, marker)
        crashpoint("ports.prepare:forwarder-intended")
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_start(marker, error) from error
        try:
            identity = self._spawn(
                marker, self._reach(vm).config(ports, waits=waits), self._reach(vm).log, ports, reading
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        with self._lock:
            self._pipes[vm.id] = writing
        crashpoint("ports.prepare:forwarder-spawned")
        ledger.activate(FORWARDER_KIND, marker, asdict(identity))

    def begin(self, vm_id: str, vmm: ProcessIdentity) -> None:
        """Tell a VM's forwarder which process to live as long as. Nothing happens if it knows already."""
        writing = self._pipe(vm_id)
        if writing is None:
            return
        with suppress(BrokenPipeError):  # it has ended; the next look finds out
            os.write(writing, f"{vmm.pid} {vmm.start_ticks}".encode())
        os.close(writing)

    def runs(self, ledger: VmLedger) -> bool:
        """The VM has a forwarder that lives."""
        return any(processes.is_same(_identity(handle)) for handle in ledger.of(FORWARDER_KIND))

    def watch(self, vm_id: str, ledger: VmLedger) -> None:
        """Hear of the end of the one that the VM has. Idempotent."""
        if self._endings is not None:
            for handle in ledger.of(FORWARDER_KIND):
                self._endings.watch(vm_id, _identity(handle))

    def can_reach(self, vm: Vm) -> bool:
        """Its machine has a way to its agent for a forwarder; one that an older banger started has none."""
        return self._reach(vm).path.exists()

    def end(self, vm_id: str, ledger: VmLedger) -> None:
        """End it, and cross it out; already gone is success. Raises ``timeout``."""
        self._end(vm_id, ledger)

    def host_objects(self) -> Sequence[HostObject]:
        """Every forwarder of this installation that runs."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
                marker = next((word.decode() for word in words if word.startswith(self._prefix.encode())), "")
                vm_id = marker.removeprefix(self._prefix)
                if len(vm_id) == ID_LENGTH and (identity := processes.find(marker)) is not None:
                    found.append(_host_object(marker, vm_id, identity))
        return found

    def _end(self, vm_id: str, ledger: VmLedger) -> None:
        if self._endings is not None:
            self._endings.unwatch(vm_id)
        writing = self._pipe(vm_id)
        if writing is not None:
            os.close(writing)
        for handle in ledger.of(FORWARDER_KIND):
            identity = _identity(handle)
            if not processes.is_same(identity):
                identity = processes.find(handle.key) or identity
            _kill(identity)
            crashpoint("ports.cleanup:forwarder-gone")
            ledger.strike(FORWARDER_KIND, handle.key)

    def _pipe(self, vm_id: str) -> int | None:
        with self._lock:
            return self._pipes.pop(vm_id, None)

    def _spawn(
        self, marker: str, way: dict[str, object], log_file: Path, ports: Sequence[Opened], reading: int
    ) -> ProcessIdentity:
        try:
            with (
                os.fdopen(os.memfd_create("ports", os.MFD_CLOEXEC), "wb") as config,
                os.fdopen(os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab") as log,
            ):
                config.write(json.dumps(way).encode())
                config.flush()
                package = str(Path(banger.__file__).parent.parent)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _START, marker, package, str(config.fileno()), str(reading)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    cwd="/",
                    env=vmm_environment(os.environ),
                    start_new_session=True,
                    pass_fds=(config.fileno(), reading, *(one.port.fileno() for one in ports)),
                )
        except OSError as error:
            raise _cannot_start(marker, error) from error
        process.returncode = 0  # reaped by its identity, and not behind our back
        return processes.identify(process.pid, marker)


def _identity(handle: Handle) -> ProcessIdentity:
    return (
        codec.from_plain(ProcessIdentity, handle.detail, tolerant=True)
        if handle.detail
        else ProcessIdentity(0, 0, "", handle.key)
    )


def _cannot_start(marker: str, error: OSError) -> BangerError:
    return BangerError(
        ErrorKind.UNAVAILABLE, "the process that forwards published ports cannot be started",
        subject=marker, cause=error.strerror or str(error), hint="banger doctor",
    )  # fmt: skip


def _kill(identity: ProcessIdentity) -> None:
    processes.kill(identity)
    if not processes.wait_gone(identity, _KILL_TIMEOUT_S):
        raise BangerError(
            ErrorKind.TIMEOUT, f"the forwarder {identity.pid} did not end within {_KILL_TIMEOUT_S:g} s of being killed",
            subject=identity.marker, hint=f"cat /proc/{identity.pid}/stack",
        )  # fmt: skip


def _host_object(marker: str, vm_id: str, identity: ProcessIdentity) -> HostObject:
    return HostObject(FORWARDER_KIND, marker, vm_id, "forwards published ports", lambda: _kill(identity))
