"""Real images for real boots, made from the host's own packages: built once per recipe, kept in ``.cache/tests``.

Each is an OCI layout directory with one image in it, tagged ``latest``: what ``skopeo copy`` pushes to a registry and
``umoci unpack`` turns into the tree that banger's work is compared with.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.core.operation import Operation
from banger.rootfs import build as rootfs_build
from tests.support.command import PROJECT
from tests.support.elf import static_hello
from tests.support.oci_layout import Layer, TarBuilder, write_layout
from tests.support.registry import LocalRegistry

CACHE = PROJECT / ".cache" / "tests"
TAG = "latest"
HELLO = "hello from one static binary\n"


@dataclass(frozen=True, slots=True)
class TestImage:
    """An image ready to be pushed."""

    name: str
    layout: Path

    __test__ = False  # pytest: a value, not a test class

    @property
    def reference(self) -> str:
        """How skopeo and umoci address it."""
        return f"{self.layout}:{TAG}"


def busybox() -> TestImage:
    """A tree that holds a static busybox and its links, and nothing else: no libc, no accounts, no init."""

    def build(target: Path) -> None:
        tar = TarBuilder()
        tar.directory("bin")
        tar.file("bin/busybox", _host_file("/usr/bin/busybox", "/bin/busybox"), mode=0o755)
        for applet in "sh ls cat echo stat find sha256sum mount uname id env sleep true false ps wc dd tar ip nc head rm mkdir".split():
            tar.link("bin/" + applet, "bin/busybox")
        write_layout(target, TAG, [Layer(tar.finish())], config={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]})

    return _cached("busybox", build)


def entrypoint() -> TestImage:
    """The same tree with an entrypoint that says what it was given and becomes it, and a command of its own."""

    def build(target: Path) -> None:
        tar = TarBuilder()
        tar.directory("bin")
        tar.file("bin/busybox", _host_file("/usr/bin/busybox", "/bin/busybox"), mode=0o755)
        for applet in "sh cat echo hostname sleep stty".split():
            tar.link("bin/" + applet, "bin/busybox")
        tar.file("entry", b'#!/bin/sh\necho "entry: $*" >&2\nexec "$@"\n', mode=0o755)
        config = {"Entrypoint": ["/entry"], "Cmd": ["echo", "the image's own"], "Env": ["PATH=/bin"]}
        write_layout(target, TAG, [Layer(tar.finish())], config=config)

    return _cached("entrypoint", build)


def busybox_rootfs(target: Path) -> Path:
    """The same tree as an ext4 file of 16 MiB."""
    layout = busybox().layout
    manifest = _blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0])
    layer = _blob(layout, json.loads(manifest.read_bytes())["layers"][0])
    rootfs_build.build_rootfs(
        [rootfs_build.Layer(layer)], target, operation=Operation("image.pull", "busybox"), size_bytes=16 << 20
    )
    return target


def spiteful() -> TestImage:
    """An image whose own init spoils what banger prepared: root read-only, other name server, no route, wrong clock.

    It also wants a user that is in no file, and a directory that is not there.
    """
    init = b"""#!/bin/busybox sh
echo nameserver 10.0.2.99 >/etc/resolv.conf
mount -o remount,ro /
ip route del default
while :; do
    date -s @1000000000
    sleep 1
done
"""

    def build(target: Path) -> None:
        tar = TarBuilder()
        tar.directory("bin")
        tar.directory("sbin")
        tar.file("bin/busybox", _host_file("/usr/bin/busybox", "/bin/busybox"), mode=0o755)
        for applet in "sh mount ip date sleep".split():
            tar.link("bin/" + applet, "bin/busybox")
        tar.file("sbin/init", init, mode=0o755)
        config = {"Env": ["PATH=/bin"], "User": "nobody-here", "WorkingDir": "/not/there"}
        write_layout(target, TAG, [Layer(tar.finish())], config=config)

    return _cached("spiteful", build)


def scratch() -> TestImage:
    """An image built from scratch: one static program, no shell."""

    def build(target: Path) -> None:
        tar = TarBuilder()
        tar.file("hello", static_hello(HELLO), mode=0o755)
        write_layout(target, TAG, [Layer(tar.finish())], config={"Entrypoint": ["/hello"]})

    return _cached("scratch", build)


def musl() -> TestImage:
    """A tree whose only C library is musl, which also is a program: its loader prints its version."""

    def build(target: Path) -> None:
        tar = TarBuilder()
        for directory in ("bin", "lib"):
            tar.directory(directory)
        tar.file("bin/busybox", _host_file("/usr/bin/busybox", "/bin/busybox"), mode=0o755)
        tar.link("bin/sh", "bin/busybox")
        tar.file("lib/ld-musl-x86_64.so.1", _host_file("/lib/ld-musl-x86_64.so.1"), mode=0o755)
        tar.symlink("lib/libc.musl-x86_64.so.1", "ld-musl-x86_64.so.1")
        write_layout(target, TAG, [Layer(tar.finish())], config={"Cmd": ["/bin/sh"]})

    return _cached("musl", build)


def foreign() -> TestImage:
    """An image for a machine that is not this one."""

    def build(target: Path) -> None:
        tar = TarBuilder()
        tar.file("hello", b"not for you", mode=0o755)
        write_layout(target, TAG, [Layer(tar.finish())], config={}, architecture="s390x")

    return _cached("foreign", build)


def debian() -> TestImage:
    """Debian minbase with ``getfattr``, in one layer."""
    return _cached("debian", lambda target: _bootstrap(target, ["attr"]))


def systemd() -> TestImage:
    """Debian with systemd as its init and its own ssh server's port left free."""
    return _cached("systemd", lambda target: _bootstrap(target, ["systemd-sysv", "dbus"]))


def layered() -> TestImage:
    """Debian below layers that hold one of everything: whiteouts, opaque directories, links, setuid, attributes."""

    def build(target: Path) -> None:
        base = debian().layout
        write_layout(
            target,
            TAG,
            [Layer(_additions()), Layer(_removals(), compression="none"), Layer(_replacements())],
            config={
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LAYERED=yes"],
                "WorkingDir": "/srv",
            },
            base=base,
        )

    return _cached("layered", build, _additions, _removals, _replacements)


def push(image: TestImage, registry: LocalRegistry, name: str) -> str:
    """Copy an image into a registry as ``repository:tag``; its full reference there."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    target = f"docker://{registry.reference(name)}"
    credentials = ["--dest-creds", ":".join(registry.login)] if registry.login else []
    command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *credentials, f"oci:{image.reference}", target]
    copied = subprocess.run(command, capture_output=True, text=True, check=False)
    assert copied.returncode == 0, f"skopeo cannot push {name}:\n{copied.stderr}"
    return registry.reference(name)


def _additions() -> bytes:
    tar = TarBuilder()
    tar.directory("srv", mode=0o755)
    tar.directory("srv/data", mode=0o2775, uid=1000, gid=50)
    tar.file("srv/data/plain", b"plain\n", uid=1000, gid=1000, mode=0o640, mtime=1_234_567_890)
    tar.file("srv/data/empty", b"", mode=0o600)
    tar.file("srv/data/large", hashlib.shake_256(b"large").digest(3_000_001), mode=0o644)
    tar.file("srv/data/zeros", bytes(1 << 20), mode=0o644)
    tar.link("srv/data/hard", "srv/data/plain")
    tar.link("srv/hard-elsewhere", "srv/data/plain")
    tar.symlink("srv/data/short", "plain")
    tar.symlink("srv/data/long", "../" * 40 + "srv/data/" + "x" * 120)
    tar.symlink("srv/data/absolute", "/etc/hostname")
    tar.file("srv/setuid", b"#!/bin/sh\n", mode=0o4755)
    tar.file("srv/setgid", b"#!/bin/sh\n", mode=0o2711, gid=8)
    tar.directory("srv/sticky", mode=0o1777)
    tar.file("srv/attributes", b"attributes\n", xattrs={"user.colour": "blue", "user.long": "v" * 900})
    capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    tar.file("srv/capable", b"\x7fELF", mode=0o755, xattrs={"security.capability": capability})
    tar.fifo("srv/fifo", mode=0o620)
    tar.device("srv/null", 1, 3, mode=0o666)
    tar.file("srv/" + "n" * 200, b"a long name\n")
    tar.file("srv/ünïcode ñame", b"a name that is not ASCII\n")
    tar.file("srv/large-ids", b"x", uid=2_000_000, gid=3_000_000)
    for directory in ("srv/opaque", "srv/opaque/below", "srv/removed-tree", "srv/removed-tree/below"):
        tar.directory(directory)
    for name in (
        "srv/removed",
        "srv/opaque/old",
        "srv/opaque/below/old",
        "srv/removed-tree/below/file",
        "srv/becomes-dir",
    ):
        tar.file(name, b"to be hidden\n")
    tar.directory("srv/many")
    for number in range(700):
        tar.file(f"srv/many/{number:04}", str(number).encode())
    return tar.finish()


def _removals() -> bytes:
    tar = TarBuilder()
    tar.directory("srv", mode=0o755)
    tar.file("srv/.wh.removed", b"")
    tar.file("srv/.wh.removed-tree", b"")
    tar.directory("srv/opaque", mode=0o750)
    tar.file("srv/opaque/.wh..wh..opq", b"")
    tar.file("srv/opaque/new", b"only this one\n")
    tar.directory("usr/share/doc")
    tar.file("usr/share/doc/.wh..wh..opq", b"")
    tar.directory("etc")
    tar.file("etc/.wh.issue", b"")
    return tar.finish()


def _replacements() -> bytes:
    tar = TarBuilder()
    tar.directory("srv", mode=0o711, mtime=1_500_000_000)
    tar.directory("srv/becomes-dir", mode=0o700)
    tar.file("srv/becomes-dir/inside", b"a directory now\n")
    tar.file("srv/setuid", b"#!/bin/sh\necho replaced\n", mode=0o4711)
    tar.file("srv/removed", b"here again\n")
    tar.directory("srv/data", mode=0o2775, uid=1000, gid=50)
    tar.link("srv/data/hard-to-a-lower-layer", "srv/data/large")
    return tar.finish()


def _bootstrap(target: Path, include: Sequence[str]) -> None:
    """One layer with a Debian (or Ubuntu) from the host's own package sources."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        tar = Path(directory, "root.tar")
        bootstrap_tar(tar, include)
        config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        write_layout(target, TAG, [Layer(tar.read_bytes())], config=config)


def bootstrap_tar(tar: Path, include: Sequence[str]) -> None:
    """Write the tree of the host's own distribution, with the packages of ``include``, as a tar archive."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    mode = "root" if os.getuid() == 0 else "unshare"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--mode={mode}", f"--include={','.join(include)}"]
    # dpkg's own path-exclude would have every package go through a filter, which takes as long as all the rest.
    lean = ["--dpkgopt=force-unsafe-io", '--customize-hook=cd "$1/usr/share" && rm -rf locale/* man/* info/*']
    made = subprocess.run([*command, *lean, codename(), str(tar)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"mmdebstrap failed:\n{made.stderr[-3000:]}"


def codename() -> str:
    """The host's release, as its package sources call it."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
    )
    return release["VERSION_CODENAME"].strip('"')


def _blob(layout: Path, descriptor: dict[str, str]) -> Path:
    return layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")


def _host_file(*candidates: str) -> bytes:
    for candidate in map(Path, candidates):
        if candidate.exists():
            return candidate.read_bytes()
    pytest.skip(f"{candidates[0]} is not on this host")


def _cached(name: str, build: Callable[[Path], None], *parts: Callable[..., object]) -> TestImage:
    """The image from the cache, or built now and put there in one step. Its recipe is its functions' source."""
    from tests.support import elf, oci_layout

    recipe = [inspect.getsource(part) for part in (build, *parts, _bootstrap, bootstrap_tar, oci_layout, elf)]
    if parts:
        recipe.append(str(debian().layout))
    return TestImage(name, cached(name, "".join(recipe), build))


def cached(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """The directory that ``build`` fills, from the cache or made now and put there in one step.

    ``recipe`` is everything that decides what comes out, but for the host's distribution; other recipes of the same
    name are removed.
    """
    digest = hashlib.sha256((recipe + codename()).encode()).hexdigest()[:16]
    path = CACHE / f"{name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions do not make the same one side by side
        if not path.exists():
            _fill(path, [*CACHE.glob(f"{name}-*"), *CACHE.glob(f".{name}-*")], build)
    return path


def _fill(path: Path, stale: Sequence[Path], build: Callable[[Path], None]) -> None:
    for other in stale:
        shutil.rmtree(other)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=CACHE))
    try:
        build(staging)
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
