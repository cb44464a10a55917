"""Running check scripts in a guest, in the shell of banger's toolbox, so that any image will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from banger.client import Client, path_of
from banger.client.channel import ClientFrameChannel
from banger.client.conversation import Ended, converse
from banger.core.console import last_lines
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType
from banger.core.wire.exec import ExecConfig

#: The one program that every guest has, whatever its image holds (docs/guest.md). Scripts know it as ``$B``.
BUSYBOX = "/run/banger/bin/busybox"
#: How much longer than the guest is given we wait for the daemon to say so, in seconds.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """How a script ended and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output, stripped."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def complaint(self) -> str:
        """The last lines of standard error."""
        return last_lines(self.stderr.decode(errors="replace"))


class Guest:
    """One running VM."""

    def __init__(self, client: Client, vm: Mapping[str, Any]) -> None:
        """``vm`` is its row, as the daemon shows it."""
        self.client = client
        self.vm = vm

    @property
    def id(self) -> str:
        """The VM's id."""
        return str(self.vm["id"])

    @property
    def network(self) -> str:
        """Which network it is on."""
        return str(self.vm.get("network") or self.vm["spec"]["network"])

    def shell(self, script: str, *args: str, stdin: bytes = b"", timeout_s: float = 30.0) -> ScriptResult:
        """Run a script as root, its arguments as ``$1``…; raises ``timeout``, and what kept it from running."""
        channel = self._channel(script, args, timeout_s)
        ended: Ended = converse(channel, stdin, timeout_s=timeout_s + _GRACE_S)
        return ScriptResult(ended.code, ended.stdout, ended.stderr)

    def talk(self, script: str, timeout_s: float = 30.0) -> ScriptDialog:
        """Start a script to hold a conversation with, line by line."""
        return ScriptDialog(self._channel(script, (), timeout_s), timeout_s)

    def console(self) -> str:
        """What the VM wrote to its console so far."""
        return b"".join(self.client.stream(path_of("vms", self.id, "logs"), {"source": "console"})).decode(
            errors="replace"
        )

    def _channel(self, script: str, args: tuple[str, ...], timeout_s: float) -> ClientFrameChannel:
        config = ExecConfig(
            (BUSYBOX, "sh", "-c", f"B={BUSYBOX}\n{script}", "doctor", *args),
            user="0",  # images may know no names, and name a user of their own
            workdir="/",
            timeout_s=timeout_s,
        )
        return self.client.frames(path_of("vms", self.id, "exec"), config)


class ScriptDialog:
    """A script that answers every line it is sent with one. Use as a context manager."""

    def __init__(self, channel: ClientFrameChannel, timeout_s: float) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._heard = bytearray()

    def __enter__(self) -> ScriptDialog:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def ask(self) -> str:
        """Send an empty line; the line that comes back. Raises ``timeout``; ``unavailable`` if the script ended."""
        self._channel.put(FrameType.STDIN, b"\n")
        while b"\n" not in self._heard:
            frame = self._channel.receive(self._timeout_s)
            if frame is None:
                raise BangerError(ErrorKind.TIMEOUT, f"the guest did not answer within {self._timeout_s:g} s")
            kind, payload = frame
            if kind is FrameType.STDOUT:
                self._heard += payload
            elif kind is FrameType.EXIT:
                raise BangerError(ErrorKind.UNAVAILABLE, "the guest's shell ended before it answered")
        line, _, rest = bytes(self._heard).partition(b"\n")
        self._heard = bytearray(rest)
        return line.decode(errors="replace").strip()
