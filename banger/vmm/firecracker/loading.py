"""A machine that begins with what another one was: told of it instead of a configuration, once Firecracker answers.

It maps the saved memory privately: pages are read when the guest needs them, those that it never writes are shared by
all who load it, and the file does not change. In a jail its user may open that file while it loads, and at no other
time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import SavedMachine, VmmConfig
from banger.vmm import handing, identity
from banger.vmm.firecracker.client import Api, ApiConnectError, ApiError, ApiTimeoutError
from banger.vmm.firecracker.configuration import API_SOCKET, configuration, form_of, tap_overrides
from banger.vmm.firecracker.metrics import metrics_file
from banger.vmm.firecracker.saving import FORM
from banger.vmm.starting import NotRunningError

_POLL_S = 0.005
_REQUEST_TIMEOUT_S = 10.0


def check_form(config: VmmConfig, saved: SavedMachine, where: Mapping[Path, Path]) -> None:
    """Raise ``invalid`` if the saved machine was another one."""
    then, now = saved.details.get(FORM, ""), form_of(configuration(config, where))
    if then != now:
        raise BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{config.name}" from its saved state: it was another machine',
            subject=config.name,
            cause=f"saved with {then}, here it would be {now}",
        )


def load(
    config: VmmConfig,
    saved: SavedMachine,
    where: Mapping[Path, Path],
    spawned: ProcessIdentity,
    deadline: Deadline,
    token: CancelToken,
) -> None:
    """Have a process that has no machine take over the saved one, which stands still.

    Raises:
        NotRunningError: it does not.
    """

    def found(path: Path) -> str:
        return str(where.get(path, path))

    _wait_answering(config, spawned, deadline, token)
    api = Api(config.run_dir / API_SOCKET, deadline.at_most(60.0), token)
    wish: dict[str, object] = {
        "snapshot_path": found(saved.devices),
        "mem_backend": {"backend_type": "File", "backend_path": found(saved.memory)},
        "resume_vm": False,
    }
    if overrides := tap_overrides(config):
        wish["network_overrides"] = overrides
    try:
        api.put("/metrics", {"metrics_path": found(metrics_file(config.vmm_log))})
        with handing.lent((saved.memory, saved.devices), config.uid) if config.uid else nullcontext():
            api.put("/snapshot/load", wish)
        if (state := api.get("/").get("state")) != "Paused":
            raise NotRunningError(f"its machine is in the state {state}")
    except ApiError as error:
        raise NotRunningError(str(error), timed_out=isinstance(error, ApiTimeoutError)) from error


def _wait_answering(config: VmmConfig, spawned: ProcessIdentity, deadline: Deadline, token: CancelToken) -> None:
    while True:
        token.raise_if_cancelled()
        try:
            Api(config.run_dir / API_SOCKET, deadline.at_most(_REQUEST_TIMEOUT_S), token).get("/")
        except ApiConnectError:
            pass
        except ApiError as error:
            raise NotRunningError(str(error), timed_out=isinstance(error, ApiTimeoutError)) from error
        else:
            return
        if not identity.is_same(spawned):
            raise NotRunningError("it has ended")
        if deadline.expired:
            raise NotRunningError("it does not answer", timed_out=True)
        token.wait(_POLL_S)
