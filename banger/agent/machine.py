"""A guest's figures, clock, randomness and identity, as :class:`banger.core.ports.GuestMachine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from banger.agent import messages
from banger.agent.asking import Asker
from banger.agent.facts import MOST_BYTES, read_facts
from banger.agent.identity import WHOAMI, Identity, give, give_network, read_identity
from banger.agent.messages import FACTS, Result
from banger.agent.wire import WireError
from banger.core.errors import BangerError, ErrorKind
from banger.core.guest_facts import GuestFacts
from banger.core.guest_identity import SeenIdentity
from banger.core.names import check_guest_path
from banger.core.ports import GuestIdentity, GuestNetwork

_LONGEST_FREEZE_S = 60.0
_SEED_BYTES = range(32, 513)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AgentMachine:
    """Implements :class:`banger.core.ports.GuestMachine`."""

    asker: Asker

    async def facts(self) -> GuestFacts:
        """Its figures now."""
        return self._read(read_facts, await self.asker.collect(FACTS, MOST_BYTES, "tell its figures"))

    async def clock(self) -> int:
        """Its wall clock."""
        return self._number(messages.read_i64, await self.asker.ask(messages.clock(), "tell the time"))

    async def set_clock(self, unix_ns: int) -> int:
        """Set its wall clock; what it was just before."""
        if not 0 < unix_ns < 1 << 63:
            raise BangerError(ErrorKind.USAGE, f"{unix_ns} is no time that a clock can show")
        return self._number(
            messages.read_i64, await self.asker.ask(messages.clock(unix_ns, step=True), "set its clock")
        )

    async def add_entropy(self, seed: bytes) -> None:
        """Seed its random numbers anew."""
        if len(seed) not in _SEED_BYTES:
            raise BangerError(ErrorKind.USAGE, f"a seed of {len(seed)} bytes", hint="32 to 512 bytes")
        await self.asker.ask(messages.entropy(seed), "take the seed")

    async def identify(self, identity: GuestIdentity) -> None:
        """Give it an identity."""
        parts = {
            Identity.HOST_KEY: identity.host_key,
            Identity.MACHINE_ID: identity.machine_id,
            Identity.BOOT_ID: identity.boot_id,
            Identity.HOSTNAME: identity.hostname,
            Identity.VM_ID: identity.vm_id,
        }
        for what, value in parts.items():
            if value is not None:
                if isinstance(value, str) and "\0" in value:
                    raise BangerError(ErrorKind.USAGE, "a name cannot hold a NUL character")
                await self.asker.ask(give(what, value), f"change its {what.name.lower().replace('_', ' ')}")

    async def identity(self) -> SeenIdentity:
        """Who it is now."""
        return self._read(read_identity, await self.asker.collect(WHOAMI, MOST_BYTES, "tell who it is"))

    async def forget_seeds(self) -> None:
        """Remove the files by which it would repeat itself."""
        await self.asker.ask(give(Identity.SEEDS, b""), "remove its random seeds")

    async def set_network(self, network: GuestNetwork, mac: str = "") -> None:
        """Give its card other addresses."""
        await self.asker.ask(give_network(network, mac), "change its network card")

    async def freeze(self, mount_points: Sequence[str], within_s: float) -> int:
        """Bring file systems to a stand."""
        if not 0 < within_s <= _LONGEST_FREEZE_S:
            raise BangerError(ErrorKind.USAGE, f"file systems cannot be frozen for {within_s:g} s", hint="60 at most")
        request = messages.freeze(max(int(within_s * 1000), 1), [check_guest_path(one) for one in mount_points])
        stream = await self.asker.link.open(request)
        try:
            return self._number(messages.read_u32, await self.asker.answer(stream, "freeze its file systems"))
        except BaseException:
            stream.take_back()
            raise

    async def thaw(self, mount_points: Sequence[str]) -> int:
        """Let them go on; how many stood still until now."""
        request = messages.freeze(0, [check_guest_path(one) for one in mount_points], thaw=True)
        return self._number(messages.read_u32, await self.asker.ask(request, "thaw its file systems"))

    def _number(self, reader: Callable[[bytes], int], result: Result) -> int:
        return self._read(reader, result.fields)

    def _read(self, reader: Callable[[bytes], _T], data: bytes) -> _T:
        """An answer that makes no sense is no use, and does no harm beyond."""
        try:
            return reader(data)
        except WireError as error:
            message = "the guest's answer makes no sense"
            raise BangerError(ErrorKind.UNAVAILABLE, message, subject=self.asker.vm_id, cause=str(error)) from error
