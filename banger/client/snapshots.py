"""Snapshots in the Python SDK: typed, one method per verb."""

from __future__ import annotations

from pathlib import Path

from banger.client import Client, OnEvent, path_of
from banger.client.artifacts import typed
from banger.core.models import Snapshot
from banger.core.wire.snapshots import CreateSnapshotBody, ExportSnapshotBody, ImportSnapshotBody


class Snapshots:
    """The snapshots."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[Snapshot]:
        """All of them."""
        return [typed(Snapshot, row) for row in self._client.get("/v1/snapshots")]

    def get(self, query: str) -> Snapshot:
        """The one with this name, id, or unique prefix of either."""
        return typed(Snapshot, self._client.get(path_of("snapshots", query)))

    def create(self, vm: str, *, name: str = "", stop: bool = False, on_event: OnEvent | None = None) -> Snapshot:
        """Take one of a machine, which keeps running; with ``stop`` it is ended then."""
        body = CreateSnapshotBody(name, stop)
        return typed(Snapshot, self._client.long("POST", path_of("vms", vm, "snapshots"), body=body, on_event=on_event))

    def delete(self, query: str) -> None:
        """Delete one; machines that were made from it stay."""
        self._client.long("DELETE", path_of("snapshots", query))

    def export(self, query: str, path: Path | str) -> None:
        """Write one to a new file of the host that the daemon runs on; it holds what was in the guest's memory."""
        body = ExportSnapshotBody(str(Path(path).absolute()))
        self._client.long("POST", path_of("snapshots", query, "export"), body=body)

    def import_file(self, path: Path | str, *, name: str = "") -> Snapshot:
        """Take in one that was exported; its image and its kernel have to be there."""
        body = ImportSnapshotBody(str(Path(path).absolute()), name)
        return typed(Snapshot, self._client.long("POST", "/v1/snapshots/import", body=body))
