"""The VMMs on the host in the Python SDK: typed, one method per verb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banger.client import Client, OnEvent, path_of
from banger.client.artifacts import typed
from banger.core.models import VmmProgram, VmmRelease
from banger.core.vmm_names import FIRECRACKER
from banger.core.wire.drivers import InstallDriverBody


def install_body(version: str, source: str, sums: Sequence[str]) -> InstallDriverBody:
    """The request to install a release; a ``source`` that is no URL is a path of this process."""
    if source and "://" not in source:
        source = str(Path(source).expanduser().absolute())
    return InstallDriverBody(version, source, tuple(sums))


class VmmPrograms:
    """The VMMs that are on the host, and those that banger installs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[VmmProgram]:
        """All of them, those first that new starts take."""
        return [typed(VmmProgram, row) for row in self._client.get("/v1/drivers")]

    def install(
        self,
        name: str = FIRECRACKER,
        *,
        version: str = "",
        source: Path | str = "",
        sha256: Sequence[str] = (),
        on_event: OnEvent | None = None,
    ) -> VmmRelease:
        """Download a release, verified against a known checksum, and install it; one that is here is left as it is.

        Args:
            name: of the VMM.
            version: ``X.Y.Z``; empty for the newest that banger knows, or what ``source`` has.
            source: an archive, a directory or a URL to take it from instead of from its project.
            sha256: what is expected, in hexadecimal digits: of the archive, or of each program.
            on_event: gets the events of the work.
        """
        body = install_body(version, str(source), sha256)
        answer = self._client.long("POST", path_of("drivers", name, "install"), body=body, on_event=on_event)
        return typed(VmmRelease, answer)

    def remove(self, name: str = FIRECRACKER, *, version: str = "") -> None:
        """Remove an installed release that no machine runs on; ``version`` says which one, if there are several."""
        self._client.long("DELETE", path_of("drivers", name), {"version": version} if version else None)
