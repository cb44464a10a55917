"""The table of what a VM does not pass on."""

from __future__ import annotations

import re
import stat

import pytest

from banger.rootfs.commit_rules import RULES, CommitRules, Treatment
from banger.rootfs.ext4.reader import Inode

LEAVE_OUT, LEAVE_OUT_FILE, EMPTY, AS_IN_BASE = Treatment


def inode(kind: int) -> Inode:
    return Inode(12, kind | 0o644, 0, 0, 0, 0, 1, (0, 0), True, bytes(60), 0, b"")


FILE, LINK, DIRECTORY = inode(stat.S_IFREG), inode(stat.S_IFLNK), inode(stat.S_IFDIR)


@pytest.mark.parametrize(
    ("path", "treatment"),
    [
        (b"etc/ssh/ssh_host_ed25519_key", LEAVE_OUT),
        (b"etc/ssh/ssh_host_ed25519_key.pub", LEAVE_OUT),
        (b"etc/ssh/ssh_config", None),
        (b"usr/etc/ssh/ssh_host_ed25519_key", None),
        (b"root/.ssh/authorized_keys", LEAVE_OUT),
        (b"home/a/b/.ssh/authorized_keys2", LEAVE_OUT),
        (b".ssh/authorized_keys", LEAVE_OUT),
        (b"root/.ssh/id_ed25519", None),
        (b"root/my.ssh/authorized_keys", None),
        (b"etc/machine-id", EMPTY),
        (b"var/lib/dbus/machine-id", LEAVE_OUT_FILE),
        (b"root/.bash_history", LEAVE_OUT_FILE),
        (b"home/u/.ash_history", LEAVE_OUT_FILE),
        (b"home/u/.zsh_history", LEAVE_OUT_FILE),
        (b"home/u/.sh_history", LEAVE_OUT_FILE),
        (b"home/u/.python_history", LEAVE_OUT_FILE),
        (b"home/u/.lesshst", LEAVE_OUT_FILE),
        (b"home/u/bash_history", None),
        (b"tmp", None),
        (b"tmp/a/b\nc", LEAVE_OUT),
        (b"var/tmp/a", LEAVE_OUT),
        (b"usr/tmp/a", None),
        (b"run/lock", LEAVE_OUT),
        (b"etc/hosts", AS_IN_BASE),
        (b"etc/hosts.allow", None),
        (b"etc/resolvxconf", None),
        (b"var/lib/systemd/random-seed", LEAVE_OUT),
        (b"var/lib/systemd/timers", None),
        (b".banger", LEAVE_OUT),
        (b"root/.banger", None),
        (b"var/lib/dhcp/dhclient.eth0.leases", LEAVE_OUT),
        (b"var/lib/cloud/instances/i-1/sem", LEAVE_OUT),
        (b"var/lib/cloud/scripts/x", None),
    ],
)
def test_path_has_its_treatment(path: bytes, treatment: Treatment | None) -> None:
    assert CommitRules().treatment(path, FILE) is treatment


def test_link_is_no_secret_unless_it_lets_somebody_in() -> None:
    rules = CommitRules()
    assert rules.treatment(b"root/.bash_history", LINK) is None
    assert rules.treatment(b"etc/machine-id", LINK) is None
    assert rules.treatment(b"root/.ssh/authorized_keys", LINK) is LEAVE_OUT
    assert rules.treatment(b"etc/resolv.conf", LINK) is AS_IN_BASE


def test_directory_is_left_out_whole_or_not_at_all() -> None:
    rules = CommitRules()
    assert rules.treatment(b"tmp/folder", DIRECTORY) is LEAVE_OUT
    assert rules.treatment(b"root/.bash_history", DIRECTORY) is None
    assert rules.treatment(b"etc/hostname", DIRECTORY) is None


@pytest.mark.parametrize(
    ("keep", "path", "stays"),
    [
        ("/tmp/a/b", b"tmp/a/b", True),
        ("/tmp/a/b", b"tmp/a/b/c", True),
        ("/tmp/a/b", b"tmp/a", True),  # leads there
        ("/tmp/a/b", b"tmp/a/x", False),
        ("/tmp/a/b", b"tmp/a/bc", False),
        ("/tmp/", b"tmp/x", True),
        ("/", b"run/x", True),
        ("/root/.ssh", b"root/.ssh/authorized_keys", True),
        ("/root/.ssh", b"home/u/.ssh/authorized_keys", False),
    ],
)
def test_kept_path_stays(keep: str, path: bytes, stays: bool) -> None:
    assert (CommitRules([keep]).treatment(path, FILE) is None) is stays


def test_every_rule_has_a_pattern_of_its_own_and_a_reason() -> None:
    assert len({rule.pattern for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.compile(rule.pattern).fullmatch("") is None
        assert rule.reason
