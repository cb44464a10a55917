"""How Firecracker gets its configuration: from one file, or by a request for each part of it.

``python -m bench.vmm_start PROGRAM ROUNDS`` prints the medians of both, in seconds, from the start of the process until
the machine runs. It is run in the test host, with this checkout's modules beside it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from banger.core.ports import Drive, VmmConfig
from banger.vmm.cpu_time import threads_named
from banger.vmm.firecracker.client import Api, ApiConnectError
from banger.vmm.firecracker.configuration import configuration
from banger.vmm.firecracker.launch import VCPU_THREADS
from tests.support.tiny_guest import write_sleeping_guest

_POLL_S, _REQUEST_S = 0.005, 30.0


def from_file(program: str, place: Path, whole: Mapping[str, Any]) -> float:
    """As banger does it."""
    file = place / "fc.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    begun = time.perf_counter()
    with _process(program, place, "--config-file", str(file)) as process:
        while not threads_named(VCPU_THREADS, process.pid):
            time.sleep(_POLL_S)
        while _api(place).get("/")["state"] != "Running":
            time.sleep(_POLL_S)
        took = time.perf_counter() - begun
        process.kill()
    return took


def by_requests(program: str, place: Path, whole: Mapping[str, Any]) -> float:
    """As its API is meant."""
    begun = time.perf_counter()
    with _process(program, place) as process:
        while True:
            try:
                _api(place).get("/")
                break
            except ApiConnectError:
                time.sleep(_POLL_S)
        for path, body in _requests(whole):
            _api(place).put(path, body)
        _api(place).put("/actions", {"action_type": "InstanceStart"})
        took = time.perf_counter() - begun
        process.kill()
    return took


def _requests(whole: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, content in whole.items():
        if isinstance(content, list):
            for one in content:
                yield f"/{name}/{one['drive_id']}", one
        else:
            yield f"/{name}", content


def _process(program: str, place: Path, *options: str) -> subprocess.Popen[bytes]:
    for name in ("fc.sock", "ga.sock"):
        (place / name).unlink(missing_ok=True)
    argv = [program, "--id", "measured", "--api-sock", str(place / "fc.sock"), *options]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _api(place: Path) -> Api:
    return Api(place / "fc.sock", _REQUEST_S)


def _machine(place: Path) -> VmmConfig:
    """With as many parts as one of banger's has without a network."""
    drives = []
    for label, read_only in (("root", True), ("data", False)):
        file = place / label
        file.write_bytes(bytes(1 << 20))
        drives.append(Drive(file, label, read_only=read_only))
    initrd = place / "initrd"
    initrd.write_bytes(bytes(1 << 20))
    (place / "vmm-metrics.log").touch()
    return VmmConfig(
        "measured", "measured", place, write_sleeping_guest(place / "kernel"), initrd, "", 1, 256, drives, {}, "kvm",
        place / "console.log", place / "vmm.log",
    )  # fmt: skip


def main(program: str, rounds: int) -> None:
    """Both in turn; the first of each does not count."""
    ways = {"file": from_file, "requests": by_requests}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as directory:
        whole = configuration(_machine(Path(directory)))
        for number in range(rounds + 1):
            for name, way in ways.items():
                took = way(program, Path(directory), whole)
                if number:
                    times[name].append(took)
    print(json.dumps({name: statistics.median(values) for name, values in times.items()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
