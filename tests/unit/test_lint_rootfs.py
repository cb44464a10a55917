"""Whole images linted: each is built by hand with just the thing in it that the lint should see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB
from banger.lint.finding import Finding, Severity
from banger.lint.kernel import KernelFacts
from banger.lint.rootfs import lint_rootfs
from banger.rootfs.ext4.reader import Ext4Reader
from tests.support.ext4_reader import needs_e2fsprogs
from tests.support.lint_programs import GLIBC, MUSL, program
from tests.support.rootfs import archive, build, directory, file, hard_link, symlink

pytestmark = needs_e2fsprogs

Lint = Callable[..., dict[str, Finding]]


def executable(path: bytes, data: bytes = b"", mode: int = 0o755) -> bytes:
    return file(path, data or program(), mode=mode)


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """Build an image of the members given and lint it: findings by code."""

    def run(*members: bytes, kernel: KernelFacts | None = None, machine: str = "x86_64") -> dict[str, Finding]:
        build(tmp_path, archive(*members), size_bytes=16 * MIB)
        with Ext4Reader(tmp_path / "rootfs.ext4") as image:
            return {found.code: found for found in lint_rootfs(image, kernel, machine=machine)}

    return run


def severities(found: dict[str, Finding]) -> Sequence[str]:
    return [finding.severity.value for finding in found.values()]


def test_lint_of_an_ordinary_system_finds_facts_only(lint: Lint) -> None:
    found = lint(
        directory(b"usr/bin"),
        directory(b"usr/sbin"),
        executable(b"usr/lib/systemd/systemd", program(GLIBC)),
        executable(b"usr/lib64/ld-linux-x86-64.so.2"),
        executable(b"usr/bin/bash", program(GLIBC)),
        symlink(b"usr/bin/sh", b"bash"),
        symlink(b"usr/sbin/init", b"/lib/systemd/systemd"),
        *[symlink(name, b"usr/" + name) for name in (b"bin", b"sbin", b"lib", b"lib64")],
        file(b"etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n"),
        file(b"usr/lib/os-release", b'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12"\n'),
        symlink(b"etc/os-release", b"../usr/lib/os-release"),
        executable(b"usr/bin/su", mode=0o4755),
    )
    assert set(severities(found)) == {"info"}
    assert found.keys() == {"release", "init-systemd", "libc-glibc", "usr-merged", "size", "setuid"}
    assert found["release"].message == 'the image says it is "Debian GNU/Linux 12"'
    assert found["setuid"].message == '1 program set to run with the rights of another user or group: "/usr/bin/su"'


def test_lint_of_an_empty_image_warns_before_it_tells(lint: Lint) -> None:
    found = lint(directory(b"etc"))
    assert found.keys() == {"init-none", "shell-none", "passwd-missing", "size"}
    assert next(iter(found)) == "shell-none"
    assert found["size"].message.startswith("1 file with 0 B of data")


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("init-systemd", [executable(b"lib/systemd/systemd"), hard_link(b"sbin/init", b"lib/systemd/systemd")]),
        ("init-busybox", [executable(b"bin/busybox"), symlink(b"sbin/init", b"/bin/busybox"), file(b"etc/inittab")]),
        (
            "init-openrc",
            [executable(b"bin/busybox"), symlink(b"sbin/init", b"/bin/busybox"), executable(b"sbin/openrc")],
        ),
        ("init-sysvinit", [executable(b"sbin/init"), file(b"etc/inittab")]),
        ("init-other", [executable(b"sbin/init", b"#!/bin/sh\n")]),
        ("init-none", [executable(b"init")]),
        ("init-broken", [symlink(b"sbin/init", b"/lib/systemd/systemd")]),
        ("init-broken", [executable(b"sbin/init", mode=0o644)]),
        ("init-broken", [directory(b"sbin/init")]),
    ],
)
def test_lint_tells_which_init_there_is(lint: Lint, code: str, members: list[bytes]) -> None:
    found = lint(*members)
    assert [name for name in found if name.startswith("init-")] == [code]
    assert (found[code].severity is Severity.WARNING) == (code == "init-broken")


@pytest.mark.parametrize(
    ("libc", "members"),
    [
        ("libc-glibc", [executable(b"bin/sh", program(GLIBC)), executable(b"lib64/ld-linux-x86-64.so.2")]),
        ("libc-musl", [executable(b"bin/sh", program(MUSL)), executable(b"lib/ld-musl-x86_64.so.1")]),
        ("libc-none", [executable(b"bin/busybox"), symlink(b"bin/sh", b"busybox")]),
        (
            "libc-musl",
            [
                executable(b"bin/sh", b"#!/bin/busybox sh\n"),
                executable(b"bin/busybox", program(MUSL)),
                executable(b"lib/ld-musl-x86_64.so.1"),
            ],
        ),
    ],
)
def test_lint_tells_the_libc_by_the_loader(lint: Lint, libc: str, members: list[bytes]) -> None:
    found = lint(*members)
    assert [name for name in found if name.startswith("libc-")] == [libc]
    assert Severity.ERROR not in severities(found)


def test_lint_of_programs_without_their_loader_is_an_error(lint: Lint) -> None:
    found = lint(executable(b"bin/sh", program(GLIBC)))
    assert found["loader-missing"].severity is Severity.ERROR
    assert found["loader-missing"].message == (
        '"/bin/sh" needs "/lib64/ld-linux-x86-64.so.2", which the image does not have'
    )


def test_lint_of_a_foreign_image_is_an_error(lint: Lint) -> None:
    members = [executable(b"bin/sh", program(machine=183))]
    assert "is a program for aarch64, this host is x86_64" in lint(*members)["architecture-foreign"].message
    assert "architecture-foreign" not in lint(*members, machine="aarch64")


def test_lint_of_32_bit_programs_asks_the_kernel_for_them(lint: Lint) -> None:
    members = [executable(b"bin/sh", program(machine=3, wide=False))]
    assert "architecture-foreign" not in lint(*members)
    assert "kernel-32-bit" in lint(*members, kernel=KernelFacts.from_config("6.1", ""))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (symlink(b"bin", b"usr/bin"), '"/bin" is a link to "usr/bin", which leads nowhere'),
        (file(b"lib"), '"/lib" is no directory'),
    ],
)
def test_lint_of_a_broken_place_for_programs_is_an_error(lint: Lint, member: bytes, message: str) -> None:
    found = lint(member)["directory-broken"]
    assert (found.severity, found.message) == (Severity.ERROR, message)


@pytest.mark.parametrize(
    ("passwd", "code"),
    [
        (b"daemon:x:1:1::/:/bin/sh\n", "root-missing"),
        (b"\xff\xfe\n::::::\nroot\n", "root-missing"),
        (b"root:x:0:0:root:/root:/bin/zsh\n", "root-shell-missing"),
    ],
)
def test_lint_of_a_root_that_cannot_log_in_is_a_warning(lint: Lint, passwd: bytes, code: str) -> None:
    found = lint(executable(b"bin/sh"), file(b"etc/passwd", passwd))
    assert found[code].severity is Severity.WARNING


def test_lint_of_a_dangling_resolver_depends_on_who_will_own_it(lint: Lint) -> None:
    link = symlink(b"etc/resolv.conf", b"../run/systemd/resolve/stub-resolv.conf")
    assert lint(link)["resolver-dangling"].severity is Severity.INFO
    assert lint(link, executable(b"sbin/init"))["resolver-dangling"].severity is Severity.WARNING
    assert "resolver-dangling" not in lint(file(b"etc/resolv.conf"))


@pytest.mark.parametrize(
    ("members", "has_modules", "code"),
    [
        ([file(b"lib/modules/6.1.0/modules.dep")], True, "modules-own"),
        ([directory(b"lib/modules/6.1.0")], True, "modules-missing"),
        ([], True, "modules-missing"),
        ([], False, "modules-none"),
    ],
)
def test_lint_tells_whose_modules_a_vm_gets(lint: Lint, members: list[bytes], has_modules: bool, code: str) -> None:
    found = lint(directory(b"etc"), *members, kernel=KernelFacts("6.1.0", None, has_modules))
    assert [name for name in found if name.startswith("modules-")] == [code]


def test_lint_puts_errors_first(lint: Lint) -> None:
    found = lint(symlink(b"bin", b"none"), kernel=KernelFacts.from_config("6.1", ""))
    order = [list(Severity).index(finding.severity) for finding in found.values()]
    assert order == sorted(order)
    assert severities(found)[0] == "error"


def test_lint_of_hostile_names_shows_no_control_characters(lint: Lint) -> None:
    evil = b"\x1b[31m\n"
    found = lint(
        file(b"etc/os-release", b"NAME='" + evil + b"x" * 5000),
        symlink(b"bin", evil),
        symlink(b"etc/resolv.conf", evil),
        executable(b"setuid" + evil, mode=0o6755),
    )
    assert {"release", "directory-broken", "setuid"} <= found.keys()
    assert all(finding.message.isprintable() and len(finding.message) < 500 for finding in found.values())


def test_lint_that_is_cancelled_stops(tmp_path: Path) -> None:
    build(tmp_path, archive(directory(b"etc")), size_bytes=16 * MIB)
    token = CancelToken()
    token.cancel("enough")
    with Ext4Reader(tmp_path / "rootfs.ext4") as image, pytest.raises(BangerError) as caught:
        lint_rootfs(image, check=token.raise_if_cancelled)
    assert caught.value.kind is ErrorKind.CANCELLED
