"""What a guest is given in a renewal, and how each item of it gets there."""

from __future__ import annotations

import io
import secrets
import tarfile
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from banger.actors.guest_commands import run_to_end
from banger.actors.restore_hooks import HOOK_LIMIT_S, MOST_HOOKS, run_hooks
from banger.core import clock, identity
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.guest_identity import SeenIdentity
from banger.core.identity import CLOCK_TOLERANCE_NS, IdentityItem, NewIdentity, Renewal
from banger.core.ports import GuestIdentity, GuestProcess, HostKeys, RunningGuest, ServerKey

#: How long a guest may take for one item; each of its requests has a limit of its own.
ITEM_TIMEOUT_S = 120.0
_SEED_BYTES = 64
_CLOCK_TRIES = 5
_SSHD_DIRECTORY = "/etc/ssh"
#: sshd reads its host keys when it starts, and again at HUP (sshd(8)); its pid file is where distributions have it.
#: journald writes to a directory that is named by the machine-id, with the boot id, as it knows them from its start:
#: journalctl would find nothing there. systemd starts it again at once, with what it had open; asking systemd for that
#: would take longer. What is not there, or does not heed, is not missed.
_TELL_SERVICES = """
for file in /run/sshd.pid /var/run/sshd.pid; do
    read -r pid 2>/dev/null <$file && read -r name 2>/dev/null </proc/$pid/comm && [ "$name" = sshd ] || continue
    kill -HUP "$pid"
    break
done
for place in /sys/fs/cgroup /sys/fs/cgroup/systemd; do
    read -r pid 2>/dev/null <$place/system.slice/systemd-journald.service/cgroup.procs || continue
    kill "$pid"
    break
done
true
"""
_TOOLBOX_SHELL = "/run/banger/bin/sh"


@dataclass(frozen=True, slots=True)
class Makings:
    """One renewal's new identity, with the private halves of its keys.

    Attributes:
        has_services: the guest has some that remember who it was.
        changes_network: the guest's card is to have another MAC, or other addresses, than it has.
        host_key: the file of banger's own ssh server.
        sshd_keys: by the names of their files, of the image's own; None for one that is removed.
    """

    renewal: Renewal
    wanted: NewIdentity
    has_services: bool
    changes_network: bool
    host_key: bytes
    sshd_keys: Mapping[str, ServerKey | None]


@dataclass(frozen=True, slots=True)
class ItemWork:
    """How one item gets into a guest.

    Attributes:
        renew: does it; raises what the guest answers.
        is_needed: it is known beforehand that there is something to do.
        step: what its step is called.
        limit_s: how long all of it may take.
    """

    step: str
    renew: Callable[[Makings, RunningGuest], Coroutine[Any, Any, None]]
    is_needed: Callable[[Makings], bool] = lambda _: True
    limit_s: float = ITEM_TIMEOUT_S


def make_identity(renewal: Renewal, saved: SeenIdentity, keys: HostKeys) -> Makings:
    """Who a guest is to be that says that it is ``saved``. Takes a moment if it has an sshd with an RSA key."""
    own = keys.own(renewal.host_key_seed)
    renews_sshd = renewal.event in identity.SSHD_KEYS.events
    sshd_keys = {name: keys.openssh(name) for name in saved.sshd_keys} if renews_sshd else {}
    changes_network = identity.network_changes(renewal, saved)
    wanted = NewIdentity(
        vm_id=renewal.vm_id,
        hostname=renewal.hostname,
        machine_id=secrets.token_hex(16) if saved.machine_id else "",
        boot_id=str(uuid.uuid4()),
        host_key=own.public,
        sshd_keys={name: key.public for name, key in sshd_keys.items() if key is not None},
        mac=renewal.mac,
        network=renewal.network,
    )
    has_services = saved.has_systemd or bool(sshd_keys)
    return Makings(renewal, wanted, has_services, changes_network, own.private, sshd_keys)


async def _seed(makings: Makings, guest: RunningGuest) -> None:  # noqa: ARG001
    await guest.machine.add_entropy(secrets.token_bytes(_SEED_BYTES))


async def _set_clock(makings: Makings, guest: RunningGuest) -> None:  # noqa: ARG001
    """A guest that gets little of its processor sets it late; then it is behind by as much."""
    for _ in range(_CLOCK_TRIES):
        begun_ns = clock.unix_ns()
        await guest.machine.set_clock(begun_ns)
        if clock.unix_ns() - begun_ns < CLOCK_TOLERANCE_NS // 2:
            break


async def _set_hostname(makings: Makings, guest: RunningGuest) -> None:
    await guest.machine.identify(GuestIdentity(hostname=makings.wanted.hostname))


async def _set_machine_id(makings: Makings, guest: RunningGuest) -> None:
    await guest.machine.identify(GuestIdentity(machine_id=makings.wanted.machine_id))


async def _set_boot_id(makings: Makings, guest: RunningGuest) -> None:
    await guest.machine.identify(GuestIdentity(boot_id=makings.wanted.boot_id))


async def _set_host_key(makings: Makings, guest: RunningGuest) -> None:
    await guest.machine.identify(GuestIdentity(host_key=makings.host_key))


async def _replace_sshd_keys(makings: Makings, guest: RunningGuest) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, key in makings.sshd_keys.items():
            if key is None:
                await guest.files.remove(f"{_SSHD_DIRECTORY}/{name}")
                continue
            _add_file(tar, name, key.private, 0o600)
            _add_file(tar, f"{name}.pub", f"{key.public} root@{makings.wanted.hostname}\n".encode(), 0o644)
    await _finish(await guest.files.put(_SSHD_DIRECTORY), "write its keys", archive.getvalue())


async def _forget_seeds(makings: Makings, guest: RunningGuest) -> None:  # noqa: ARG001
    await guest.machine.forget_seeds()


async def _set_network(makings: Makings, guest: RunningGuest) -> None:
    if makings.wanted.network is not None:
        await guest.machine.set_network(makings.wanted.network, makings.wanted.mac)


async def _set_vm_id(makings: Makings, guest: RunningGuest) -> None:
    await guest.machine.identify(GuestIdentity(vm_id=makings.wanted.vm_id))


async def _tell_services(makings: Makings, guest: RunningGuest) -> None:  # noqa: ARG001
    request = ExecRequest((_TOOLBOX_SHELL, "-c", _TELL_SERVICES), user="root", has_input=False)
    await _finish(await guest.exec(request), "tell its services")


async def _run_hooks(makings: Makings, guest: RunningGuest) -> None:
    await run_hooks(guest, makings.renewal)


RENEWING: Mapping[IdentityItem, ItemWork] = {
    identity.RANDOM_NUMBERS: ItemWork("renew random numbers", _seed),
    identity.CLOCK: ItemWork("set clock", _set_clock),
    identity.HOSTNAME: ItemWork("renew host name", _set_hostname),
    identity.MACHINE_ID: ItemWork("renew machine-id", _set_machine_id, lambda makings: bool(makings.wanted.machine_id)),
    identity.BOOT_ID: ItemWork("renew boot id", _set_boot_id),
    identity.HOST_KEY: ItemWork("renew ssh host key", _set_host_key),
    identity.SSHD_KEYS: ItemWork("renew keys of sshd", _replace_sshd_keys, lambda makings: bool(makings.sshd_keys)),
    identity.SEEDS: ItemWork("remove random seeds", _forget_seeds),
    identity.NETWORK: ItemWork("renew network card", _set_network, lambda makings: makings.changes_network),
    identity.VM_ID: ItemWork("renew VM id", _set_vm_id),
    identity.SERVICES: ItemWork("tell services", _tell_services, lambda makings: makings.has_services),
    identity.HOOKS: ItemWork("run hooks", _run_hooks, limit_s=MOST_HOOKS * HOOK_LIMIT_S),
}


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), mode, int(clock.now().timestamp())
    tar.addfile(member, io.BytesIO(content))


async def _finish(process: GuestProcess, doing: str, given: bytes = b"") -> None:
    """Give a command its input and wait for its end, which has to be a good one."""
    code, words = await run_to_end(process, given)
    if code:
        raise BangerError(ErrorKind.UNAVAILABLE, f"the guest cannot {doing}", cause=words or f"exit code {code}")
