"""Releases of Firecracker from a web server, an archive and a directory: verified, unpacked, published whole."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from banger.actors.messages import DeleteVm, InstallDriver, RemoveDriver
from banger.config import Config
from banger.core.drivers import Drivers
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmmRelease
from banger.core.operation import Operation
from banger.core.ports import ReleaseRequest
from banger.layout import Layout
from banger.releases.firecracker import FirecrackerReleases
from banger.vmm.firecracker.releases import Release, download_url
from tests.support.elf import dynamic_program, static_hello
from tests.support.fake_vmm import FakeFirecracker, FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import (
    Content,
    Exchange,
    Fault,
    FaultyRegistry,
    announcing,
    corrupted,
    faulty_registry,
    redirecting,
    replaced,
    status,
    truncated,
    without_ranges,
)
from tests.support.firecracker import VERSION, make_release, programs_of, release_archive
from tests.support.hostile_archives import hostile_archives
from tests.support.owned_vms import create
from tests.support.tars import archive, entry

ARCHIVE = release_archive("1.16.1")


@pytest.fixture(autouse=True)
def amd64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(data: bytes, version: str = "1.16.1") -> Mapping[str, Release]:
    return {version: Release(version, "x86_64", sha256(data), "", "", ())}


class Machine:
    """An installation that installs, without its daemon."""

    def __init__(self, root: Path, known: Mapping[str, Release] | None = None) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(root)})
        self.layout.make_directories()
        self.staged = self.layout.staging / "driver"
        self.known: Mapping[str, Release] = known or {}

    def build(self, **request: Any) -> VmmRelease:
        releases = FirecrackerReleases(self.layout, Config.load(self.layout.config_file, {}), known=self.known)
        self.staged.mkdir(exist_ok=True)
        return releases.build(ReleaseRequest(**request), self.staged, Operation("driver.install", "x"))

    def refused(self, **request: Any) -> BangerError:
        with pytest.raises(BangerError) as failed:
            self.build(**request)
        return failed.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


def serve(server: FaultyRegistry, data: bytes = ARCHIVE, path: str = "/firecracker-v1.16.1-x86_64.tgz") -> str:
    server.contents[path] = Content(data, "application/gzip")
    return f"http://{server.host}{path}"


def kept(machine: Machine, data: bytes, name: str = "release.tgz") -> str:
    file = machine.layout.data.parent / name
    file.write_bytes(data)
    return str(file)


def check_built(machine: Machine, built: VmmRelease) -> None:
    assert (built.version, built.name, built.architecture) == ("1.16.1", "firecracker", "x86_64")
    assert sorted(path.name for path in machine.staged.iterdir()) == ["firecracker", "jailer", "release.json"]
    for name, data in programs_of("1.16.1").items():
        assert (machine.staged / name).read_bytes() == data
        assert (machine.staged / name).stat().st_mode & 0o777 == 0o755
        assert built.sums[name] == sha256(data)


def test_release_is_fetched_and_checked_by_the_pinned_sum(server: FaultyRegistry, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", pinned(ARCHIVE))
    url = serve(server)
    check_built(machine, built := machine.build(source=url))
    assert (built.source, built.digest) == (url, f"sha256:{sha256(ARCHIVE)}")


def test_release_without_a_pin_needs_a_sum_and_says_where_it_stands(server: FaultyRegistry, machine: Machine) -> None:
    url = serve(server)
    error = machine.refused(source=url)
    assert error.kind is ErrorKind.DENIED
    assert error.hint == f"add --sha256 HEX, from {url}.sha256.txt"
    assert server.requests == []
    check_built(machine, machine.build(source=url, sums=(sha256(ARCHIVE).upper(),)))


def test_version_without_a_pin_names_the_address_of_its_sum(machine: Machine) -> None:
    error = machine.refused(version="1.99.0")
    assert error.kind is ErrorKind.DENIED
    assert error.hint.endswith(f"{download_url('1.99.0', 'x86_64')}.sha256.txt")


def test_release_that_is_there_already_is_not_fetched_again(server: FaultyRegistry, machine: Machine) -> None:
    url = serve(server)
    machine.build(source=url, sums=(sha256(ARCHIVE),))
    asked = len(server.requests)
    for path in machine.staged.iterdir():
        path.unlink()
    check_built(machine, machine.build(source=url, sums=(sha256(ARCHIVE),)))
    assert len(server.requests) == asked


def honestly(exchange: Exchange) -> None:
    exchange.honest()


@pytest.mark.parametrize("fault", [truncated(after=100), without_ranges(), status(503)])
def test_download_that_breaks_is_resumed(server: FaultyRegistry, machine: Machine, fault: Fault) -> None:
    url = serve(server)
    server.on("/firecracker", honestly)  # asked for its length
    server.on("/firecracker", fault)
    check_built(machine, machine.build(source=url, sums=(sha256(ARCHIVE),)))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (corrupted(), ErrorKind.INVALID),
        (replaced(b"another"), ErrorKind.INVALID),
        (announcing(str(1 << 40)), ErrorKind.INVALID),
        (status(404), ErrorKind.NOT_FOUND),
        (status(403), ErrorKind.DENIED),
        (redirecting("http://192.0.2.1/x"), ErrorKind.DENIED),
    ],
)
def test_server_that_sends_something_else_fails_the_install(
    server: FaultyRegistry, machine: Machine, fault: Fault, kind: ErrorKind
) -> None:
    server.always("/firecracker", fault)
    error = machine.refused(source=serve(server), sums=(sha256(ARCHIVE),))
    assert error.kind is kind
    assert ("--from FILE" in error.hint) is (kind is ErrorKind.NOT_FOUND)


def test_archive_of_the_user_is_checked_and_need_not_stay(machine: Machine) -> None:
    file = kept(machine, ARCHIVE)
    built = machine.build(source=file, sums=(sha256(ARCHIVE),))
    Path(file).unlink()
    check_built(machine, built)


def test_directory_of_the_user_is_copied_if_both_programs_are_vouched_for(machine: Machine, tmp_path: Path) -> None:
    source = make_release(tmp_path / "own", "1.16.1")
    sums = tuple(sha256(data) for data in programs_of("1.16.1").values())
    error = machine.refused(source=str(source))
    assert error.kind is ErrorKind.DENIED
    assert all(each in error.cause for each in sums)
    assert machine.refused(source=str(source), sums=sums[:1]).kind is ErrorKind.INVALID
    built = machine.build(source=str(source), sums=sums)
    check_built(machine, built)
    assert built.digest == ""


def test_programs_of_a_pinned_release_are_taken_out_of_any_archive(tmp_path: Path) -> None:
    sums = [sha256(data) for data in programs_of("1.16.1").values()]
    machine = Machine(tmp_path / "home", {"1.16.1": Release("1.16.1", "x86_64", "", *sums, ())})
    check_built(machine, machine.build(source=kept(machine, ARCHIVE)))


@pytest.mark.parametrize("path", ["/nonexistent/x.tgz", "/dev/zero", "/proc/self/mem"])
def test_file_that_is_none_is_refused(machine: Machine, path: str) -> None:
    assert machine.refused(source=path, sums=("0" * 64,)).kind in (ErrorKind.NOT_FOUND, ErrorKind.INVALID)


@pytest.mark.parametrize(
    "source", ["relative/x.tgz", "ftp://host/x.tgz", "https://", "http://[::1/x", "file:///x", "~/x"]
)
def test_source_that_is_neither_a_path_nor_an_address_is_a_usage_error(machine: Machine, source: str) -> None:
    assert machine.refused(source=source, sums=("0" * 64,)).kind is ErrorKind.USAGE


def test_path_that_no_file_can_have_is_an_error_of_the_caller(machine: Machine) -> None:
    assert machine.refused(source="/" + "x" * 300, sums=("0" * 64,)).kind is ErrorKind.DENIED


def test_address_may_carry_its_sum(server: FaultyRegistry, machine: Machine) -> None:
    check_built(machine, machine.build(source=f"{serve(server)}#sha256={sha256(ARCHIVE)}"))
    for path in machine.staged.iterdir():
        path.unlink()
    assert machine.refused(source=f"{serve(server)}#sha256=0").kind is ErrorKind.USAGE


def packed(**programs: bytes) -> bytes:
    return release_archive("1.16.1", {**programs_of("1.16.1"), **programs})


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (release_archive("1.15.1"), "1.15.1"),
        (release_archive("1.16.1", programs_of("1.16.1", jailer="1.16.0")), "jailer is of version 1.16.0"),
        (release_archive("1.16.1", {"firecracker": programs_of("1.16.1")["firecracker"]}), "no jailer"),
        (packed(firecracker=dynamic_program("/lib64/ld-linux-x86-64.so.2", ["libc.so.6"])), "libc.so.6"),
        (packed(firecracker=dynamic_program("", [], machine=183)), "not for x86_64"),
        (packed(firecracker=b"#!/bin/sh\n"), "not an ELF file"),
        (packed(jailer=static_hello("nothing\n")), "unknown"),
        (packed(firecracker=static_hello("nothing\n")), "no version"),
        (
            archive(entry("firecracker", data=b"x"), entry("a", tarfile.DIRTYPE), entry("a/firecracker", data=b"x")),
            "more",
        ),
    ],
)
def test_archive_that_is_no_sound_release_is_refused(machine: Machine, data: bytes, cause: str) -> None:
    error = machine.refused(version="1.16.1", source=kept(machine, data), sums=(sha256(data),))
    assert error.kind in (ErrorKind.INVALID, ErrorKind.UNAVAILABLE)
    assert cause in f"{error.message} {error.cause}"


def test_hostile_archives_change_nothing_outside_even_if_their_sum_is_right(machine: Machine) -> None:
    outside = machine.layout.staging / "outside"
    outside.write_text("mine")
    before = sorted(machine.layout.data.rglob("*"))
    for what, data in hostile_archives():
        assert machine.refused(source=kept(machine, data), sums=(sha256(data),)).kind is ErrorKind.INVALID, what
        assert outside.read_text() == "mine", what
        assert list(machine.staged.iterdir()) == [], what
        machine.staged.rmdir()
    assert sorted(machine.layout.data.rglob("*")) == before


def test_link_in_place_of_a_program_is_not_followed(machine: Machine) -> None:
    data = archive(entry("firecracker", tarfile.SYMTYPE, linkname="jailer"), entry("jailer", data=static_hello("x")))
    assert "no firecracker" in machine.refused(source=kept(machine, data), sums=(sha256(data),)).message


def test_archive_that_unpacks_without_end_is_stopped(machine: Machine) -> None:
    huge = entry("firecracker")[0]
    huge.size = 600 << 20
    for data in (gzip.compress(huge.tobuf() + bytes(1 << 20)), archive(*(entry(f"f{i}") for i in range(1200)))):
        error = machine.refused(source=kept(machine, data), sums=(sha256(data),))
        assert error.kind is ErrorKind.INVALID
        assert "larger than" in str(error) or "entries" in str(error), str(error)
        assert list(machine.staged.iterdir()) == []


def test_genuine_programs_are_known_by_their_sums(machine: Machine, real_firecracker: tuple[Path, Path]) -> None:
    releases = FirecrackerReleases(machine.layout, Config.load(machine.layout.config_file, {}))
    machine.staged.mkdir()
    source = ReleaseRequest(source=str(real_firecracker[0].parent))
    assert releases.build(source, machine.staged, Operation("driver.install", "x")).version == VERSION


# -- through its owner -----------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "home", FakeVmm())
    yield world
    assert world.leftovers() == []
    world.stop()


def install(world: World, version: str = "1.16.1", **programs: bytes) -> VmmRelease:
    source = make_release(world.layout.data.parent / f"source-{version}", version)
    for name, data in programs.items():
        (source / name).write_bytes(data)
    sums = tuple(sha256(path.read_bytes()) for path in source.iterdir())
    done = world.do(InstallDriver("firecracker", ReleaseRequest(source=str(source), sums=sums)))
    assert isinstance(done, VmmRelease)
    return done


def versions(world: World) -> list[str]:
    return [one.version for one in world.services.artifacts.vmm_releases.default.installed() if not one.broken]


def refused(action: Callable[[], object]) -> BangerError:
    with pytest.raises(BangerError) as failed:
        action()
    return failed.value


def test_several_versions_are_kept_and_removed_one_by_one(world: World) -> None:
    install(world, "1.15.1")
    install(world)
    assert versions(world) == ["1.16.1", "1.15.1"]
    error = refused(lambda: world.do(RemoveDriver("firecracker")))
    assert (error.kind, error.cause) == (ErrorKind.AMBIGUOUS, "1.16.1, 1.15.1")
    assert world.do(RemoveDriver("firecracker", "v1.15.1"))["version"] == "1.15.1"
    assert world.do(RemoveDriver("firecracker"))["version"] == "1.16.1"
    assert refused(lambda: world.do(RemoveDriver("firecracker"))).kind is ErrorKind.NOT_FOUND
    assert refused(lambda: world.do(RemoveDriver("firecracker", "../firecracker/1.16.1"))).kind is ErrorKind.NOT_FOUND


def test_install_of_the_same_is_success_and_of_another_content_a_conflict(world: World) -> None:
    first = install(world)
    assert install(world) == first
    error = refused(lambda: install(world, firecracker=static_hello("Firecracker v1.16.1\n\n\n")))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    assert error.hint == "banger driver remove firecracker --version 1.16.1"


@pytest.mark.parametrize("damage", ["firecracker", "release.json"])
def test_damaged_release_is_replaced_by_installing_it_again(world: World, damage: str) -> None:
    install(world)
    file = world.layout.driver_dir("firecracker", "1.16.1") / damage
    file.write_bytes(b"x" * file.stat().st_size)
    assert world.services.artifacts.vmm_releases.default.check(
        next(iter(world.services.artifacts.vmm_releases.default.installed()))
    )
    install(world)
    assert versions(world) == ["1.16.1"]


def test_release_that_a_vm_runs_on_is_not_removed_and_the_vm_runs_on_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeFirecracker, "version", lambda _: "1.16.1")
    world = World(tmp_path / "home", vmm := FakeFirecracker())
    install(world, "1.15.1")
    install(world)
    vm = create(world, "web", start=True)
    assert [config.version for config in vmm.launched] == [vm.vmm_version] == ["1.16.1"]
    error = refused(lambda: world.do(RemoveDriver("firecracker", "1.16.1")))
    assert (error.kind, error.cause, error.hint) == (ErrorKind.CONFLICT, "by VM web", "banger vm stop web")
    assert world.do(RemoveDriver("firecracker", "1.15.1"))["version"] == "1.15.1"
    world.do(DeleteVm(vm.id, vm.name, force=True))
    assert world.do(RemoveDriver("firecracker"))["version"] == "1.16.1"
    assert world.leftovers() == []
    world.stop()


def test_unknown_driver_is_a_usage_error_that_names_those_there_are(world: World) -> None:
    error = refused(lambda: world.do(InstallDriver("qemu", ReleaseRequest())))
    assert (error.kind, error.hint) == (ErrorKind.USAGE, "choose from firecracker")


def test_registry_of_what_can_be_installed_has_the_name_of_a_driver(world: World) -> None:
    assert isinstance(world.services.artifacts.vmm_releases, Drivers)
    assert world.services.artifacts.vmm_releases.names == ("firecracker",)
