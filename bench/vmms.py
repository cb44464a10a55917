"""Firecracker against QEMU: the same kernel, image and disks, on KVM, in a machine that banger boots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench import jailed
from bench.measure import Comparison
from tests.support import testhost
from tests.support.daemon import BangerHome, banger_home
from tests.support.firecracker import binaries
from tests.support.images import busybox_rootfs
from tests.support.testhost import PYTHON, SOURCES, HostInside

#: Real KVM in an emulated machine is slow, and rounds of it take minutes.
ROUNDS = 5
#: A bare start takes less, and the difference is small.
STARTS = 15
DRIVERS = ("firecracker", "qemu")
NAME, MEMORY_MIB = "measured", 256
MODULES = "/srv/modules"
PROGRAMS = "/srv/firecracker"
_NEEDED = " ".join(
    f"kernel/{name}"
    for name in (
        "drivers/virtio",
        "drivers/block",
        "drivers/char",
        "drivers/net",
        "net/vmw_vsock",
        "net/core",
        "fs/overlayfs",
    )
)

#: Seconds that ``vm run -- true`` takes, and what its VMM occupies besides its guest's memory, in KiB.
_MEASURE = f"""
import json, subprocess, sys, time
from pathlib import Path
banger, driver = "/opt/banger/bin/banger", sys.argv[1]
begun = time.monotonic()
what = ["--name", "{NAME}", "--vmm", driver, "--accelerator", "kvm", "--kernel", "{NAME}", "--network", "none"]
subprocess.run([banger, "vm", "run", *what, "--memory", "{MEMORY_MIB}M", "{NAME}", "--", "true"], check=True)
seconds = time.monotonic() - begun
shown = subprocess.run([banger, "vm", "show", "--json", "{NAME}"], check=True, capture_output=True)
vm = json.loads(shown.stdout)
assert (vm["vmm"], vm["accelerator"]) == (driver, "kvm"), vm
kib = size = 0
for line in Path(f"/proc/{{vm['pid']}}/smaps").read_text().splitlines():
    words = line.split()
    if words[0] == "Size:":
        size = int(words[1])
    elif words[0] == "Pss:" and size < {MEMORY_MIB} << 9:
        kib += int(words[1])
subprocess.run([banger, "vm", "delete", "--force", "{NAME}"], check=True)
print(json.dumps([seconds, kib]))
"""


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Start to first exec, and the VMM's own memory. Both are reported: which is better is for whoever chooses."""
    programs = _programs()
    with banger_home(root) as home, testhost.running(home, root) as host:
        _prepare(host, home, root, programs)
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in DRIVERS}
        for number in range(max(ROUNDS, rounds) + 1):
            for name, values in found.items():
                seconds, kib = _measured(host, name)
                if number:
                    values.append((seconds, kib))
        jail = _jail_measured(host, max(ROUNDS, rounds))
        ways = _ways_measured(host)
    seconds_of = {name: statistics.median(one[0] for one in values) for name, values in found.items()}
    mib_of = {name: statistics.median(one[1] for one in values) / 1024 for name, values in found.items()}
    yield _reported("Firecracker vs QEMU, start to first exec (test host)", seconds_of, "s")
    yield _reported("Firecracker vs QEMU, the VMM's own memory (test host)", mib_of, "MiB")
    what = "start of Firecracker's machine in its jail, and as root (test host)"
    yield Comparison(what, jail[jailed.JAILED], jail[jailed.AS_ROOT], float("inf"))
    what = "start of Firecracker's machine from a file, and by requests (test host)"
    yield Comparison(what, ways["file"], ways["requests"], float("inf"))


def _programs() -> tuple[Path, Path]:
    try:
        return binaries()
    except pytest.skip.Exception as error:
        raise RuntimeError(str(error)) from error


def _prepare(host: HostInside, home: BangerHome, root: Path, programs: tuple[Path, Path]) -> None:
    """KVM, Firecracker, a kernel with its modules and an image."""
    host.shell("modprobe kvm-amd || modprobe kvm-intel").ok()
    host.shell(f"mkdir -p {PROGRAMS}").ok()
    for program in programs:
        host.put(program, f"{PROGRAMS}/")
    host.banger("driver", "install", "firecracker", "--from", PROGRAMS).ok()
    kernel = home.data / "kernels" / home.json("kernel", "list")[0]["id"] / "vmlinuz"
    host.put(kernel, "/srv/vmlinuz")
    host.shell(f"mkdir -p {MODULES} && cd /lib/modules/* && cp --parents -r {_NEEDED} modules.* {MODULES}").ok()
    host.banger("kernel", "import", NAME, "--kernel", "/srv/vmlinuz", "--modules", MODULES).ok()
    host.put(busybox_rootfs(root / "busybox.ext4"), "/srv/busybox.ext4")
    host.banger("image", "register", "--rootfs", "/srv/busybox.ext4", "--name", NAME).ok()
    host.put(_script(root), "/srv/measure.py")
    host.put(Path(__file__).parent, f"{SOURCES}/bench")


def _ways_measured(host: HostInside) -> dict[str, float]:
    """Whether the file that the driver writes is the faster way, in seconds."""
    argv = ("env", "-C", SOURCES, PYTHON, "-m", "bench.vmm_start", f"{PROGRAMS}/firecracker", str(STARTS))
    medians: dict[str, float] = json.loads(host.run(*argv).ok().text.splitlines()[-1])
    return medians


def _script(root: Path) -> Path:
    file = root / "measure.py"
    file.write_text(_MEASURE, encoding="utf-8")
    return file


def _measured(host: HostInside, driver: str) -> tuple[float, int]:
    seconds, kib = json.loads(host.run(PYTHON, "/srv/measure.py", driver).ok().text.splitlines()[-1])
    return seconds, kib


def _jail_measured(host: HostInside, rounds: int) -> Mapping[str, float]:
    """As :mod:`bench.jailed` has it, in there."""
    words = ("env", "-C", SOURCES, PYTHON, "-m", "bench.jailed", "firecracker-jailed", str(rounds))
    found: Mapping[str, float] = json.loads(host.run(*words, PATH=f"{PROGRAMS}:/usr/sbin:/usr/bin").ok().text)
    return found


def _reported(name: str, values: Mapping[str, float], unit: str) -> Comparison:
    return Comparison(name, values["firecracker"], values["qemu"], float("inf"), unit=unit)
