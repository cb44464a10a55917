"""A whole check-up: choose, boot, check, compare, clean up; through the daemon's API, like any client."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

from banger.checkup import hostside, leftovers, plan
from banger.checkup.machine import Trial, Watcher
from banger.checkup.network import NetworkBaseline
from banger.checkup.probe_server import ProbeServer
from banger.checkup.report import MachineReport, Report, Row, Verdict, is_ok
from banger.client import Client, path_of
from banger.config import Config
from banger.core.errors import BangerError
from banger.core.wire.images import PullImageBody
from banger.core.wire.vm_spec import VmSpec
from banger.layout import Layout

#: Marks the VMs of a check-up; the value is that of one run.
LABEL = "banger.checkup"
_RESTART = "this is what the daemon finds, and here it is otherwise: banger daemon stop, and try again"
_GONE_WITHIN_S, _GONE_POLL_S = 10.0, 0.25
_SWEEP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class CheckupOptions:
    """What was asked for; what is empty is chosen.

    Attributes:
        networks: each is tried with every accelerator; empty: the configured one.
        reach: host and port beyond this host that guests are to reach.
    """

    image: str = ""
    kernel: str = ""
    networks: Sequence[str] = ()
    reach: tuple[str, int] | None = None


class CheckupObserver(Watcher, Protocol):
    """Whoever shows it, and is told what takes long."""

    def tell(self, message: str) -> None:
        """One line for people."""

    def fetching(self, event: Mapping[str, Any] | None) -> None:
        """As :meth:`event`, of what takes minutes."""


class Checkup:
    """One run."""

    def __init__(
        self, layout: Layout, config: Config, client: Client, options: CheckupOptions, observer: CheckupObserver
    ) -> None:
        self._layout = layout
        self._config = config
        self._client = client
        self._options = options
        self._observer = observer
        self._token = f"{os.getpid()}-{time.time_ns():x}"
        self._vm_ids: set[str] = set()

    def run(self) -> Report:
        """Everything; the report.

        Raises:
            BangerError: what kept it from beginning: no daemon, no VMM, an image that cannot be had.
        """
        began = time.monotonic()
        system = self._client.get("/v1/system")
        image = self._image()
        candidates = self._candidates(system, image)
        before = leftovers.look(self._client, self._layout)
        with _ended_by_signals(), self._swept(), ProbeServer() as listener:
            machines = [self._try(candidate, image, self._around(listener)) for candidate in candidates]
        host = (self._host_row(before),)
        self._observer.row(host[0])
        elapsed_s = round(time.monotonic() - began, 3)
        return Report(is_ok(machines, host), image, self._options.kernel, tuple(machines), host, elapsed_s)

    def _candidates(self, system: Mapping[str, Any], image: str) -> list[plan.Candidate]:
        """What to try."""
        prospects = self._prospects(str(system["accelerator"]), str(system.get("accelerator_reason", "")), image)
        networks = list(dict.fromkeys(self._options.networks)) or [self._config.text("vm.network")]
        return plan.candidates(prospects, [str(system["vmm"])], networks)

    def _prospects(self, daemons: str, daemons_reason: str, image: str) -> list[plan.AcceleratorOutlook]:
        """What to expect of each accelerator. The daemon's word counts: it may have other rights, or see other devices.

        Where both agree on KVM, what became of this very kernel on it is known better than what to expect in general.
        """
        from banger.vmm.survey import accelerator, engines  # noqa: PLC0415  # the daemon's world, for this question only

        found, setting = accelerator(self._layout, self._config), self._config.text("vmm.accelerator")
        if daemons != found.name:
            return plan.prospects(daemons, daemons_reason, _RESTART, setting)
        if setting != "auto" or found.name != "kvm":
            return plan.prospects(found.name, found.reason, found.hint, setting)
        engine = engines(self._layout, self._config).choose("", self._kernel_digest(image))
        return plan.prospects(engine.accelerator, engine.reason, "", setting)

    def _image(self) -> str:
        """The image to boot: as requested, the default, or the smallest here; fetched, and told, if there is none."""
        here = {image["name"]: image for image in self._client.get("/v1/images") if not image["broken"]}
        name = chosen_image(here, self._options.image, self._config.text("vm.image"))
        if self._options.image or name in here:
            return name
        self._observer.tell(f'no image is here yet: "{name}" is fetched first, which may take minutes')
        self._client.long("POST", "/v1/images/pull", body=PullImageBody(name), on_event=self._observer.fetching)
        return name

    def _kernel_digest(self, image: str) -> str:
        """Of the kernel that will be booted, if it is here; empty otherwise."""
        images = {one["name"]: one for one in self._client.get("/v1/images")}
        kernels = {one["name"]: one for one in self._client.get("/v1/kernels")}
        names = (self._options.kernel, images.get(image, {}).get("kernel", ""), self._config.text("vm.kernel"))
        chosen = next((name for name in names if name), "")
        return str(kernels.get(chosen, {}).get("digest", ""))

    def _around(self, listener: ProbeServer) -> NetworkBaseline:
        return NetworkBaseline(
            listener, hostside.default_route(), hostside.nameservers(),
            suffix=self._config.text("dns.suffix"), reach=self._options.reach,
        )  # fmt: skip

    def _try(self, candidate: plan.Candidate, image: str, around: NetworkBaseline) -> MachineReport:
        prospect = candidate.prospect
        if not prospect.usable:
            self._observer.machine(candidate)
            return MachineReport(
                prospect.accelerator, candidate.driver, candidate.network,
                usable=False, reason=prospect.reason, hint=prospect.hint,
            )  # fmt: skip
        spec = VmSpec(image, kernel=self._options.kernel, labels={LABEL: self._token}, cold=True)
        boot_timeout_s = self._config.seconds("vm.boot_timeout_s")
        trial = Trial(
            self._client, candidate, spec, boot_timeout_s, around, self._release, self._observer, self._vm_ids
        )
        return trial.run()

    def _release(self, kernel_id: str) -> str:
        return str(self._client.get(path_of("kernels", kernel_id))["version"])

    @contextmanager
    def _swept(self) -> Iterator[None]:
        """Whatever ends the block, no VM of this run is left, not even one that was just being made."""
        try:
            yield
        finally:
            with suppress(BangerError):
                for vm in self._client.get("/v1/vms", {"label": [f"{LABEL}={self._token}"]}):
                    self._vm_ids.add(vm["id"])
                    with suppress(BangerError):
                        self._client.long(
                            "DELETE", path_of("vms", vm["id"]), {"force": True}, timeout_s=_SWEEP_TIMEOUT_S
                        )

    def _host_row(self, before: leftovers.Look) -> Row:
        """The host is as it was: nothing of the VMs is left, as far as this user may see."""
        began = time.monotonic()
        file = self._layout.installation_id_file
        installation_id = file.read_text().strip() if file.exists() else ""
        others = any(vm["spec"]["network"] == "tap" for vm in self._client.get("/v1/vms", {"state": "running"}))
        while True:
            after = leftovers.look(self._client, self._layout)
            left = leftovers.left_behind(before, after, self._vm_ids, installation_id, others=others)
            elapsed_s = round(time.monotonic() - began, 3)
            if not left or elapsed_s > _GONE_WITHIN_S:
                break
            time.sleep(_GONE_POLL_S)
        if left:
            hint = "banger doctor --leaks --fix; if it stays, report it with banger daemon logs"
            detail = f"{len(left)} thing{'s' if len(left) > 1 else ''} of the VMs left behind"
            return Row("host", Verdict.FAILED, detail, elapsed_s, "\n".join(left), hint)
        if changed := leftovers.switched(before, after):
            detail = f"as before, but for {', '.join(changed)}: taps need it, and it stays (docs/networking.md)"
            return Row("host", Verdict.NOTE, detail, elapsed_s)
        detail = f"as before: nothing of the VMs is left ({leftovers.count(after)} things compared)"
        return Row("host", Verdict.OK, detail, elapsed_s)


def chosen_image(here: Mapping[str, Mapping[str, Any]], requested: str, default: str) -> str:
    """The image to boot: the requested one, the default if it is here, the smallest that is, or the default.

    Args:
        here: images that are here and whole, by name.
        requested: as typed; may be empty.
        default: what ``banger run`` takes.
    """
    if requested or default in here:
        return requested or default
    named = [image for name, image in here.items() if name]
    return str(min(named, key=lambda image: image["size_bytes"])["name"]) if named else default


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A closed terminal or a polite kill ends the block like Ctrl-C: with cleaning up."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    old = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
