"""How long it takes from a registry to a bootable ext4, against the tools that people chain for it and a bare floor."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from banger.client import Client
from bench import unit
from bench.big_image import gzip_layout, layers, zstd_layout
from bench.measure import LEAST_ROUNDS, Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home
from tests.support.faulty_registry import faulty_registry
from tests.support.images import TAG, TestImage, push
from tests.support.registry import Layer, LocalRegistry, Node, build_image, running_registry

GZIP, ZSTD = f"bench/gzip:{TAG}", f"bench/zstd:{TAG}"
#: Of what skopeo, umoci and mkfs take; umoci cannot read zstd, so both are compared with its gzip run.
OF_TOOLS, OF_FLOOR = 0.22, 2.0
#: In units of work.
PRESENT_UNITS = 4.0
PEAK_MB = 120
SHARING = 10
_MB = 1_000_000


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """``banger image pull`` (verified, checked, synced): its time, its memory, and what it does not fetch twice."""
    with running_registry(root / "registry") as registry:
        push(TestImage("gzip", gzip_layout()), registry, GZIP)
        push(TestImage("zstd", zstd_layout()), registry, ZSTD)
        yield from _pulls(root, registry, rounds)
        yield from _memory(root, registry)
        yield from _present(root, registry, rounds)
    yield from _sharing(root)


def _pulls(root: Path, registry: LocalRegistry, rounds: int) -> Iterator[Comparison]:
    works: dict[str, list[float]] = {GZIP: [], ZSTD: []}
    medians = interleaved(
        {
            "gzip": lambda: _banger(root, registry, GZIP, works[GZIP]),
            "gzip floor": lambda: _floor(root, gzip_layout()),
            "zstd": lambda: _banger(root, registry, ZSTD, works[ZSTD]),
            "zstd floor": lambda: _floor(root, zstd_layout()),
            "tools": lambda: _tools(root, registry),
        },
        rounds,
    )
    for kind, name, note in (("gzip", GZIP, ""), ("zstd", ZSTD, " of its gzip twin")):
        title = f"pull to ext4, {kind}, diff_ids verified, vs skopeo + umoci + mkfs.ext4 -d{note}"
        yield Comparison(title, medians[kind], medians["tools"], OF_TOOLS)
        work = statistics.median(works[name][1:])
        yield Comparison(f"work of a pull, {kind}, vs the floor with gunzip", work, medians["gzip floor"], OF_FLOOR)
        if kind != "gzip":
            yield Comparison(
                f"work of a pull, {kind}, vs the floor with {kind}", work, medians[f"{kind} floor"], math.inf
            )


def _banger(root: Path, registry: LocalRegistry, name: str, work: list[float]) -> float:
    """The whole command; ``work`` gets what the supervisor took of it, as the floor leaves out starting a program."""
    with banger_home(root) as home:
        home.run("daemon", "start").ok()
        started = time.perf_counter()
        _pull(home, registry.reference(name))
        elapsed = time.perf_counter() - started
        [pull] = [found for found in home.json("op", "list") if found["kind"] == "image.pull"]
        work.append(pull["elapsed_s"])
        return elapsed


def _pull(home: BangerHome, reference: str, name: str = "big") -> None:
    home.run("image", "pull", reference, "--name", name).ok()


def _floor(root: Path, layout: Path) -> float:
    with tempfile.TemporaryDirectory(dir=root) as directory:
        argv = [sys.executable, "-m", "bench.floor", directory, *map(str, layers(layout))]
        return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.split()[0])


def _tools(root: Path, registry: LocalRegistry) -> float:
    with tempfile.TemporaryDirectory(dir=root) as directory:
        work = Path(directory)
        source = f"docker://{registry.reference(GZIP)}"
        seconds = timed(["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{work}/layout:{TAG}"])
        seconds += timed(["umoci", "unpack", "--image", f"{work}/layout:{TAG}", work / "bundle"])
        image = work / "rootfs.ext4"
        image.touch()
        seconds += timed(["truncate", "-s", "4G", image])
        return seconds + timed(["mkfs.ext4", "-q", "-F", "-d", work / "bundle" / "rootfs", image])


def _memory(root: Path, registry: LocalRegistry) -> Iterator[Comparison]:
    for kind, name in (("gzip", GZIP), ("zstd", ZSTD)):
        with banger_home(root) as home:
            home.run("daemon", "start").ok()
            pid = home.daemon_pid()
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew: proc(5)
            idle = _memory_mb(pid, "VmRSS")
            _pull(home, registry.reference(name))
            yield Comparison(
                f"peak memory of the supervisor during a pull, {kind}, vs idle",
                *(_memory_mb(pid, "VmHWM"), idle, PEAK_MB),
                limit_is_difference=True,
                unit="MB",
            )


def _memory_mb(pid: int, field: str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return int(status[field].split()[0]) * 1024 / _MB


def _present(root: Path, registry: LocalRegistry, rounds: int) -> Iterator[Comparison]:
    """The registry is asked what the tag means now, which is all that is left to do."""
    with banger_home(root) as home:
        home.run("daemon", "start").ok()
        _pull(home, registry.reference(GZIP))
        client = Client(home.socket)

        def again() -> float:
            started = time.perf_counter()
            client.long("POST", "/v1/images/pull", None, {"reference": registry.reference(GZIP), "name": "big"})
            return time.perf_counter() - started

        argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.reference(GZIP)}"]
        medians = interleaved(
            {"again": again, "skopeo": lambda: timed(argv), "unit": unit.seconds}, 4 * max(rounds, LEAST_ROUNDS)
        )
    name = "pull of what is here already"
    yield Comparison(f"{name} vs skopeo inspect", medians["again"], medians["skopeo"], math.inf)
    yield Comparison(f"{name} vs the unit of work", medians["again"], medians["unit"], PRESENT_UNITS)


def _sharing(root: Path) -> Iterator[Comparison]:
    """Ten images on one base, pulled at once: bytes over the wire and in the store, against each blob once."""
    base = Layer({"base": Node(os.urandom(20 * _MB))})
    images = [build_image([base, Layer({f"own-{number}": Node(os.urandom(_MB))})]) for number in range(SHARING)]
    blobs = {digest: blob for image in images for digest, blob in image.blobs.items()}
    once = sum(map(len, blobs.values())) / _MB
    with faulty_registry() as registry, banger_home(root) as home:
        for number, image in enumerate(images):
            registry.serve(f"bench/shared:{number}", image)
        home.run("daemon", "start").ok()
        with ThreadPoolExecutor(SHARING) as pool:
            references = [registry.reference(f"bench/shared:{number}") for number in range(SHARING)]
            list(pool.map(lambda pulled: _pull(home, pulled, f"shared-{pulled[-1]}"), references))
        fetched = sum(len(blobs[asked.path.rpartition("/")[2]]) for asked in registry.asked("/blobs/")) / _MB
        stored = sum(file.stat().st_size for file in (home.data / "blobs").rglob("*") if file.is_file()) / _MB
    yield Comparison(f"{SHARING} images sharing a base, fetched, vs each blob once", fetched, once, 1.0, unit="MB")
    name = f"{SHARING} images sharing a base, stored, vs each blob once"
    yield Comparison(name, stored, once, 1.0, unit="MB")
