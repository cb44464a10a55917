"""The name servers of the host's ``/etc/resolv.conf``, read again when the file changes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from loguru import logger

from banger.dns.model import NameServer

#: As the C library does (``MAXNS``, resolv.conf(5)).
_MOST_SERVERS = 3


def parse_nameservers(text: str) -> list[NameServer]:
    """The servers that a resolv.conf(5) names, in order. What is not an address is left out, as the C library does."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ip_address(words[1])
        except ValueError:
            continue
        servers.append(NameServer(words[1]))
    return servers[:_MOST_SERVERS]


class ResolvConf:
    """The servers of one file, as it is now."""

    def __init__(self, path: Path = Path("/etc/resolv.conf")) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._servers: list[NameServer] = []

    def servers(self) -> Sequence[NameServer]:
        """What the file names; empty if it cannot be read."""
        try:
            status = self._path.stat()
            now = (status.st_mtime_ns, status.st_ino, status.st_size)
            if now != self._seen:
                self._servers = parse_nameservers(self._path.read_text(errors="replace"))
                self._seen = now
                logger.debug("{} names {}", self._path, ", ".join(map(str, self._servers)) or "no server")
        except OSError as error:
            if self._servers:
                logger.warning("cannot read {}: {}", self._path, error)
            self._servers, self._seen = [], None
        return self._servers
