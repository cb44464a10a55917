"""Which Firecracker is taken, and what is said of one that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from banger.config import Config, Setting
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.vmm.firecracker.binary import INSTALLED, SEARCHED, SETTING, find_binary, is_there
from banger.vmm.programs import all_programs
from tests.support.elf import dynamic_program, static_hello
from tests.support.firecracker import VERSION, make_release


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("banger.posix.programs._SBIN", "")
    return Layout.from_environment({"BANGER_HOME": str(tmp_path / "home")})


def config(**settings: str) -> Config:
    loaded = Config.load(Path("/nonexistent"), {})
    found = {one.key.name: one for one in loaded}
    for name, value in settings.items():
        key = found[f"firecracker.{name}"].key
        found[key.name] = Setting(key, value, "test")
    return Config(found)


def install(layout: Layout, version: str, **options: str) -> Path:
    """Like one that banger installed, as far as looking for it goes."""
    from banger.core import clock
    from banger.core.models import VmmRelease
    from banger.vmm.firecracker.installed import PROGRAMS, write_record

    directory = make_release(layout.driver_dir("firecracker", version), version, **options)
    size_bytes = sum((directory / name).stat().st_size for name in PROGRAMS)
    write_record(VmmRelease("firecracker", version, "x86_64", "x", "", {}, size_bytes, clock.now()), directory)
    return directory


def refusal(layout: Layout, version: str = "", **settings: str) -> BangerError:
    with pytest.raises(BangerError) as failed:
        find_binary(layout, config(**settings), version)
    return failed.value


def test_nothing_installed_tells_what_to_type(layout: Layout) -> None:
    error = refusal(layout)
    assert (error.kind, error.hint) == (ErrorKind.UNAVAILABLE, "banger driver install firecracker")
    assert not is_there(layout, config())
    assert [one.name for one in all_programs(layout, config())] == ["qemu"]


def test_newest_installed_is_taken_before_that_of_the_host(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.17.0")
    assert find_binary(layout, config()).origin == SEARCHED
    install(layout, "1.9.1")
    install(layout, "1.10.0")
    found = find_binary(layout, config())
    assert (found.text, found.version, found.origin) == ("1.10.0", (1, 10, 0), INSTALLED)
    assert (found.jailer_text, found.why_not_jailed) == ("1.10.0", "")


def test_damaged_installation_is_passed_over_and_listed_as_broken(layout: Layout) -> None:
    install(layout, "1.9.1")
    (install(layout, "1.10.0") / "jailer").unlink()
    assert find_binary(layout, config()).text == "1.9.1"
    broken = {one.version: one.broken for one in all_programs(layout, config()) if one.name == "firecracker"}
    assert broken == {"1.9.1": "", "1.10.0": "jailer missing"}


def test_settings_choose_an_installed_version_or_programs_elsewhere(layout: Layout, tmp_path: Path) -> None:
    install(layout, "1.9.1")
    install(layout, "1.10.0")
    elsewhere = make_release(tmp_path / "own", "1.16.1")
    assert find_binary(layout, config(version="1.9.1")).text == "1.9.1"
    for path in (elsewhere, elsewhere / "firecracker"):
        found = find_binary(layout, config(path=str(path)))
        assert (found.text, found.origin) == ("1.16.1", SETTING)


def test_setting_that_names_nothing_is_an_error_and_nothing_else_is_taken(layout: Layout, tmp_path: Path) -> None:
    install(layout, "1.10.0")
    with pytest.raises(BangerError, match=r'"1\.16\.1" is not installed') as failed:
        find_binary(layout, config(version="1.16.1"))
    assert failed.value.hint == "banger driver install firecracker --version 1.16.1"
    with pytest.raises(BangerError, match="cannot be used"):
        find_binary(layout, config(path=str(tmp_path / "nothing")))
    listed = all_programs(layout, config(version="1.16.1"))
    broken = [one.broken for one in listed if one.name == "firecracker" and one.broken]
    assert broken == ['Firecracker "1.16.1" is not installed: firecracker.version is set to it']


def test_version_of_a_machine_is_taken_exactly(layout: Layout, tmp_path: Path) -> None:
    install(layout, "1.9.1")
    install(layout, "1.10.0")
    make_release(tmp_path / "bin", "1.17.0")
    assert find_binary(layout, config(), "1.9.1").text == "1.9.1"
    assert find_binary(layout, config(), "1.17.0").origin == SEARCHED
    assert refusal(layout, "1.11.0").hint == "banger driver install firecracker --version 1.11.0"


def test_link_to_the_program_is_followed_and_the_jailer_beside_either_is_found(layout: Layout, tmp_path: Path) -> None:
    opt = make_release(tmp_path / "opt", "1.16.1")
    (tmp_path / "bin/firecracker").symlink_to(opt / "firecracker")
    found = find_binary(layout, config())
    assert (found.path, found.jailer) == (opt / "firecracker", opt / "jailer")


def test_program_that_was_replaced_is_asked_again(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.16.1")
    assert find_binary(layout, config()).text == "1.16.1"
    for name in ("firecracker", "jailer"):
        (tmp_path / "bin" / name).unlink()
    make_release(tmp_path / "bin", "1.17.0")
    assert find_binary(layout, config()).text == "1.17.0"


def test_jailer_that_does_not_fit_is_told_and_the_vmm_can_be_used_without(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.16.1", jailer="1.15.1")
    assert "1.15.1" in find_binary(layout, config()).why_not_jailed
    (tmp_path / "bin/jailer").write_bytes(b"#!/bin/sh\nexit 3\n")
    assert "unknown" in find_binary(layout, config()).why_not_jailed
    (tmp_path / "bin/jailer").unlink()
    assert "there is no" in find_binary(layout, config()).why_not_jailed


def test_program_that_is_a_script_cannot_be_jailed(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.16.1")
    (tmp_path / "bin/firecracker").write_text("#!/bin/sh\necho Firecracker v1.16.1\n")
    assert "linked with libraries" in find_binary(layout, config()).why_not_jailed


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        (static_hello("hello\n"), "told no version"),
        (static_hello("Firecracker v1.7.0\n"), "needs 1.8.0"),
        (static_hello("Firecracker v../../x\n"), "told no version"),
        (b"not a program", "Exec format error"),
        (b"#!/bin/sh\necho broken >&2\nexit 1\n", "broken"),
        (dynamic_program("/lib/ld-nothing.so.1", ["libc.so"]), "linked with is not here"),
    ],
)
def test_program_that_does_not_work_is_told_with_the_cause(
    layout: Layout, tmp_path: Path, program: bytes, cause: str
) -> None:
    file = tmp_path / "bin/firecracker"
    file.write_bytes(program)
    file.chmod(0o755)
    error = refusal(layout)
    assert error.kind is ErrorKind.UNAVAILABLE
    assert cause in f"{error.message} {error.cause}"


def test_program_that_others_could_change_is_refused(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.16.1")
    (tmp_path / "bin/firecracker").chmod(0o777)
    assert refusal(layout).kind is ErrorKind.DENIED
    (tmp_path / "bin/firecracker").chmod(0o755)
    (tmp_path / "bin/jailer").chmod(0o757)
    assert refusal(layout).kind is ErrorKind.DENIED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_program_of_another_user_is_refused(layout: Layout, tmp_path: Path) -> None:
    make_release(tmp_path / "bin", "1.16.1")
    os.chown(tmp_path / "bin/firecracker", 65534, 65534)
    assert refusal(layout).kind is ErrorKind.DENIED


def test_genuine_firecracker_tells_its_version_and_its_jailer_fits(
    layout: Layout, real_firecracker: tuple[Path, Path]
) -> None:
    found = find_binary(layout, config(path=str(real_firecracker[0])))
    assert (found.text, found.is_static, found.jailer, found.why_not_jailed) == (VERSION, True, real_firecracker[1], "")
