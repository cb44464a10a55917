"""The names of VMs as a DNS zone. Pure: a query and facts in, an answer out."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from banger.core.names import VM_NAME

#: Seconds that anybody may remember an answer about a VM: it may be gone in the next moment.
TTL_S = 5

_A, _AAAA, _ANY = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.ANY


class Zone:
    """All names that end in one suffix."""

    def __init__(self, suffix: str) -> None:
        self._apex = dns.name.from_text(suffix)

    def covers(self, name: dns.name.Name) -> bool:
        """True for the suffix itself and every name below it."""
        return name.is_subdomain(self._apex)

    def vm_name(self, name: dns.name.Name) -> str | None:
        """The VM that a name of the zone stands for, lower-case; None if no VM can have that name."""
        labels = name.relativize(self._apex).labels
        if len(labels) != 1:
            return None
        text = labels[0].lower().decode("ascii", "replace")
        return text if VM_NAME.match(text) else None

    def is_apex(self, name: dns.name.Name) -> bool:
        """True for the suffix itself."""
        return bool(name == self._apex)

    def answer(self, response: dns.message.Message, question: dns.rrset.RRset, addresses: Sequence[str] | None) -> None:
        """Answer a question about a name of the zone; None: there is no such VM."""
        response.flags |= dns.flags.AA
        if addresses is None and not self.is_apex(question.name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        for address in addresses or ():
            rdtype = _A if ip_address(address).version == 4 else _AAAA
            if question.rdtype in (rdtype, _ANY):
                rrset = response.find_rrset(
                    response.answer, question.name, dns.rdataclass.IN, rdtype, create=True
                )  # fmt: skip
                rrset.add(_rdata(rdtype, address), TTL_S)
        if self.is_apex(question.name) and question.rdtype in (dns.rdatatype.SOA, _ANY):
            response.answer.append(self._soa())
        if not response.answer:
            response.authority.append(self._soa())  # how long the absence may be remembered, RFC 2308 section 3

    def answer_reverse(self, response: dns.message.Message, question: dns.rrset.RRset, vm: str) -> None:
        """Answer which VM has an address."""
        response.flags |= dns.flags.AA
        target = dns.name.from_text(vm, self._apex)
        response.answer.append(dns.rrset.from_text(question.name, TTL_S, "IN", "PTR", target.to_text()))

    def _soa(self) -> dns.rrset.RRset:
        """A zone without other servers, never transferred."""
        here = self._apex.to_text()
        return dns.rrset.from_text(
            self._apex, TTL_S, "IN", "SOA", f"{here} nobody.{here} 1 3600 600 86400 {TTL_S}"
        )  # fmt: skip


def _rdata(rdtype: dns.rdatatype.RdataType, address: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, address)


def reverse_address(question: dns.rrset.RRset) -> str | None:
    """The numeric address that a PTR question is about; None if it is about none."""
    if question.rdtype not in (dns.rdatatype.PTR, _ANY):
        return None
    try:
        return str(ip_address(dns.reversename.to_address(question.name)))
    except (dns.exception.DNSException, ValueError):
        return None
