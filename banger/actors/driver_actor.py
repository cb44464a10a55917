"""The owner of the releases of one VMM: install and remove are serialised in its mailbox.

What is installed has no row: its directory is published by one rename and carries its own record, so the two cannot
disagree, and what runs without the daemon (``banger doctor``) finds it too. VMs name the release that they run on.
"""

from __future__ import annotations

from typing import Any

from banger.actors.base import OwnerActor
from banger.actors.building import building
from banger.actors.messages import Command, InstallDriver, RemoveDriver
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmmRelease
from banger.core.operation import Operation
from banger.core.ports import InstalledRelease, VmmReleases
from banger.host import publish


class DriverActor(OwnerActor):
    """Owns what is installed of one VMM."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Install or remove."""
        match command:
            case InstallDriver():
                return self._install(command, operation)
            case RemoveDriver():
                return self._remove(command, operation)
        raise TypeError(f"a driver's owner cannot do {command.verb}")

    @property
    def _releases(self) -> VmmReleases:
        return self.services.artifacts.vmm_releases.named(self.key.name)

    def _install(self, command: InstallDriver, operation: Operation) -> VmmRelease:
        # Recheck: whoever waited in the mailbox behind an install finds its result here and does no work twice.
        releases, request = self._releases, command.request
        version = releases.resolve(request)
        if not request.source and (present := self._whole(version)) is not None:
            operation.note(f"{self.key.name} {version} is already installed")
            return present
        with building(self.services, "driver", operation) as staged:
            crashpoint("driver.install:staging-made")
            built = releases.build(request, staged, operation)
            crashpoint("driver.install:built")
            if (present := self._whole(built.version)) is not None:
                return self._same(present, built, operation)
            with operation.step("publish"):
                final = releases.directory(built.version)
                publish.discard(final, self.services.layout)  # what is there is damaged, and what runs has it open
                crashpoint("driver.install:place-free")
                publish.publish(staged, final)
                crashpoint("driver.install:renamed")
        return built

    def _whole(self, version: str) -> VmmRelease | None:
        """What is installed of this version, unless it is damaged."""
        found = self._find(version)
        return found.record if found is not None and not self._releases.check(found) else None

    def _same(self, present: VmmRelease, built: VmmRelease, operation: Operation) -> VmmRelease:
        name = f"{present.name} {present.version}"
        if present.sums == built.sums:
            operation.note(f"{name} is already installed")
            return present
        raise BangerError(
            ErrorKind.ALREADY_EXISTS,
            f'"{name}" is already installed, with other programs',
            subject=name,
            cause=f"that one is from {present.source}",
            hint=f"banger driver remove {present.name} --version {present.version}",
        )

    def _remove(self, command: RemoveDriver, operation: Operation) -> dict[str, Any]:
        found = self._chosen(command.version)
        name, version = self.key.name, found.version
        with operation.step("remove"), self.services.store.vms.kept_off(name, version) as users:
            if users:
                names = [vm.name for vm in users]
                raise BangerError(
                    ErrorKind.CONFLICT,
                    f'"{name} {version}" is in use',
                    subject=f"{name} {version}",
                    cause=f"by VM {', '.join(names)}",
                    hint=f"banger vm stop {' '.join(names)}",
                )
            crashpoint("driver.remove:begun")
            trash = publish.take_away(found.directory, self.services.layout)
        publish.remove(trash)
        return {"id": f"{name}-{version}", "name": name, "version": version}

    def _chosen(self, version: str) -> InstalledRelease:
        there = self._releases.installed()
        fitting = [one for one in there if version.removeprefix("v") in ("", one.version)]
        if len(fitting) == 1:
            return fitting[0]
        versions = ", ".join(one.version for one in there)
        if not version and there:
            raise BangerError(
                ErrorKind.AMBIGUOUS,
                f'several versions of "{self.key.name}" are installed',
                subject=self.key.name,
                cause=versions,
                hint=f"banger driver remove {self.key.name} --version {there[-1].version}",
            )
        what = f"{self.key.name} {version}".strip()
        raise BangerError(
            ErrorKind.NOT_FOUND,
            f'"{what}" is not installed by banger',
            subject=what,
            cause=f"installed: {versions}" if versions else "",
            hint="banger driver list",
        )

    def _find(self, version: str) -> InstalledRelease | None:
        return next((one for one in self._releases.installed() if one.version == version), None)
