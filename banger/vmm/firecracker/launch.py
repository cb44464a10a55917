"""Starting a Firecracker process that is independent of the daemon, and waiting until its machine runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, VmmConfig, entering
from banger.launch import Job, Launching
from banger.vmm import identity
from banger.vmm.firecracker import failures
from banger.vmm.firecracker.binary import Binary
from banger.vmm.firecracker.client import Api, ApiConnectError, ApiError, ApiTimeoutError
from banger.vmm.firecracker.configuration import configuration
from banger.vmm.log_files import begin_anew, note_command
from banger.vmm.starting import NotRunningError, start

#: From the start of the process until the machine runs; an emulated KVM takes seconds.
START_TIMEOUT_S = 30.0
#: What Firecracker needs besides the guest's memory, in MiB.
_OVERHEAD_MIB = 128
_POLL_S = 0.005
_REQUEST_TIMEOUT_S = 10.0
_CONFIGURATION = "fc.json"


def api_path(run_dir: Path) -> Path:
    """Where a VM's API socket is."""
    return run_dir / "fc.sock"


def launch(
    binary: Binary,
    config: VmmConfig,
    on_spawn: Callable[[ProcessIdentity], None],
    launching: Launching,
    token: CancelToken | None = None,
) -> ProcessIdentity:
    """Start Firecracker and return once its machine runs.

    Raises:
        BangerError: as :func:`banger.vmm.firecracker.failures.explain` reads its own words; no process is left then.
    """
    file, token = config.run_dir / _CONFIGURATION, token or CancelToken()
    whole = configuration(config)
    for stale in (api_path(config.run_dir), config.run_dir / AGENT_SOCKET):
        stale.unlink(missing_ok=True)  # it would refuse to make them
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        json.dump(whole, out)
    begin_anew(config.vmm_log)
    argv = command_line(binary, config, file)
    note_command(config.vmm_log, f"Firecracker {binary.text}", argv)
    limits = launching.limits(config.cpus, config.memory_mib, _OVERHEAD_MIB)
    job = Job(config.vm_id, argv, config.vmm_log, limits, output=config.console_log, entering=entering(config.devices))
    deadline = Deadline.after(START_TIMEOUT_S)
    return start(
        config,
        spawn=lambda: launching.spawn(job),
        wait_running=lambda spawned: _wait_running(config.run_dir, spawned, deadline, token),
        explain=failures.explain,
        on_spawn=on_spawn,
    )


def command_line(binary: Binary, config: VmmConfig, file: Path) -> Sequence[str]:
    """The argument list that starts the machine which ``file`` describes."""
    return [
        str(binary.path),
        "--id", vmm_marker(config.vm_id),
        "--api-sock", str(api_path(config.run_dir)),
        "--config-file", str(file),
        "--log-path", str(config.vmm_log),
        "--level", "Warning",  # at Info every look at the machine makes lines
    ]  # fmt: skip


def _wait_running(run_dir: Path, spawned: ProcessIdentity, deadline: Deadline, token: CancelToken) -> None:
    """It makes the socket first, and answers there once the machine is made."""
    while True:
        token.raise_if_cancelled()
        try:
            state = Api(api_path(run_dir), deadline.at_most(_REQUEST_TIMEOUT_S), token).get("/").get("state")
            if state == "Running":
                return
        except (ApiConnectError, ApiTimeoutError) as error:
            if not identity.is_same(spawned):
                raise NotRunningError(str(error)) from error
        except ApiError as error:
            raise NotRunningError(str(error)) from error
        if deadline.expired:
            raise NotRunningError("its machine does not run", timed_out=True)
        token.wait(_POLL_S)
