"""The Python SDK: machines, images, kernels and VMMs as objects.

    with banger.machine("debian") as vm:
        print(vm.exec(["uname", "-a"]).text)

    assert banger.run("alpine", ["true"]).returncode == 0

A daemon is started if none answers. Everything that fails raises :class:`banger.BangerError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from banger.client import Client, OnEvent, path_of
from banger.client.artifacts import Images, Kernels, typed
from banger.client.ceiling import MOST_BYTES
from banger.client.channel import ClientFrameChannel
from banger.client.conversation import converse
from banger.client.drivers import VmmPrograms
from banger.client.snapshots import Snapshots
from banger.config import Config
from banger.core.codec import from_plain, to_plain
from banger.core.errors import BangerError, ErrorKind
from banger.core.guest_facts import GuestFacts
from banger.core.models import Snapshot, Vm
from banger.core.wire.exec import ExecConfig, RunConfig
from banger.core.wire.port_forward import PortForward
from banger.core.wire.snapshots import ForkBody, RestoreBody, RewindBody
from banger.core.wire.vm_spec import SpecOptions, VmSpec, from_settings
from banger.core.wire.vms import CreateVmBody
from banger.layout import Layout


class ExecOptions(TypedDict, total=False):
    """How a command is run.

    ``input`` is its standard input, whole or in pieces; ``check`` raises if it fails. ``checkpoint`` takes a snapshot
    of the running machine first, which :meth:`Machine.rewind` goes back to.
    """

    input: bytes | Iterable[bytes]
    env: Mapping[str, str]
    user: str
    workdir: str
    timeout_s: float
    check: bool
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended. ``returncode`` is 128 + n after signal n."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Completed:
        """Return this, or raise ``internal`` if the command failed."""
        if self.returncode == 0:
            return self
        last = self.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        command = " ".join(self.argv)
        raise BangerError(
            ErrorKind.INTERNAL, f'"{command}" ended with status {self.returncode}', subject=command, cause=last
        )


class Banger:
    """One installation of banger."""

    def __init__(self, home: Path | str | None = None, *, start_daemon: bool = True) -> None:
        """Refer to an installation; nothing is started before it is needed.

        Args:
            home: the ``BANGER_HOME`` of an installation whose daemon runs already; otherwise this user's.
            start_daemon: start a daemon if none is running.
        """
        layout = Layout.from_environment({"BANGER_HOME": str(home)} if home else None)
        self._layout = layout
        self.client = Client(layout.socket, start_daemon=_starter(layout) if start_daemon and not home else None)
        self.vms = Vms(self.client, layout)
        self.images = Images(self.client)
        self.kernels = Kernels(self.client)
        self.drivers = VmmPrograms(self.client)
        self.snapshots = Snapshots(self.client)

    def __enter__(self) -> Banger:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between requests."""

    def run(
        self,
        image: str,
        argv: Sequence[str] = (),
        *,
        execution: ExecOptions | None = None,
        on_event: OnEvent | None = None,
        **spec: Unpack[SpecOptions],
    ) -> Completed:
        """Run one command in a new machine that is deleted afterwards.

        The image's entrypoint comes before ``argv``; an empty ``argv`` is the image's own command.
        """
        options = execution or {}
        config = RunConfig(self.vms.spec(image, ephemeral=True, **spec), exec=_exec_config(argv, options))
        return _converse(self.client.frames("/v1/vms/run", config), argv, options, on_event)

    def machine(self, image: str, *, name: str = "", **spec: Unpack[SpecOptions]) -> Machine:
        """Create and start a machine. As a context manager it deletes the machine at the end."""
        return self.vms.create(image, name=name, **spec)


class Vms:
    """The machines."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    def list(self, *, state: str = "", labels: Mapping[str, str] | None = None) -> list[Machine]:
        """The machines in ``state`` that have all of the ``labels``."""
        label = [f"{key}={value}" for key, value in (labels or {}).items()]
        rows = self._client.get("/v1/vms", {"state": state, "label": label})
        return [Machine(self._client, row) for row in rows]

    def get(self, query: str) -> Machine:
        """The one with this name, id, or unique prefix of either."""
        return Machine(self._client, self._client.get(path_of("vms", query)))

    def why(self, query: str) -> dict[str, Any]:
        """Why a machine stopped or failed, also a deleted one: the answer of ``GET /v1/vms/QUERY/why``."""
        answer: dict[str, Any] = self._client.get(path_of("vms", query, "why"))
        return answer

    def evidence(self) -> Sequence[dict[str, Any]]:
        """The evidence of failed machines, the newest first; ``why`` accepts their ids."""
        kept: Sequence[dict[str, Any]] = self._client.get("/v1/evidence")
        return kept

    def bundle(self, query: str) -> bytes:
        """All that is known about a failed machine as a ``tar.gz`` for a bug report, without secrets."""
        return b"".join(self._client.stream(path_of("vms", query, "why", "archive")))

    def create(
        self,
        image: str,
        *,
        name: str = "",
        start: bool = True,
        on_event: OnEvent | None = None,
        **spec: Unpack[SpecOptions],
    ) -> Machine:
        """Create a machine, and start it unless ``start`` is false."""
        body = CreateVmBody(self.spec(image, **spec), name, start)
        return Machine(self._client, self._client.long("POST", "/v1/vms", body=body, on_event=on_event))

    def restore(
        self, snapshot: str, *, name: str = "", ports: Sequence[PortForward] = (), on_event: OnEvent | None = None
    ) -> Machine:
        """Create a machine that goes on from a snapshot. What the saved one published is not inherited."""
        body = RestoreBody(name, tuple(ports))
        path = path_of("snapshots", snapshot, "restore")
        return Machine(self._client, self._client.long("POST", path, body=body, on_event=on_event))

    def fork(
        self,
        snapshot: str,
        count: int = 1,
        *,
        name: str = "",
        ports: Sequence[PortForward] = (),
        on_event: OnEvent | None = None,
    ) -> Sequence[Machine]:
        """Create running copies of the machine of a snapshot, all or none; as :meth:`Machine.fork` of a machine."""
        path, body = path_of("snapshots", snapshot, "fork"), ForkBody(count, name, tuple(ports))
        return [Machine(self._client, row) for row in self._client.long("POST", path, body=body, on_event=on_event)]

    def spec(self, image: str, *, ephemeral: bool = False, **spec: Unpack[SpecOptions]) -> VmSpec:
        """A spec, with defaults from the settings.

        Raises:
            BangerError: ``usage`` for an invalid value of a field.
        """
        given: dict[str, Any] = {**spec}
        if "env" in given:
            given["env"] = _assignments(given["env"])
        decided = from_settings(Config.load(self._layout.config_file).chosen)
        plain = {**decided, **to_plain(given), "image": image, "ephemeral": ephemeral}
        return from_plain(VmSpec, plain)


class Machine:
    """One machine. ``info`` is its state when it was last fetched: see :meth:`refresh`."""

    def __init__(self, client: Client, row: Mapping[str, Any]) -> None:
        self._client = client
        self.info = typed(Vm, row)

    @property
    def id(self) -> str:
        """Its id, which never changes."""
        return self.info.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.info.name

    def __repr__(self) -> str:
        return f"<Machine {self.name} ({self.id}) {self.info.state.value}>"

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete it, running or not; it is no error if it is gone already."""
        try:
            self.delete(force=True)
        except BangerError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise

    def refresh(self) -> Vm:
        """Ask for its present state."""
        self.info = typed(Vm, self._client.get(path_of("vms", self.id)))
        return self.info

    def start(self, *, cold: bool = False) -> Machine:
        """Start it; a running one is left alone, a suspended one goes on, or boots if it is to start ``cold``."""
        return self._act("start", {"cold": True} if cold else None)

    def suspend(self) -> Machine:
        """Save its memory to the disk and end it; it goes on when it is started, or used."""
        return self._act("suspend")

    def stop(self, *, timeout_s: float | None = None) -> Machine:
        """Ask the guest to power off, and kill it if that takes longer than ``timeout_s``."""
        return self._act("stop", {"timeout_s": timeout_s})

    def restart(self, *, timeout_s: float | None = None) -> Machine:
        """Stop it as :meth:`stop` does, and start it again, as one request."""
        return self._act("restart", {"timeout_s": timeout_s})

    def kill(self) -> Machine:
        """End it at once."""
        return self._act("kill")

    def wait(self, until: str = "stopped", *, timeout_s: float | None = None) -> Machine:
        """Wait until it is ``stopped`` or ``running``. Raises ``timeout``."""
        return self._act("wait", {"until": until, "timeout_s": timeout_s}, method="GET")

    def snapshot(self, name: str = "", *, stop: bool = False) -> Snapshot:
        """Take a snapshot of it; it keeps running unless ``stop`` ends it then."""
        return Snapshots(self._client).create(self.id, name=name, stop=stop)

    def rewind(self, snapshot: str = "", *, on_event: OnEvent | None = None) -> Machine:
        """Take it back, in its place, to a snapshot of it: by default its newest. What it has done since is lost."""
        path = path_of("vms", self.id, "rewind")
        self.info = typed(Vm, self._client.long("POST", path, body=RewindBody(snapshot), on_event=on_event))
        return self

    def fork(
        self,
        count: int = 1,
        *,
        name: str = "",
        ports: Sequence[PortForward] = (),
        on_event: OnEvent | None = None,
    ) -> list[Machine]:
        """Create running copies of it, all or none; it keeps running.

        Args:
            count: how many.
            name: a pattern with ``{n}`` for the number of each, or the name of the only one; made up if empty.
            ports: that each of them publishes.
            on_event: gets the events of the work.
        """
        body = ForkBody(count, name, tuple(ports))
        rows = self._client.long("POST", path_of("vms", self.id, "fork"), body=body, on_event=on_event)
        return [Machine(self._client, row) for row in rows]

    def delete(self, *, force: bool = False) -> None:
        """Delete it and its disk; ``force`` also while it runs."""
        self._client.long("DELETE", path_of("vms", self.id), {"force": True} if force else None)

    def exec(self, argv: Sequence[str] = (), **options: Unpack[ExecOptions]) -> Completed:
        """Run a command in it, whatever the image's entrypoint; an empty ``argv`` is a shell that reads ``input``."""
        config = _exec_config(argv, options)
        return _converse(self._client.frames(path_of("vms", self.id, "exec"), config), argv, options, None)

    def copy_in(self, source: Path | str, target: str, *, follow_link: bool = False, archive: bool = False) -> None:
        """Copy a local file or directory to ``target`` in the guest, as ``banger vm cp`` does.

        When this returns, all of it is on the guest's disk.
        """
        from banger.client.copying import CopyOptions, copy_in  # noqa: PLC0415  # rarely needed

        copy_in(self._client, self.id, str(source), target, CopyOptions(follow_link, archive))

    def copy_out(
        self,
        source: str,
        target: Path | str,
        *,
        follow_link: bool = False,
        archive: bool = False,
        max_bytes: int = MOST_BYTES,
    ) -> list[str]:
        """Copy out of the guest; what was left out because it must not come to this host, a line each.

        Raises ``exhausted`` if the guest sends more than ``max_bytes``, or than there is room for.
        """
        from banger.client.copying import CopyOptions, copy_out  # noqa: PLC0415  # rarely needed

        options = CopyOptions(follow_link, archive, most_bytes=max_bytes)
        return copy_out(self._client, self.id, source, str(target), options)

    def copy_to(
        self,
        source: str,
        other: Machine,
        target: str,
        *,
        follow_link: bool = False,
        archive: bool = False,
        max_bytes: int = MOST_BYTES,
    ) -> list[str]:
        """Copy from this guest to ``target`` in another's; what was left out, a line each."""
        from banger.client.copying import CopyOptions, copy_across  # noqa: PLC0415  # rarely needed

        options = CopyOptions(follow_link, archive, most_bytes=max_bytes)
        return copy_across(self._client, (self.id, source), (other.id, target), options)

    def facts(self) -> GuestFacts:
        """What the running guest says about itself now: load, memory, disks, addresses. Raises ``conflict``."""
        return typed(GuestFacts, self._client.get(path_of("vms", self.id, "facts")))

    def logs(self, source: str = "console", *, follow: bool = False) -> Iterator[bytes]:
        """The console's or (``vmm``) the hypervisor's log, in pieces."""
        return self._client.stream(path_of("vms", self.id, "logs"), {"source": source, "follow": follow or None})

    def _act(self, action: str, query: Mapping[str, Any] | None = None, *, method: str = "POST") -> Machine:
        self.info = typed(Vm, self._client.long(method, path_of("vms", self.id, action), query))
        return self


def run(image: str, argv: Sequence[str] = (), **spec: Unpack[SpecOptions]) -> Completed:
    """:meth:`Banger.run` on this user's installation."""
    return Banger().run(image, argv, **spec)


def machine(image: str, *, name: str = "", **spec: Unpack[SpecOptions]) -> Machine:
    """:meth:`Banger.machine` on this user's installation."""
    return Banger().machine(image, name=name, **spec)


def _starter(layout: Layout) -> Callable[[], None]:
    def start() -> None:
        from banger.client.autostart import start_daemon  # noqa: PLC0415  # brings subprocess

        start_daemon(layout)

    return start


def _assignments(env: Mapping[str, str] | None) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in (env or {}).items())


def _exec_config(argv: Sequence[str], options: ExecOptions) -> ExecConfig:
    return ExecConfig(
        tuple(argv),
        _assignments(options.get("env")),
        options.get("user", ""),
        options.get("workdir", ""),
        timeout_s=options.get("timeout_s"),
        checkpoint="auto" if options.get("checkpoint") else "",
    )


def _converse(
    channel: ClientFrameChannel, argv: Sequence[str], options: ExecOptions, on_event: OnEvent | None
) -> Completed:
    ended = converse(channel, options.get("input", b""), on_event)
    done = Completed(tuple(argv), ended.code, ended.stdout, ended.stderr)
    return done.check() if options.get("check") else done
