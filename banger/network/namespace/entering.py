"""Commands that start a program in the namespaces of another process: nsenter(1), setpriv(1). Pure.

Only root may enter a network namespace without the user namespace that owns it. Others have every capability in a user
namespace that they made (user_namespaces(7)), and the program that they start there would have, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """How this user enters.

    Attributes:
        nsenter, setpriv: paths of the programs.
        is_root: the real one.
    """

    nsenter: str
    setpriv: str
    is_root: bool

    def with_rights(self, pid: int) -> tuple[str, ...]:
        """For a program that makes taps and rules there."""
        network = f"--net=/proc/{pid}/ns/net"
        if self.is_root:
            return (self.nsenter, network, "--")
        return (self.nsenter, f"--user=/proc/{pid}/ns/user", network, "--preserve-credentials", "--")

    def without_rights(self, pid: int) -> tuple[str, ...]:
        """For a program that uses what is there: as an ordinary user, it has no capability in there either."""
        if self.is_root:
            return self.with_rights(pid)
        drop = (self.setpriv, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--")
        return (*self.with_rights(pid), *drop)
