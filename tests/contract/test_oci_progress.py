"""What a pull tells while bytes flow: often enough, and true, however slow the server is."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.operation import Operation
from banger.core.progress import EventKind, OperationEvent
from banger.oci.blobs import BlobStore
from banger.oci.documents import Descriptor
from banger.oci.fetching import fetch_all
from banger.oci.retry import Retrier, RetryPolicy
from banger.oci.stall_timer import StallTimer
from banger.render.progress import Progress
from banger.render.terminal import Terminal

#: What was promised.
LONGEST_SILENCE_S = 0.2
PIECE = bytes(range(256)) * 64
PIECES = 100


class Clock:
    """Time that passes only when bytes take it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ThrottledServer:
    """Gives a piece every ``pause_s`` seconds of the clock."""

    def __init__(self, clock: Clock, pause_s: float) -> None:
        self.token = CancelToken()
        self.sent = 0
        self._clock = clock
        self._pause_s = pause_s
        self._left = 0
        self.start = 0
        self.length: int | None = None

    def open_blob(self, digest: str, offset: int, stall_timer: StallTimer) -> ThrottledServer:
        self.start, self._left = offset, PIECES - offset // len(PIECE)
        return self

    def read(self) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        self._clock.now += self._pause_s
        self.sent += len(PIECE)
        return PIECE

    def close(self) -> None:
        """Nothing to close."""

    def retrier(self) -> Retrier:
        return Retrier(RetryPolicy(attempts=1), self.token, lambda _: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("banger.core.operation.time", clock)
    yield clock
    monkeypatch.undo()


@pytest.mark.parametrize("pause_s", [0.0005, 0.02, 0.06, 0.099, 0.15, 0.2])
@pytest.mark.parametrize("resumed_pieces", [0, 40])
def test_progress_is_told_at_least_every_200_ms_and_is_what_has_arrived(
    tmp_path: Path, clock: Clock, pause_s: float, resumed_pieces: int
) -> None:
    blob = Descriptor("", f"sha256:{hashlib.sha256(PIECE * PIECES).hexdigest()}", len(PIECE) * PIECES)
    store, server = BlobStore(tmp_path), ThrottledServer(clock, pause_s)
    part = store.path(blob.digest).with_suffix(".part")
    part.parent.mkdir()
    part.write_bytes(PIECE * resumed_pieces)
    operation = Operation("image.pull", "test")
    told: list[tuple[float, OperationEvent]] = []
    rates: list[float] = []
    arrived: list[int] = []
    view = Progress(Terminal(io.StringIO(), {}), clock=clock.monotonic)

    def hear(event: OperationEvent) -> None:
        if event.kind in (EventKind.PROGRESS, EventKind.STEP_FINISHED):
            told.append((clock.now, event))
            arrived.append(resumed_pieces * len(PIECE) + server.sent)
        view({"kind": event.kind.value, "step": event.step, "done": event.done, "total": event.total, "unit": "bytes"})
        if event.kind is EventKind.PROGRESS and server.sent:
            rates.append(view._running["fetch layers"].rate(clock.now))

    operation.subscribe(hear)
    begun = clock.now
    with operation.step("fetch layers") as step:
        fetch_all(store, [blob], server, 1, step.update)

    times = [begun, *(at for at, _ in told)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= LONGEST_SILENCE_S + 1e-6
    assert [event.done for _, event in told] == arrived
    assert rates == pytest.approx([len(PIECE) / pause_s] * len(rates), rel=0.01)
    assert told[-1][1].done == told[-1][1].total == blob.size
    assert len(told) <= (clock.now - begun) / 0.1 + 4
