"""What goes into a guest's initrd: the toolbox once per kernel, the VM's own archive before it."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import freezegun
import pytest

from banger.core.operation import Operation
from banger.core.ports import GuestConfig, GuestNetwork
from banger.guest import boot
from banger.guest.boot import LinuxGuestBoot, vm_archive
from banger.guest.hostkey import dropbear_key
from banger.guest.programs import Programs
from banger.guest.toolbox import APPLETS, archive, fingerprint, scripts
from banger.kernels.modules import Module
from banger.layout import Layout
from tests.unit.test_guest_boot_cpio import Entry, read

CONFIG = GuestConfig(
    hostname="web-1",
    authorized_key="ssh-ed25519 AAAA banger\n",
    host_key_seed=bytes(range(32)),
    init="auto",
    env=("A=it's", "B=$(reboot)"),
    network=GuestNetwork("10.0.2.15/24", "10.0.2.2", "10.0.2.3"),
    files={"/etc/motd": b"hello\n"},
)


def entries(archive: bytes) -> dict[str, Entry]:
    return {entry.name: entry for entry in read(archive)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "run", tmp_path / "config", tmp_path / "cache")


@pytest.fixture
def guest_boot(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> LinuxGuestBoot:
    """With a host whose programs are two letters long."""
    found = Programs({"bin/busybox": b"bb"}, Path("/bin/busybox"), "ld.so")
    monkeypatch.setattr(boot, "find_programs", lambda cache, operation: found)
    monkeypatch.setattr(boot, "check_applets", lambda busybox, wanted, operation: None)
    return LinuxGuestBoot(layout)


def test_vm_archive_brings_the_command_of_a_detached_run(tmp_path: Path) -> None:
    assert "etc/command" not in entries(vm_archive(CONFIG))
    config = replace(CONFIG, command=("sh", "-c", "echo 'it is' $HOME\n"), user="web", workdir="/srv")
    entry = entries(vm_archive(config))["etc/command"]
    assert entry.mode & 0o777 == 0o600
    file = tmp_path / "command"
    file.write_bytes(entry.content)
    read_back = subprocess.run(["sh", "-c", f'. {file}; printf %s "$command"'], capture_output=True, check=True).stdout
    words = ["banger-exec", "-u", "web", "-w", "/srv", "--", "sh", "-c", "echo 'it is' $HOME\n"]
    assert shlex.split(read_back.decode()) == words
    root = entries(vm_archive(replace(CONFIG, command=("true",))))["etc/command"].content
    assert root == b"command='banger-exec -u root -- true'\n"


def test_vm_archive_settings_survive_a_shell(tmp_path: Path) -> None:
    found = entries(vm_archive(CONFIG))
    config = tmp_path / "config"
    config.write_bytes(found["etc/banger.conf"].content)
    script = f'. {config}; echo "$hostname|$init|$gateway|$address/$netmask"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "web-1|auto|10.0.2.2|10.0.2.15/255.255.255.0\n"


def test_vm_archive_environment_is_data_for_a_shell(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    environment.write_bytes(entries(vm_archive(CONFIG))["etc/environment"].content)
    script = f'set_env() {{ printf "<%s>" "$1"; }}; . {environment}'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "<A=it's><B=$(reboot)>"


def test_vm_archive_keys_are_private() -> None:
    found = entries(vm_archive(CONFIG))
    assert found["etc/host_key"].content == dropbear_key(CONFIG.host_key_seed)
    private = ("etc/host_key", "etc/environment", "home/.ssh/authorized_keys")
    assert {stat.S_IMODE(found[name].mode) for name in private} == {0o600}
    assert found["files/etc/motd"].content == b"hello\n"


def test_vm_archive_carries_the_time() -> None:
    with freezegun.freeze_time(datetime(2030, 1, 1, tzinfo=UTC)):
        assert b"epoch=1893456000\n" in entries(vm_archive(CONFIG))["etc/banger.conf"].content


def test_initrd_is_private_and_has_the_vm_archive_first(guest_boot: LinuxGuestBoot, tmp_path: Path) -> None:
    toolbox = tmp_path / "toolbox"
    toolbox.write_bytes(b"TOOLBOX")
    target = tmp_path / "initrd.img"
    target.write_bytes(b"left by an earlier start, and longer" * 1000)
    target.chmod(0o644)
    guest_boot.initrd(toolbox, CONFIG, target)
    content = target.read_bytes()
    assert content.startswith(b"070701")
    assert content.endswith(b"TOOLBOX")
    assert (len(content) - len(b"TOOLBOX")) % 4 == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_toolbox_is_made_once_per_kernel(guest_boot: LinuxGuestBoot, tmp_path: Path, layout: Layout) -> None:
    made = [guest_boot.toolbox(tmp_path, kernel, Operation("vm.start", "x")) for kernel in ("one", "one", "two")]
    assert made[0] == made[1] != made[2]
    assert sorted(layout.toolbox.iterdir()) == sorted({made[0], made[2]})


def test_toolbox_changes_with_every_file_and_kernel() -> None:
    files = {"bin/busybox": b"bb", "init": b"#!"}
    marks = {
        fingerprint("one", files),
        fingerprint("two", files),
        fingerprint("one", {**files, "init": b"#!/"}),
        fingerprint("one", {"bin/busybox": b"bb", "start": b"#!"}),
    }
    assert len(marks) == 4


def test_toolbox_archive_lists_its_modules_in_load_order() -> None:
    modules = {"": [Module("b.ko", b"B"), Module("a.ko", b"A")], "vsock": [Module("v.ko", b"V")]}
    found = entries(archive({"init": b"#!"}, "ld.so", modules))
    assert stat.S_IMODE(found["."].mode) == 0o755, "the guest's users make nothing in it"
    assert found["modules/order"].content == b"b.ko\na.ko\n"
    assert found["modules/order-vsock"].content == b"v.ko\n"
    assert found["modules/a.ko"].content == b"A"
    assert found["lib/loader"].content == b"ld.so"


@pytest.mark.parametrize("name", ["init", "bin/start", "bin/enter", "bin/ssh-server"])
def test_script_is_one_that_busybox_can_read(name: str, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("needs busybox")
    script = tmp_path / "script"
    script.write_bytes(scripts()[name])
    checked = subprocess.run([busybox, "sh", "-n", script], capture_output=True, text=True, check=False)
    assert checked.stderr == ""


def test_scripts_start_no_program_that_the_toolbox_does_not_promise() -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("needs busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    builtin = "[ cd echo eval exec exit export kill printf read set shift test trap unset wait true false".split()
    words: set[str] = set()
    for name in ("init", "bin/start"):
        text = re.sub(r"#.*|\"[^\"]*\"", "", scripts()[name].decode())
        words |= set(re.findall(r"(?:^|[;&|({]|then|do|else|exec|\$\()\s*([a-z_2]+)\b", text, re.MULTILINE))
    started = {word for word in words if word in applets and word not in builtin}
    assert started
    assert started <= set(APPLETS)
