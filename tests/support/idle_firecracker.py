"""A genuine Firecracker that has no machine, and so needs no KVM: all else of its start is as the driver does it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from banger.core.cancel import Deadline
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, VmmConfig
from banger.launch import Job
from banger.vmm import identity as processes
from banger.vmm.firecracker import jail, launch
from banger.vmm.firecracker.binary import Binary
from banger.vmm.firecracker.client import Api, ApiError
from banger.vmm.firecracker.configuration import API_SOCKET
from banger.vmm.firecracker.metrics import begin_metrics, metrics_file
from banger.vmm.log_files import begin_anew
from tests.support.machines import make_launching

_TIMEOUT_S, _POLL_S = 30.0, 0.002


def start_idle(binary: Binary, config: VmmConfig, entering: Sequence[str] = ()) -> ProcessIdentity:
    """Start it, in its jail if the configuration names a user, and return once its API answers."""
    for name in (API_SOCKET, AGENT_SOCKET):
        (config.run_dir / name).unlink(missing_ok=True)
    begin_anew(config.vmm_log)
    begin_metrics(metrics_file(config.vmm_log))
    told = launch.arguments(config, jail.places(config) if config.uid else {})
    file = told.index("--config-file")
    argv = [*told[:file], *told[file + 2 :]]
    if config.uid:
        argv, seen = jail.command_line(config, binary, argv), jail.confinement(config, binary)
        jail.prepare(config, {})
    else:
        argv, seen = [str(binary.path), "--id", vmm_marker(config.vm_id), *argv], None
    job = Job(config.vm_id, argv, config.vmm_log, output=config.console_log, confinement=seen, entering=entering)
    identity = processes.identify(make_launching("session").spawn(job), vmm_marker(config.vm_id))
    deadline = Deadline.after(_TIMEOUT_S)
    while not _answers(config):
        assert processes.is_same(identity), config.vmm_log.read_text(encoding="utf-8")
        assert not deadline.expired, "it does not answer"
        time.sleep(_POLL_S)
    return identity


def _answers(config: VmmConfig) -> bool:
    try:
        return Api(launch.api_path(config.run_dir), 5.0).get("/")["id"] == vmm_marker(config.vm_id)
    except ApiError:
        return False
