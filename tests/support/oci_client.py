"""A registry client and blob store for tests: short time-outs, no long pauses, everything observable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.oci import manifest
from banger.oci.blobs import BlobStore
from banger.oci.credentials import Credential
from banger.oci.fetching import fetch_all
from banger.oci.manifest import PlatformImage
from banger.oci.platform import Platform
from banger.oci.reference import Reference
from banger.oci.registry import Endpoint, RegistryClient, Timeouts
from banger.oci.retry import RetryPolicy

SHORT_TIMEOUTS = Timeouts(connect_s=2.0, read_s=0.3)
#: For tests that must end by cancelling, not by a time-out.
LONG_TIMEOUTS = Timeouts(connect_s=30.0, read_s=30.0)
IMPATIENT = RetryPolicy(attempts=3, first_s=0.01, longest_s=0.05)


@dataclass
class Puller:
    """Pulls a reference into a blob store, without building a file system."""

    root: Path
    credential: Credential | None = None
    timeouts: Timeouts = SHORT_TIMEOUTS
    retry: RetryPolicy = IMPATIENT
    platform: str = ""
    parallel: int = 4
    token: CancelToken = field(default_factory=CancelToken)
    progress: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    free_bytes: Callable[[Path], int] | None = None

    def __post_init__(self) -> None:
        """Open the store."""
        self.store = BlobStore(self.root, self.free_bytes)

    def client(self, reference: str) -> RegistryClient:
        """A client for one reference."""
        parsed = Reference.parse(reference)
        return RegistryClient(
            parsed,
            Endpoint.of(parsed),
            self.token,
            find_credential=lambda: self.credential,
            note=self.notes.append,
            timeouts=self.timeouts,
            retry=self.retry,
        )

    def resolve(self, reference: str) -> PlatformImage:
        """Manifest and configuration only."""
        return manifest.resolve(self.client(reference), Platform.parse(self.platform))

    def pull(self, reference: str) -> list[bytes]:
        """Everything; the layers' bytes as the store has them."""
        client = self.client(reference)
        image = manifest.resolve(client, Platform.parse(self.platform))
        paths = fetch_all(
            self.store, image.layers, client, self.parallel, lambda done, total: self.progress.append((done, total))
        )
        return [path.read_bytes() for path in paths]

    def published(self) -> list[str]:
        """Names of the blobs that count as complete."""
        return sorted(path.name for path in self.root.rglob("*") if path.is_file() and path.suffix != ".part")

    def partial(self) -> list[Path]:
        """What has begun to arrive."""
        return sorted(self.root.rglob("*.part"))


class BackgroundPull:
    """A pull in a thread of its own."""

    def __init__(self, puller: Puller, reference: str) -> None:
        self._puller = puller
        self._reference = reference
        self.layers: list[bytes] = []
        self.failure: BangerError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self._thread.is_alive()

    def cancel(self) -> float:
        """Cancel and wait; the seconds that took."""
        started = time.monotonic()
        self._puller.token.cancel("changed my mind")
        self.join()
        return time.monotonic() - started

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self.layers = self._puller.pull(self._reference)
        except BangerError as error:
            self.failure = error
