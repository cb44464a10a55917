"""Answering a DNS query, from bytes to bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from ipaddress import ip_address
from typing import TypeVar

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from loguru import logger

from banger.core.errors import BangerError
from banger.dns.model import Guest, World
from banger.dns.opening import limit_ttls, opening_of
from banger.dns.upstream import PAYLOAD_BYTES, Upstream
from banger.dns.zone import Zone, reverse_address

#: Seconds that the rest of the daemon may take for what a question needs.
WORLD_TIMEOUT_S = 3.0

_HEADER_BYTES = 12
_LOG_INTERVAL_S = 10.0
_DNS = dns.rdatatype
#: Types whose records carry addresses beside the chain of CNAMEs. Without them, programs ask for A and AAAA.
_HINTING = frozenset({_DNS.HTTPS, _DNS.SVCB})
#: Questions for what no resolver hands out.
_META = frozenset({_DNS.AXFR, _DNS.IXFR, _DNS.TSIG, _DNS.TKEY, _DNS.OPT, _DNS.MAILA, _DNS.MAILB})
T = TypeVar("T")


class Answerer:
    """Answers questions.

    Args:
        own_addresses: addresses of this host at which questions arrive; who asks from there is a program of the host.
        host_forwards: programs of the host may ask for any name.
    """

    def __init__(
        self,
        zone: Zone,
        world: World,
        upstream: Upstream,
        executor: Executor,
        own_addresses: Callable[[], Collection[str]],
        *,
        host_forwards: bool = False,
    ) -> None:
        self._zone = zone
        self._world = world
        self._upstream = upstream
        self._executor = executor
        self._own_addresses = own_addresses
        self._host_forwards = host_forwards
        self._logged_at = float("-inf")

    async def answer(self, wire: bytes, source: str, *, tcp: bool) -> bytes | None:
        """The answer to ``wire``, which came from the address ``source``; None where silence is the answer."""
        if len(wire) < _HEADER_BYTES or wire[2] & 0x80:  # an answer: two resolvers must not answer each other forever
            return None
        try:
            return await self._answer(wire, source, tcp=tcp)
        except Exception as error:  # noqa: BLE001  # the boundary: no question may end the resolver
            if time.monotonic() - self._logged_at > _LOG_INTERVAL_S:
                self._logged_at = time.monotonic()
                logger.opt(exception=error).warning("cannot answer a question of {}", source)
            return bare(wire, dns.rcode.SERVFAIL)

    async def _answer(self, wire: bytes, source: str, *, tcp: bool) -> bytes:
        if (wire[2] >> 3) & 0xF != dns.opcode.QUERY:
            return bare(wire, dns.rcode.NOTIMP)
        try:
            query = dns.message.from_wire(wire)
            response = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD_BYTES)
        except (dns.exception.DNSException, ValueError):
            return bare(wire, dns.rcode.FORMERR)
        if len(query.question) != 1:
            return bare(wire, dns.rcode.FORMERR)
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
        elif query.question[0].rdclass != dns.rdataclass.IN or query.question[0].rdtype in _META:
            _refuse(response, "only questions of the Internet class are answered, and no transfers")
        else:
            await self._fill(response, query, source)
        if query.edns >= 0 and query.ednsflags & dns.flags.DO:
            response.ednsflags |= dns.flags.DO
        largest = 65535 if tcp else min(max(query.payload if query.edns >= 0 else 512, 512), PAYLOAD_BYTES)
        return response.to_wire(max_size=largest, prefer_truncation=True)

    async def _fill(self, response: dns.message.Message, query: dns.message.Message, source: str) -> None:
        guest = None
        if not self._is_host(source):
            guest = await self._call(lambda: self._world.guest_of(source))
            if guest is None:
                _refuse(response, "only this host and its guests are answered")
                return
        question = query.question[0]
        if self._zone.covers(question.name):
            await self._fill_from_zone(response, question, guest)
            return
        address = reverse_address(question)
        if address is not None and (vm := await self._call(lambda: self._world.name_of(address))):
            self._zone.answer_reverse(response, question, vm)
            return
        await self._fill_from_outside(response, query, guest)

    def _is_host(self, source: str) -> bool:
        return ip_address(source).is_loopback or source in self._own_addresses()

    async def _fill_from_zone(
        self, response: dns.message.Message, question: dns.rrset.RRset, guest: Guest | None
    ) -> None:
        vm = self._zone.vm_name(question.name)
        addresses = None if vm is None else await self._call(lambda: self._world.addresses_of(vm, guest))
        if guest is not None and addresses is not None:
            # What the host reaches on its loopback interface would be the guest's own there.
            addresses = [address for address in addresses if not ip_address(address).is_loopback]
        self._zone.answer(response, question, addresses)

    async def _fill_from_outside(
        self, response: dns.message.Message, query: dns.message.Message, guest: Guest | None
    ) -> None:
        question = query.question[0]
        if guest is None and not self._host_forwards:
            _refuse(response, "other names are answered if dns.host_names is all")
            return
        if guest is not None and guest.allowed is not None and not guest.allowed.allows(question.name.labels):
            _refuse(response, "the policy of this VM does not allow this name")
            return
        is_limited = guest is not None and guest.allowed is not None
        if is_limited and question.rdtype in _HINTING:
            return
        answer = await self._upstream.ask(query)
        if answer is None:
            _fail(response, dns.edns.EDECode.NO_REACHABLE_AUTHORITY, "no resolver of the host answered")
            return
        if guest is not None and is_limited and not await self._open(question, answer, guest):
            _fail(response, dns.edns.EDECode.OTHER, "the way to the addresses could not be opened")
            return
        response.set_rcode(answer.rcode())
        response.flags |= answer.flags & dns.flags.AD
        response.answer, response.authority = answer.answer, answer.authority
        response.additional = answer.additional

    async def _open(self, question: dns.rrset.RRset, answer: dns.message.Message, guest: Guest) -> bool:
        """Open the way to what an answer names, before it is given."""
        opening = opening_of(question, answer.answer)
        limit_ttls(answer)
        if opening is None:
            return True
        try:
            await self._call(
                lambda: self._world.open_addresses(guest.vm_id, opening.addresses, opening.lifetime_s)
            )  # fmt: skip
        except (BangerError, OSError) as error:
            logger.warning("cannot open the way of VM {} to {}: {}", guest.vm_id, question.name, error)
            return False
        return True

    async def _call(self, function: Callable[[], T]) -> T:
        """Run what may block. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._executor, function), WORLD_TIMEOUT_S)


def bare(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """An answer that is a header alone, for a question that cannot be repeated; ``wire`` has a header at least."""
    flags = dns.flags.QR | ((wire[2] & 0x78) << 8) | ((wire[2] & 0x01) << 8) | rcode  # opcode and RD are echoed
    return wire[:2] + int(flags).to_bytes(2, "big") + bytes(8)


def _refuse(response: dns.message.Message, why: str) -> None:
    response.set_rcode(dns.rcode.REFUSED)
    _explain(response, dns.edns.EDECode.PROHIBITED, why)


def _fail(response: dns.message.Message, code: dns.edns.EDECode, why: str) -> None:
    response.set_rcode(dns.rcode.SERVFAIL)
    _explain(response, code, why)


def _explain(response: dns.message.Message, code: dns.edns.EDECode, why: str) -> None:
    """Say why, where the asker understands it (RFC 8914)."""
    if response.edns >= 0:
        options: list[dns.edns.Option] = [dns.edns.EDEOption(code, f"banger: {why}")]
        response.use_edns(0, 0, PAYLOAD_BYTES, response.request_payload, options=options)
