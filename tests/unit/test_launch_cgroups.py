"""Limits in a tree of files that looks like a cgroup's; tests/contract/test_launch_contract.py has real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.launch import Limits
from banger.launch.cgroups import Cgroups, NoDelegationError, delegated_part, oom_kills, remove, settings


def make_tree(root: Path, *names: str, controllers: str = "cpuset cpu io memory pids") -> None:
    for path in (root, *(root / name for name in names)):
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.controllers").write_text(controllers)
        (path / "cgroup.procs").write_text("")


def own(tmp_path: Path, path: str) -> Path:
    file = tmp_path / "own"
    file.write_text(f"4:memory:/elsewhere\n0::{path}\n")
    return file


def test_limits_as_the_kernel_takes_them() -> None:
    assert settings(Limits(150, 1 << 20, 64)) == {
        "cpu.max": "150000 100000",
        "memory.max": "1048576",
        "memory.oom.group": "1",
        "pids.max": "64",
    }
    assert settings(Limits())["cpu.max"] == "max 100000"
    assert settings(Limits())["memory.max"] == "max"


def test_oom_kills_are_counted_apart_from_what_only_came_near() -> None:
    assert oom_kills("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n") == 2
    assert oom_kills("") == 0


def test_delegated_part_is_the_parent_of_the_leaf_we_are_in(tmp_path: Path) -> None:
    make_tree(tmp_path / "fs", "ours", "ours/leaf")
    found = delegated_part(tmp_path / "fs", own(tmp_path, "/ours/leaf"), tmp_path / "no-systemd")
    assert found == tmp_path / "fs" / "ours"
    assert (found / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_nothing_is_taken_from_systemd_that_it_did_not_delegate(tmp_path: Path) -> None:
    make_tree(tmp_path / "fs", "ours", "ours/leaf")
    (tmp_path / "systemd").mkdir()
    with pytest.raises(NoDelegationError, match="not delegated"):
        delegated_part(tmp_path / "fs", own(tmp_path, "/ours/leaf"), tmp_path / "systemd")
    assert not list((tmp_path / "fs").rglob("cgroup.subtree_control"))


@pytest.mark.parametrize(
    ("controllers", "reason"), [("cpu io", "no controller for memory, pids"), (None, "not mounted")]
)
def test_tree_without_what_limits_need_says_why(tmp_path: Path, controllers: str | None, reason: str) -> None:
    if controllers:
        make_tree(tmp_path / "fs", controllers=controllers)
    with pytest.raises(NoDelegationError, match=reason):
        delegated_part(tmp_path / "fs", own(tmp_path, "/"), tmp_path / "no-systemd")


def test_cgroup_of_a_vm_is_listed_with_its_vm_and_removed_twice(tmp_path: Path) -> None:
    ours = Cgroups(tmp_path, "0123456789ab")
    for name in ("banger-0123456789ab-aaaaaaaaaaaa", "banger-0123456789ab-odd", "banger-ffffffffffff-aaaaaaaaaaaa"):
        (tmp_path / name).mkdir()
    found = ours.host_objects()
    assert [(one.kind, one.key, one.vm_id) for one in found] == [
        ("cgroup", str(ours.path("aaaaaaaaaaaa")), "aaaaaaaaaaaa")
    ]
    assert found[0].since > 0
    found[0].remove()
    found[0].remove()
    assert not ours.host_objects()


def test_cgroup_that_cannot_be_made_is_unavailable_and_says_how_to_do_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BangerError) as caught:
        Cgroups(tmp_path / "file", "0123456789ab").make("aaaaaaaaaaaa", Limits())
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "vmm.limits" in caught.value.hint


def test_remove_of_something_else_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        remove(tmp_path / "file")
