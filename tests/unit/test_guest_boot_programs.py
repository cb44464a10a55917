"""Finding the toolbox's programs below made-up roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.guest import programs
from banger.guest.programs import check_applets, collect, find_programs
from tests.support.elf import dynamic_program, static_hello

LOADER = "/lib64/ld-linux-x86-64.so.2"


def put(root: Path, place: str, content: bytes) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that has everything."""
    root = tmp_path / "root"
    put(root, "usr/bin/busybox", static_hello("busybox"))
    put(root, "usr/sbin/dropbear", dynamic_program(LOADER, ["libtomcrypt.so.1", "libc.so.6"]))
    put(root, "usr/lib/openssh/sftp-server", dynamic_program(LOADER, ["libc.so.6"]))
    put(root, "usr/sbin/chroot", dynamic_program(LOADER, ["libc.so.6"]))
    put(root, "lib64/ld-linux-x86-64.so.2", dynamic_program("", []))
    put(root, "usr/lib/x86_64-linux-gnu/libtomcrypt.so.1", dynamic_program("", ["libtommath.so.1"]))
    put(root, "usr/lib/x86_64-linux-gnu/libtommath.so.1", dynamic_program("", ["libc.so.6"]))
    put(root, "usr/lib/x86_64-linux-gnu/libc.so.6", dynamic_program("", ["ld-linux-x86-64.so.2"]))
    return root


def test_programs_come_with_the_libraries_of_their_libraries(root: Path) -> None:
    found = collect([root])
    assert found.missing == []
    assert found.loader == "ld-linux-x86-64.so.2"
    assert {path for path in found.files if path.startswith("lib/")} == {
        "lib/ld-linux-x86-64.so.2",
        "lib/libtomcrypt.so.1",
        "lib/libtommath.so.1",
        "lib/libc.so.6",
    }


def test_programs_of_an_earlier_root_are_preferred(root: Path, tmp_path: Path) -> None:
    better = tmp_path / "better"
    put(better, "usr/bin/busybox", static_hello("better"))
    found = collect([better, root])
    assert found.files["bin/busybox"] == static_hello("better")
    assert found.busybox == better / "usr/bin/busybox"


def test_busybox_that_is_not_static_is_none(root: Path) -> None:
    put(root, "usr/bin/busybox", dynamic_program(LOADER, ["libc.so.6"]))
    assert collect([root]).missing == ["busybox"]


def test_library_for_another_machine_does_not_count(root: Path) -> None:
    (root / "usr/lib/x86_64-linux-gnu/libtommath.so.1").write_bytes(dynamic_program("", [], machine=183))
    assert collect([root]).missing == ["libtommath.so.1"]


def test_missing_programs_without_apt_are_unavailable_with_a_command_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "TOOLS", (programs.Tool("bin/none", ("no/such/file",), "none"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BangerError, match="none") as caught:
        find_programs(tmp_path, Operation("vm.start", "x"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.hint.startswith("apt-get install busybox-static")


def test_busybox_without_an_applet_is_unavailable_and_says_which(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text("#!/bin/sh\nprintf 'sh\\nmount\\n'\n")
    busybox.chmod(0o755)
    check_applets(busybox, ["sh", "mount"], Operation("vm.start", "x"))
    with pytest.raises(BangerError, match="without nsenter, unshare"):
        check_applets(busybox, ["sh", "nsenter", "unshare"], Operation("vm.start", "x"))
