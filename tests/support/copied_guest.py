"""A guest that was started from a saved machine, as far as its identity goes; what it ``ignores`` stays as it was."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from random import Random

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.guest_identity import SeenIdentity
from banger.core.ports import EntryKind, GuestEntry, GuestIdentity, GuestNetwork
from banger.guest.hostkey import HostKeyMaker
from tests.support.scripted_guest import Script, ScriptedProcess

HOOKS = "/etc/banger/restore.d"
#: Who the machine was that all of these are copies of.
SAVED = SeenIdentity(
    hostname="parent",
    hostname_file="parent",
    machine_id="a" * 32,
    boot_id="00000000-0000-4000-8000-000000000001",
    vm_id="0" * 12,
    host_key=HostKeyMaker().own(bytes(32)).public,
    has_ssh_server=True,
    sshd_keys={"ssh_host_ed25519_key": "ssh-ed25519 AAAA", "ssh_host_dsa_key": "ssh-dss AAAA"},
    seeds={"/var/lib/systemd/random-seed": "12:1.5"},
    card="eth0",
    mac="02:00:00:00:00:01",
    is_up=True,
    addresses=("10.1.0.2/24", "fe80::1/64", "fd00::2/64"),
    gateways=("10.1.0.1", "fd00::1"),
    nameservers=("10.1.0.1",),
    has_ipv6=True,
)


class CopiedGuest:
    """Implements :class:`banger.core.ports.RunningGuest` in part.

    Attributes:
        now: who it is.
        behind_ns: how far its clock is behind.
        hooks: programs in the hooks' directory, by name, with what plays them; None is a file that is no program.
        masked: names of links to /dev/null there.
        asked: everything that it was asked for, in order.
    """

    def __init__(self, ignores: str = "", saved: SeenIdentity = SAVED) -> None:
        self.now = saved
        self.ignores = ignores
        self.behind_ns = 62 * 10**9
        self.hooks: dict[str, Script | None] = {}
        self.masked: list[str] = []
        self.ran: list[ExecRequest] = []
        self.asked: list[str] = []
        self._random = Random("the same in every copy")

    @property
    def machine(self) -> CopiedGuest:
        return self

    @property
    def files(self) -> CopiedGuest:
        return self

    async def identity(self) -> SeenIdentity:
        self.asked.append("identity")
        made = tuple(str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(8))
        return replace(self.now, clock_ns=clock.unix_ns() - self.behind_ns, random=made)

    async def add_entropy(self, seed: bytes) -> None:
        if self._heeds("random numbers"):
            self._random.seed(seed)

    async def set_clock(self, unix_ns: int) -> int:
        if self._heeds("clock"):
            self.behind_ns = clock.unix_ns() - unix_ns
        return 0

    async def identify(self, identity: GuestIdentity) -> None:
        if identity.hostname is not None and self._heeds("host name"):
            self.now = replace(self.now, hostname=identity.hostname, hostname_file=identity.hostname)
        if identity.machine_id is not None and self._heeds("machine-id"):
            self.now = replace(self.now, machine_id=identity.machine_id)
        if identity.boot_id is not None and self._heeds("boot id"):
            self.now = replace(self.now, boot_id=identity.boot_id)
        if identity.host_key is not None and self._heeds("ssh host key"):
            self.now = replace(self.now, host_key=identity.host_key[-32:].hex(), has_ssh_server=False)
        if identity.vm_id is not None and self._heeds("VM id"):
            self.now = replace(self.now, vm_id=identity.vm_id)

    async def forget_seeds(self) -> None:
        if self._heeds("random seeds"):
            self.now = replace(self.now, seeds={})

    async def set_network(self, network: GuestNetwork, mac: str = "") -> None:
        if self._heeds("network card"):
            addresses = tuple(filter(None, (network.address, "fe80::2/64", network.address6)))
            gateways = tuple(filter(None, (network.gateway, network.gateway6)))
            self.now = replace(self.now, mac=mac or self.now.mac, addresses=addresses, gateways=gateways)

    async def list(self, path: str, user: str = "") -> AsyncGenerator[GuestEntry]:
        assert path == HOOKS
        self.asked.append("hooks")
        if not self.hooks:
            raise BangerError(ErrorKind.NOT_FOUND, "no such directory")
        for name in self.masked:
            yield GuestEntry(name, EntryKind.LINK, 0o777, target="/dev/null")
        for name, hook in self.hooks.items():
            yield GuestEntry(name, EntryKind.FILE, 0o644 if hook is None else 0o755)

    async def remove(self, path: str, *, tree: bool = False, user: str = "") -> None:
        keys = {name: key for name, key in self.now.sshd_keys.items() if f"/etc/ssh/{name}" != path}
        self.now = replace(self.now, sshd_keys=keys)

    async def put(self, directory: str) -> ScriptedProcess:
        assert directory == "/etc/ssh"
        heeds = self._heeds("host keys of sshd")

        async def unpack(process: ScriptedProcess) -> ExitStatus:
            data = b""
            while (piece := await process.inputs.get()) is not None:
                data += piece
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for member in tar.getmembers() if heeds else ():
                    file = tar.extractfile(member)
                    assert file is not None
                    if member.name.endswith(".pub"):
                        key = " ".join(file.read().decode().split()[:2])
                        self.now = replace(self.now, sshd_keys={**self.now.sshd_keys, member.name[:-4]: key})
                    else:
                        assert member.mode == 0o600
            return ExitStatus(0)

        return ScriptedProcess(unpack)

    async def exec(self, request: ExecRequest) -> ScriptedProcess:
        async def nothing(process: ScriptedProcess) -> ExitStatus:
            return ExitStatus(0)

        self.ran.append(request)
        self.asked.append(f"exec {request.argv[0]}")
        return ScriptedProcess(self.hooks.get(request.argv[0].removeprefix(f"{HOOKS}/")) or nothing)

    def _heeds(self, item: str) -> bool:
        self.asked.append(item)
        return self.ignores != item
