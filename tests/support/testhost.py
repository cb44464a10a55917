"""A whole Debian with systemd, device-mapper and KVM, booted by banger: what this machine may lack is tested in there.

The image is made once for a recipe and kept in ``.cache/tests``: a bootstrapped tree, and over it the Python packages
of this checkout's environment as a virtual environment in ``/opt/banger``, all but banger itself. What changes from run
to run is copied into the running machine: the sources, to ``/src``, and banger's wheel as it is when installed.
"""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from banger.core.operation import Operation
from banger.rootfs.build import Layer, build_rootfs
from tests.support import images
from tests.support.command import PROJECT, Command, Result
from tests.support.daemon import BangerHome
from tests.support.ports import free_port
from tests.support.relay import relay

PACKAGES = """
systemd-sysv libpam-systemd udev dbus dbus-user-session kmod procps python3 qemu-system-x86 dmsetup e2fsprogs util-linux nftables iproute2 passt openssh-client
openssh-sftp-server busybox-static dropbear-bin
""".split()
#: What its systemd would do besides, with the one processor that the tests wait for.
_MASKED = """
e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer
""".split()
VENV = "/opt/banger"
PYTHON = f"{VENV}/bin/python"
BANGER = f"{VENV}/bin/banger"
LIBRARY = f"{VENV}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
SOURCES = "/src"
#: What the wheel of this checkout is once it is installed: ``lib`` and ``bin``.
INSTALLED = "/srv/installed"
BOOT_S = 180.0
#: Of the environment's packages: what no test needs, and what this checkout is itself.
_LEFT_OUT = ("mypy", "mypyc", "ruff", "setuptools", "pkg_resources", "ast_serialize", "librt", "banger", "_banger")
#: What the contract suites need besides what is installed; every file that is brought takes its time.
_COPIED = ("tests/conftest.py", "tests/support", "tests/contract", "scripts", "pyproject.toml")
_PLUGINS = ("pytest_timeout", "no:cacheprovider", "no:tests.support.tools")
#: Where its systemd passes on what is for its daemon's socket.
_DAEMON_PORT = 9100
_PASS_ON = f"""
systemd-run --quiet --unit=from-here --socket-property=ListenStream={_DAEMON_PORT} \\
    /lib/systemd/systemd-socket-proxyd /run/banger/banger.sock
"""
#: Until its systemd has started everything; it answers nobody before it has started its bus.
_SETTLE = """
until systemctl is-system-running --wait 2>/dev/null | grep -q -e running -e degraded; do sleep 1; done
"""
_ENVIRONMENT = ("PYTHONDONTWRITEBYTECODE=", "LC_ALL=C.UTF-8")

#: Moves the shell into a new cgroup below its own, so that others may be made beside it; $0 is where to go then.
_IN_A_LEAF = """
own=/sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup)
mkdir "$$own/leaf" && echo $$$$ > "$$own/leaf/cgroup.procs" && cd "$$0" && exec "$$@"
"""


@dataclass(frozen=True, slots=True)
class HostInside:
    """A running test host: a VM named ``vm`` of the installation ``home``; ``here`` is how its daemon is asked from here."""

    home: BangerHome
    vm: str
    here: Command

    __test__ = False

    def run(self, *argv: str, timeout_s: float = 240.0, **env: str) -> Result:
        """Run a command as root; its exit code is the result's."""
        extra = [word for pair in (*_ENVIRONMENT, *(f"{k}={v}" for k, v in env.items())) for word in ("--env", pair)]
        return self.home.run("vm", "exec", *extra, self.vm, "--", *argv, timeout_s=timeout_s)

    def shell(self, script: str, **options: float) -> Result:
        """Run a shell script as root."""
        return self.run("sh", "-c", script, **options)  # type: ignore[arg-type]

    def banger(self, *args: str, timeout_s: float = 240.0, **env: str) -> Result:
        """Run the installed ``banger`` in there."""
        return self.run(BANGER, *args, timeout_s=timeout_s, **env)

    def ask(self, *args: str, timeout_s: float = 240.0) -> Result:
        """Run ``banger`` here, with the daemon in there: it takes seconds in there to start. Files are those of here."""
        return self.here.run(*args, timeout_s=timeout_s)

    def pytest(self, *nodes: str, timeout_s: float = 240.0) -> Result:
        """Run tests of this checkout in there, by their node ids and further options, as root.

        They run in a leaf of a part of the cgroup tree that systemd has delegated, and may use the rest of it.
        """
        plugins = [word for name in _PLUGINS for word in ("-p", name)]
        options = ["-q", *plugins, "--tb=short", f"--timeout={timeout_s:g}"]
        unit = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=Delegate=yes")
        environment = [f"--setenv={one}" for one in (*_ENVIRONMENT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1")]
        command = ("sh", "-c", _IN_A_LEAF, SOURCES, PYTHON, "-m", "pytest", *options, *nodes)
        return self.run(*unit, *environment, "--", *command, timeout_s=timeout_s)

    def install(self) -> None:
        """Put the installed wheel of this checkout in its place, over the one that is there."""
        former = f"rm -rf {LIBRARY}/banger {LIBRARY}/banger-*.dist-info"
        self.shell(f"{former} && cp -a {INSTALLED}/lib/. {LIBRARY}/ && cp {INSTALLED}/bin/banger {BANGER}").ok()
        self.run("ln", "-sfn", f"{LIBRARY}/banger", f"{SOURCES}/banger").ok()

    def log_tail(self, lines: int = 80) -> str:
        """The last lines of its journal."""
        return self.run("journalctl", "--no-pager", "--lines", str(lines)).text

    def put(self, source: Path, target: str) -> None:
        """Copy a file or a directory into it."""
        self.home.run("vm", "cp", str(source), f"{self.vm}:{target}").ok()


def image() -> Path:
    """The root file system, from the cache or made now; skips where it cannot be made."""
    recipe = inspect.getsource(images.bootstrap_tar) + " ".join(PACKAGES)
    base = images.cached("hostbase", recipe, lambda target: images.bootstrap_tar(target / "root.tar", PACKAGES))
    tree = base / "root.tar"
    _check_python(tree)
    installed = sorted(f"{one.name}=={one.version}" for one in metadata.distributions())
    recipe = "\n".join([base.name, inspect.getsource(_environment), *_LEFT_OUT, *_MASKED, *installed])

    def build(target: Path) -> None:
        packages = target / "packages.tar"
        _environment(packages)
        layers = [Layer(tar, compressed_bytes=tar.stat().st_size) for tar in (tree, packages)]
        build_rootfs(layers, target / "rootfs.ext4", operation=Operation("image.pull", "testhost"))
        packages.unlink()

    return images.cached("testhost", recipe, build) / "rootfs.ext4"


@contextmanager
def running(home: BangerHome, workspace: Path, *options: str) -> Iterator[HostInside]:
    """Boot the test host in an installation, with the sources and the wheel of this checkout in it.

    It has one CPU: with two, an emulated machine that runs KVM guests of its own hangs for good after a dozen of them
    (seen with QEMU 7.2; one CPU is left in an endless exception, the other waits for it).
    """
    home.run("image", "register", "--rootfs", str(image()), "--name", "testhost").ok()
    port = free_port()
    machine = ("--cpus", "1", "--memory", "2G", "--init", "image", "--publish", f"127.0.0.1:{port}:{_DAEMON_PORT}")
    home.run("vm", "run", "--detach", "--name", "testhost", *machine, *options, "testhost", timeout_s=BOOT_S).ok()
    try:
        with tempfile.TemporaryDirectory(dir=workspace) as scratch, relay(Path(scratch, "run/banger.sock"), port):
            host = HostInside(home, "testhost", Command({**home.cli.env, "BANGER_HOME": scratch}))
            host.put(_copy_of_sources(Path(scratch, "src")), SOURCES)
            host.put(_installed_wheel(Path(scratch)), INSTALLED)
            host.install()
            host.shell(_SETTLE, timeout_s=120).ok()
            host.shell(_PASS_ON).ok()
            yield host
    finally:
        home.run("vm", "delete", "--force", "testhost").ok()


def _installed_wheel(scratch: Path) -> Path:
    """This checkout's wheel, made without asking any index, and what pip makes of it: that would take long in there."""
    site = scratch / "installed" / "lib"
    _run(*"hatchling build --target wheel --directory".split(), str(scratch))
    (wheel,) = scratch.glob("banger-*.whl")
    _run(*"pip install --quiet --no-index --no-deps --no-compile --target".split(), str(site), str(wheel))
    shutil.rmtree(site / "bin")
    _compile(site, LIBRARY)
    command = site.with_name("bin") / "banger"
    command.parent.mkdir()
    command.write_text(f"#!{PYTHON}\nimport sys\nfrom banger.__main__ import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return site.parent


def _run(*module: str) -> None:
    done = subprocess.run([sys.executable, "-m", *module], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _check_python(tree: Path) -> None:
    """The environment's packages are of use in there only if both have the same version of Python."""
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with tarfile.open(tree) as tar:
        found = any(entry.name.removeprefix("./") == f"usr/bin/{wanted}" for entry in tar)
    if not found:
        pytest.skip(f"the distribution's Python is not the {wanted} that runs the tests")


def _environment(target: Path) -> None:
    """Write as a layer: ``/opt/banger``, a virtual environment with the packages that run these tests; units switched off."""
    site = Path(sysconfig.get_path("purelib"))

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, tarfile.open(target, "w") as tar:
        for unit in _MASKED:
            mask = tarfile.TarInfo(f"etc/systemd/system/{unit}")
            mask.type, mask.linkname = tarfile.SYMTYPE, "/dev/null"
            tar.addfile(mask)
        skeleton = Path(scratch, "venv")
        (skeleton / "bin").mkdir(parents=True)
        (skeleton / "bin" / "python").symlink_to("/usr/bin/python3")
        (skeleton / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        tar.add(skeleton, VENV[1:], filter=wanted)
        for entry in sorted(site.iterdir()):
            if not entry.name.startswith(_LEFT_OUT) and "mypyc" not in entry.name:
                tar.add(entry, f"{LIBRARY[1:]}/{entry.name}", filter=wanted)


def _copy_of_sources(target: Path) -> Path:
    """Make a directory with what tests need of this checkout, compiled as far as it is: that would take long in there."""
    for name in _COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=_left_out)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    _compile(target, SOURCES)
    return target


def _left_out(_directory: str, names: list[str]) -> list[str]:
    """Bytecode that is made anew. Not what pytest has made of the tests, which fits where they have their times."""
    return [name for name in names if name.endswith(".pyc") and "-pytest-" not in name]


def _compile(tree: Path, place: str) -> None:
    """Compile what will be in ``place``, for good."""
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", place]
    _run("compileall", *options, str(tree))
