"""Querying upstream resolvers: one query, one matching answer, or none in time."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Collection, Sequence

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.rcode
import dns.rrset
from loguru import logger

from banger.dns.model import NameServer

#: Seconds that one server may take for one try.
TRY_S = 2.0
#: Seconds until a question is given up; programs ask again after five (resolv.conf(5), ``timeout``).
TOTAL_S = 4.5
#: Times that all servers are tried.
ROUNDS = 2
#: What fits into one datagram everywhere, see DNS flag day 2020.
PAYLOAD_BYTES = 1232

_PASSED_FLAGS = dns.flags.RD | dns.flags.CD | dns.flags.AD
#: Another server may know better than one that answers so.
_NO_ANSWER = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR})


class Upstream:
    """The resolvers of the host.

    Args:
        servers: who may be asked, best first.
        own: where this process listens: asking there would go round in circles.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[NameServer]],
        own: Callable[[], Collection[NameServer]],
        *,
        try_s: float = TRY_S,
    ) -> None:
        self._servers = servers
        self._own = own
        self._try_s = try_s
        self._good: NameServer | None = None

    async def ask(self, query: dns.message.Message) -> dns.message.Message | None:
        """The answer to the one question of ``query``; None if there is none.

        Every try goes out with a random id from a random port, and takes an answer only from whom it asked, with that
        id and that question. A truncated answer is asked for again over TCP.
        """
        deadline = time.monotonic() + TOTAL_S
        last: dns.message.Message | None = None
        for _ in range(ROUNDS):
            for server in self._in_order():
                left_s = min(self._try_s, deadline - time.monotonic())
                if left_s <= 0:
                    return last
                answer = await self._try(server, _question_of(query), left_s)
                if answer is None:
                    continue
                if answer.rcode() not in _NO_ANSWER:
                    self._good = server
                    return answer
                last = answer
            if last is not None:
                return last
        return last

    def _in_order(self) -> list[NameServer]:
        """The one that answered last first, so that a dead one costs its time once."""
        own = self._own()
        servers = [server for server in self._servers() if server not in own]
        return sorted(servers, key=lambda server: server != self._good)

    async def _try(
        self, server: NameServer, query: dns.message.Message, timeout_s: float
    ) -> dns.message.Message | None:
        try:
            async with asyncio.timeout(timeout_s):
                family = dns.inet.af_for_address(server.address)
                backend = dns.asyncbackend.get_backend("asyncio")
                # Connected, so that "nobody listens there" is heard at once.
                made = backend.make_socket(family, socket.SOCK_DGRAM, 0, None, tuple(server))  # type: ignore[no-untyped-call]
                async with await made as connected:
                    answer, _ = await dns.asyncquery.udp_with_fallback(
                        query,
                        server.address,
                        timeout_s,
                        server.port,
                        ignore_unexpected=True,
                        ignore_errors=True,
                        udp_sock=connected,
                        backend=backend,
                    )
                return answer
        except (OSError, EOFError, ValueError, dns.exception.DNSException) as error:  # TimeoutError is an OSError
            logger.debug("{} did not answer: {}", server, str(error) or type(error).__name__)
            return None


def _question_of(query: dns.message.Message) -> dns.message.QueryMessage:
    """A question of our own that asks the same: nothing else of what a guest sent leaves this host."""
    asked: dns.rrset.RRset = query.question[0]
    wants_dnssec = bool(query.ednsflags & dns.flags.DO)
    question = dns.message.make_query(
        asked.name,
        asked.rdtype,
        asked.rdclass,
        use_edns=0,
        want_dnssec=wants_dnssec,
        payload=PAYLOAD_BYTES,
        id=secrets.randbits(16),
    )
    question.flags = (query.flags & _PASSED_FLAGS) | dns.flags.RD
    return question
