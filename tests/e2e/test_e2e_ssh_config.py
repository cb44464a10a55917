"""`ssh NAME.vm` with the user's own OpenSSH, set up by banger and taken back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import BangerHome

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def config(home: BangerHome) -> Iterator[Path]:
    """The configuration that the user's ssh reads; installed before, and taken back after."""
    home.run("ssh-config", "--install").ok()
    yield home.path / ".ssh" / "config"
    home.run("ssh-config", "--uninstall").ok()
    assert not (home.path / ".ssh").exists()


def call(home: BangerHome, program: str, config: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    # -F, because OpenSSH looks into the home directory of the account, whatever HOME says.
    argv = [program, "-F", str(config), "-o", "BatchMode=yes", *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, env=home.cli.env, check=False, timeout=120
    )


def test_plain_ssh_by_name_runs_a_command_as_root(home: BangerHome, config: Path, vm: str) -> None:
    done = call(home, "ssh", config, f"{vm}.vm", "id -u; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"0\n", b"")


def test_plain_ssh_by_id_reaches_the_same_vm(home: BangerHome, config: Path, vm: str) -> None:
    vm_id = home.json("vm", "show", vm)["id"]
    done = call(home, "ssh", config, f"{vm_id}.vm", "uname -n")
    assert (done.returncode, done.stdout) == (0, f"{vm}\n".encode())


def test_plain_scp_copies_both_ways(home: BangerHome, config: Path, vm: str, tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(256)) * 4000)
    for source, target in ((str(sent), f"{vm}.vm:/tmp/by-name"), (f"{vm}.vm:/tmp/by-name", str(received))):
        done = call(home, "scp", config, source, target)
        assert done.returncode == 0, done.stderr
    assert received.read_bytes() == sent.read_bytes()
    home.guest(vm, "rm /tmp/by-name").ok()


def test_name_of_no_vm_is_a_clear_error(home: BangerHome, config: Path) -> None:
    done = call(home, "ssh", config, "no-such-vm.vm", "true")
    assert done.returncode == 255
    assert b'"no-such-vm" not found' in done.stderr
