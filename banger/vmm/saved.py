"""Whether a saved machine can be loaded here: the same for every driver. Pure."""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import SavedMachine, VmmConfig


def check_loadable(config: VmmConfig, *, vmm: str, version: str, cpu: str) -> SavedMachine | None:
    """What the machine is to begin with, if anything.

    Args:
        config: the machine.
        vmm: the driver that is to load it.
        version: the release that it takes.
        cpu: as it would write down now, see :attr:`SavedMachine.cpu`.

    Raises:
        BangerError: ``unavailable`` for one that another driver or version saved, or a host with another CPU;
            ``invalid`` for one of another size.
    """
    saved = config.saved
    if saved is None:
        return None
    check_fits(saved, config.name, vmm=vmm, version=version, cpu=cpu, accelerator=config.accelerator)
    if saved.memory_mib != config.memory_mib:
        raise BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{config.name}" from its saved state: it has {config.memory_mib} MiB of memory',
            subject=config.name,
            cause=f"the saved machine had {saved.memory_mib} MiB",
        )
    return saved


def check_fits(saved: SavedMachine, name: str, *, vmm: str, version: str, cpu: str, accelerator: str) -> None:
    """Refuse a saved machine for the VM ``name`` by what it would run on.

    Raises:
        BangerError: ``unavailable``, as :func:`check_loadable`.
    """
    for what, then, now in (
        ("VMM", saved.vmm, vmm),
        (f"version of {vmm}", saved.vmm_version, version),
        ("CPU", saved.cpu, cpu),
        ("accelerator", saved.accelerator, accelerator),
    ):
        if then != now:
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'cannot start VM "{name}" from its saved state: it was saved with another {what}',
                subject=name,
                cause=f'saved with "{then}", here it would be "{now}"',
                hint="load it where it was saved, or start a VM from an image",
            )
