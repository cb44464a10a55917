"""What the end-to-end tests share: one installation, one registry, and VMs that were booted once.

A boot costs seconds under emulation, so tests that only need *a* running VM share one and leave it as they found it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import images, testhost
from tests.support.daemon import NOBODY, BangerHome, RunningVm, banger_home
from tests.support.images import TestImage
from tests.support.programs import missing_programs
from tests.support.registry import LocalRegistry, running_registry
from tests.support.testhost import HostInside


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here takes its time, and real machines need real programs."""
    items.sort(key=lambda item: item.get_closest_marker("closing") is not None)  # stable
    lacking = missing_programs("qemu-system-x86_64", "mke2fs", "ssh")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(400))
            if lacking and item.get_closest_marker("boot"):
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(lacking)}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failure comes with what the daemons of its installations logged."""
    report = yield
    if call.when == "call" and report.failed:
        arguments = getattr(item, "funcargs", {}).values()
        for home in {id(home): home for home in arguments if isinstance(home, BangerHome)}.values():
            report.sections.append((f"daemon.log of {home.path}", home.log_tail()))
        for host in {id(host): host for host in arguments if isinstance(host, HostInside)}.values():
            report.sections.append(("journal of the test host", host.log_tail()))
    return report


@pytest.fixture(scope="session")
def home(session_root: Path) -> Iterator[BangerHome]:
    """The installation that most tests share."""
    with banger_home(session_root) as shared:
        yield shared


@pytest.fixture
def fresh_home(session_root: Path) -> Iterator[BangerHome]:
    """An installation of the test's own: no daemon yet, no image, no kernel."""
    with banger_home(session_root) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def user_home(session_root: Path) -> Iterator[BangerHome]:
    """An installation that belongs to an ordinary user; skips unless the tests run as root."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with banger_home(session_root, NOBODY) as ordinary:
        yield ordinary


@pytest.fixture(scope="session")
def registry(session_root: Path) -> Iterator[LocalRegistry]:
    """A real registry on loopback, open to everybody."""
    if lacking := missing_programs("docker-registry"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with running_registry(session_root / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def pushed(registry: LocalRegistry) -> Callable[[TestImage], str]:
    """Push an image to the registry, once; its reference there."""
    references: dict[str, str] = {}

    def push(image: TestImage) -> str:
        if image.name not in references:
            references[image.name] = images.push(image, registry, f"test/{image.name}:latest")
        return references[image.name]

    return push


@pytest.fixture(scope="session")
def busybox(home: BangerHome, pushed: Callable[[TestImage], str]) -> str:
    """Name of a small image in the shared installation."""
    home.run("image", "pull", pushed(images.busybox()), "--name", "busybox").ok()
    return "busybox"


@pytest.fixture(scope="session")
def layered(home: BangerHome, pushed: Callable[[TestImage], str]) -> str:
    """Name of an image in the shared installation that has many layers and one of everything."""
    home.run("image", "pull", pushed(images.layered()), "--name", "layered").ok()
    return "layered"


@pytest.fixture(scope="session")
def running_vm(home: BangerHome) -> RunningVm:
    """A context manager that boots a VM of the shared installation and deletes it."""

    @contextmanager
    def boot(image: str, name: str, *options: str) -> Iterator[str]:
        home.run("vm", "run", "--detach", "--name", name, *options, image).ok()
        try:
            yield name
        finally:
            home.run("vm", "delete", "--force", name).ok()

    return boot


@pytest.fixture(scope="session")
def vm(layered: str, running_vm: RunningVm) -> Iterator[str]:
    """A running Debian VM that tests share. Leave it running, and no process in it."""
    with running_vm(layered, "shared") as name:
        yield name


@pytest.fixture(scope="session")
def inside(home: BangerHome, session_root: Path) -> Iterator[HostInside]:
    """A machine with systemd, device-mapper, cgroups and KVM, with this checkout installed in it."""
    if lacking := missing_programs("mmdebstrap"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with testhost.running(home, session_root / "tmp") as running:
        yield running
