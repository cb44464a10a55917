"""A VM that went wrong and is gone is understood afterwards, from real guests that do it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.daemon import BangerHome

pytestmark = pytest.mark.boot


@pytest.fixture
def damaged_kernel(home: BangerHome, busybox: str, tmp_path: Path) -> str:
    """The default kernel with bytes in its middle changed."""
    home.run("vm", "create", "--name", "bringer", busybox).ok()  # brings the kernel
    kernel = home.json("vm", "show", "bringer")["kernel_id"]
    home.run("vm", "delete", "bringer").ok()
    content = bytearray((home.path / "data" / "kernels" / kernel / "vmlinuz").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 256] = bytes(byte ^ 0xA5 for byte in content[middle : middle + 256])
    (tmp_path / "vmlinuz").write_bytes(content)
    home.run("kernel", "import", "damaged", str(tmp_path / "vmlinuz")).ok()
    return "damaged"


def test_damaged_kernel_is_named_although_its_vm_is_gone(
    home: BangerHome, busybox: str, damaged_kernel: str, tmp_path: Path
) -> None:
    failed = home.run("run", "--rm", "--kernel", damaged_kernel, "-e", "TOKEN=open sesame", busybox, "--", "true")
    assert failed.code == 125
    assert "the kernel's file is damaged" in failed.errors
    assert "under emulation" in failed.errors or "on KVM" in failed.errors
    assert "hint: use another kernel: --kernel debian-cloud" in failed.errors
    assert damaged_kernel not in {vm["spec"]["kernel"] for vm in home.json("vm", "list")}
    why = home.run("vm", "why", "--last").ok().text
    assert "the kernel's file is damaged" in why
    assert "QEMU" in why
    assert "boot guest" in why
    bundle = tmp_path / "report.tar.gz"
    last = home.json("vm", "why", "--last")["vm"]["name"]
    home.run("vm", "why", last, "--bundle", str(bundle)).ok()
    with tarfile.open(bundle) as tar:
        texts = {member.name.partition("/")[2]: tar.extractfile(member).read().decode() for member in tar}  # type: ignore[union-attr]
    assert "earlyprintk" in texts["command.txt"]
    assert json.loads(texts["evidence.json"])["kernel"]["name"] == damaged_kernel
    assert not any("sesame" in text for text in texts.values())
    home.run("kernel", "delete", damaged_kernel).ok()


def test_guest_that_panics_under_a_command_is_told_by_its_last_words(home: BangerHome, busybox: str) -> None:
    script = "echo c > /proc/sysrq-trigger; sleep 60"
    failed = home.run("run", "--rm", "--name", "panics", "--memory", "256M", busybox, "--", "sh", "-c", script)
    assert failed.code == 10
    assert 'VM "panics" ended while the command ran' in failed.errors
    assert "kernel panic" in failed.errors
    why = home.json("vm", "why", "panics")
    assert why["vm"]["state"] == "gone"
    assert why["exit_reason"] == "guest_panic"
    assert any("sysrq triggered crash" in line for line in why["console"])
