"""The channel into a machine that is really booting, and off again."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExitStatus
from banger.core.models import GuestAccess
from banger.core.operation import Operation
from banger.guest.boot import LinuxGuestBoot
from banger.guest.hostkey import public_key
from banger.guest.sshkeys import ensure_key
from banger.layout import Layout
from tests.support.channels import TERMINAL, Channels, channels, operation
from tests.support.qemu_boot import (
    BOOT_TIMEOUT_S,
    SEED,
    Disk,
    Machine,
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    needs_qemu,
    overlay_disks,
)

pytestmark = [pytest.mark.boot, needs_qemu]


def disks(place: Path) -> list[Disk]:
    tree = busybox_tree(place / "tree", "sh cat stty ls", ("etc", "root"))
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return overlay_disks(place, tree)


def check_commands(channel: Channels, access: GuestAccess) -> None:
    assert channel.exec(access, "sh", "-c", "exit 42").status == ExitStatus(42)
    assert channel.exec(access, "sh", "-c", "kill -TERM $$").status == ExitStatus(143, "TERM")
    assert channel.exec(access, "stty", "size", tty=TERMINAL).stdout == b"24 80\r\n"
    long = "it's long\n" * 5000
    done = channel.exec(access, "sh", "-c", 'cat; printf %s "$1"; ls /run/banger >&2', "sh", long, stdin=b"in:")
    assert done.stdout == b"in:" + long.encode()
    assert b"launch" not in done.stderr
    data = bytes(range(256)) * (1 << 13)
    assert channel.exec(access, "cat", stdin=data).stdout == data


def check_the_end(channel: Channels, access: GuestAccess, running: Machine) -> None:
    with pytest.raises(BangerError) as lost:
        channel.guests.run(access, "banger-tool poweroff -f", 30)
    assert lost.value.kind is ErrorKind.UNKNOWN_OUTCOME
    running.wait_until_off()
    with pytest.raises(BangerError) as gone:
        channel.exec(access, "true")
    assert gone.value.kind is ErrorKind.UNAVAILABLE


def test_guest_is_connected_to_while_it_boots_and_serves_until_it_is_off(tmp_path: Path) -> None:
    key = tmp_path / "ssh" / "id_ed25519"
    boot = LinuxGuestBoot(Layout(tmp_path, tmp_path, tmp_path, tmp_path))
    kernel = debian_kernel()
    boot.toolbox(kernel, "test-kernel", Operation("vm.start", "guest-1"))
    config = guest_config(ensure_key(key))
    with channels() as channel, machine(boot, kernel, disks(tmp_path), tmp_path, config) as running:
        access = GuestAccess("0123456789ab", "127.0.0.1", running.port, public_key(SEED), str(key))
        channel.guests.connect(access, operation(), BOOT_TIMEOUT_S)
        check_commands(channel, access)
        check_the_end(channel, access, running)
