"""Starting a Firecracker process that is independent of the daemon, and waiting until its machine runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, VmmConfig, entering
from banger.launch import Job, Launching
from banger.vmm import identity
from banger.vmm.cpu_time import threads_named
from banger.vmm.firecracker import failures, free, jail, loading
from banger.vmm.firecracker.binary import Binary
from banger.vmm.firecracker.client import Api, ApiConnectError, ApiError, ApiTimeoutError
from banger.vmm.firecracker.configuration import API_SOCKET, configuration
from banger.vmm.firecracker.metrics import begin_metrics, metrics_file
from banger.vmm.log_files import begin_anew, note_command
from banger.vmm.starting import NotRunningError, start

#: From the start of the process until the machine runs; an emulated KVM takes seconds.
START_TIMEOUT_S = 30.0
#: What Firecracker needs besides the guest's memory, in MiB.
_OVERHEAD_MIB = 128
_POLL_S = 0.005
_REQUEST_TIMEOUT_S = 10.0
_CONFIGURATION = "fc.json"
#: What Firecracker calls the threads of a guest's CPUs.
VCPU_THREADS = "fc_vcpu"


def api_path(run_dir: Path) -> Path:
    """Where a VM's API socket is."""
    return run_dir / API_SOCKET


def launch(
    binary: Binary,
    config: VmmConfig,
    on_spawn: Callable[[ProcessIdentity], None],
    launching: Launching,
    token: CancelToken | None = None,
) -> ProcessIdentity:
    """Start Firecracker and return once its machine runs, or stands still as it was saved.

    Raises:
        BangerError: as :func:`banger.vmm.firecracker.failures.explain` reads its own words; no process is left then.
    """
    token, where = token or CancelToken(), (jail if config.uid else free).places(config)
    files = {}
    if config.saved is None:
        files[_CONFIGURATION] = json.dumps(configuration(config, where))
    else:
        loading.check_form(config, config.saved, where)
    for stale in (api_path(config.run_dir), config.run_dir / AGENT_SOCKET):
        stale.unlink(missing_ok=True)  # it would refuse to make them
    begin_anew(config.vmm_log)
    begin_metrics(metrics_file(config.vmm_log))
    argv, confinement, inside = arguments(config, where), None, entering(config.devices)
    if config.uid:
        argv, confinement = jail.command_line(config, binary, argv), jail.confinement(config, binary)
        jail.prepare(config, files)
    else:
        argv = [str(binary.path), "--id", vmm_marker(config.vm_id), *argv]
        free.prepare(config, files)
        inside = (*inside, *free.entering(config.run_dir))
    note_command(config.vmm_log, f"Firecracker {binary.text}", argv)
    limits = launching.limits(config.cpus, config.memory_mib, _OVERHEAD_MIB)
    job = Job(config.vm_id, argv, config.vmm_log, limits, (), config.console_log, confinement, inside)
    deadline = Deadline.after(START_TIMEOUT_S)

    def wait_running(spawned: ProcessIdentity) -> None:
        if config.saved is None:
            _wait_running(config.run_dir, spawned, deadline, token)
        else:
            loading.load(config, config.saved, where, spawned, deadline, token)
        if config.uid:
            jail.seal(config)

    return start(
        config,
        spawn=lambda: launching.spawn(job),
        wait_running=wait_running,
        explain=failures.explain,
        on_spawn=on_spawn,
    )


def arguments(config: VmmConfig, where: Mapping[Path, Path]) -> list[str]:
    """What Firecracker is told besides its id; ``where`` it finds files as :func:`configuration` has it. Pure."""
    directory = where.get(config.run_dir, config.run_dir)
    return [
        "--api-sock", str(directory / API_SOCKET),
        *(("--config-file", str(directory / _CONFIGURATION)) if config.saved is None else ()),
        "--log-path", str(where.get(config.vmm_log, config.vmm_log)),
        "--level", "Warning",  # at Info every look at the machine makes lines
    ]  # fmt: skip


def _wait_running(run_dir: Path, spawned: ProcessIdentity, deadline: Deadline, token: CancelToken) -> None:
    while not _runs(run_dir, spawned, deadline, token):
        if not identity.is_same(spawned):
            raise NotRunningError("it has ended")
        if deadline.expired:
            raise NotRunningError("its machine does not run", timed_out=True)
        token.wait(_POLL_S)


def _runs(run_dir: Path, spawned: ProcessIdentity, deadline: Deadline, token: CancelToken) -> bool:
    """It makes the socket, then the machine, then the threads of its CPUs, and then it answers.

    Nothing is asked before: a request that waits while the machine cannot be made has the process end without a word of
    why (seen with 1.12.1: its thread for the API panics, which its own seccomp filter takes for a fault).
    """
    token.raise_if_cancelled()
    if not threads_named(VCPU_THREADS, spawned.pid):
        return False
    try:
        state = Api(api_path(run_dir), deadline.at_most(_REQUEST_TIMEOUT_S), token).get("/").get("state")
    except (ApiConnectError, ApiTimeoutError):
        return False
    except ApiError as error:
        raise NotRunningError(str(error)) from error
    return bool(state == "Running")
