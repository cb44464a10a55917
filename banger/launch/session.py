"""Processes in their own sessions, independent of the daemon, limited by cgroups where we may create some."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.ports import HostObject
from banger.launch.cgroups import Cgroups, remove
from banger.launch.environment import vmm_environment
from banger.launch.jail import jailed
from banger.launch.port import Job
from banger.launch.process_namespace import in_process_namespace

#: The process enters its cgroup before it becomes the VMM: all of its memory is accounted there, and there is no
#: instant at which it runs unlimited. $0 is the file that takes its id.
_ENTER = 'echo $$ > "$0" && exec "$@"'


class SessionLauncher:
    """Starts children that are never waited for here; whoever holds their identity reaps them."""

    name = "session"
    kind = "cgroup"
    inherits = True

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups

    def key(self, vm_id: str) -> str:
        """The VM's cgroup, if it gets one."""
        return str(self._cgroups.path(vm_id)) if self._cgroups else ""

    def spawn(self, job: Job) -> int:
        """Start it: no pipe, no parent tie, its log in a file."""
        argv, entry = list(job.argv), None
        if self._cgroups:
            entry = self._cgroups.make(job.vm_id, job.limits) / "cgroup.procs"
            argv = ["/bin/sh", "-c", _ENTER, str(entry), *argv]
        if job.confinement:
            argv = jailed(job.confinement, job.argv, entry)
        argv = [*job.entering, *argv]
        with appending(job.output or job.log) as output, appending(job.log) as log:

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=log,
                    cwd="/",
                    env=vmm_environment(os.environ),
                    umask=0o077,
                    start_new_session=True,
                    pass_fds=tuple(job.descriptors),
                )

            sees_host = job.confinement is None or job.confinement.has_processes
            try:
                process = start() if sees_host else in_process_namespace(start)
            except OSError as error:
                raise cannot_execute(argv[0], error.strerror or str(error)) from error
        if not job.confinement:  # which sees to it itself, and is another user's by now
            with suppress(ProcessLookupError):  # what is in a guest's memory is nothing to be kept in a file
                resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        # From here the process belongs to its identity. Popen would reap it behind our back, and lose its exit status,
        # whenever another process is started, unless it believes the process to be gone.
        process.returncode = 0
        return process.pid

    def outcome(self, vm_id: str) -> Outcome:
        """Only whether memory ran out: the exit status is given to whoever reaps the process."""
        return Outcome(out_of_memory=self._cgroups is not None and self._cgroups.ran_out_of_memory(vm_id))

    def release(self, key: str) -> None:
        """Remove the cgroup, also one that an earlier daemon made elsewhere."""
        remove(Path(key))

    def host_objects(self) -> Sequence[HostObject]:
        """The cgroups of this installation."""
        return self._cgroups.host_objects() if self._cgroups else ()


def appending(log: Path) -> BinaryIO:
    """A log to append to, made if it is not there."""
    log.touch(mode=0o600)
    return log.open("ab")


def cannot_execute(program: str, cause: str) -> BangerError:
    """The error for a VMM that is not there or may not be run."""
    return BangerError(
        ErrorKind.UNAVAILABLE, f'cannot run "{program}"', subject=program, cause=cause, hint="banger doctor"
    )
