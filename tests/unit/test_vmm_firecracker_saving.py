"""What Firecracker is told of machines that are saved, and which it can save: without a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Drive, Machine, SavedMachine, TapNic, VmmConfig
from banger.posix.copying import copy_without_zeros
from banger.vmm import handing
from banger.vmm import identity as processes
from banger.vmm.firecracker import free, jail, launch, saving
from banger.vmm.firecracker.client import Api, ApiError
from banger.vmm.firecracker.configuration import configuration, form_of, tap_overrides
from banger.vmm.firecracker.saving_place import forget, is_unfinished, make_place, saving_place

CONFIG = VmmConfig(
    vm_id="0123456789ab",
    name="web",
    run_dir=Path("/run/banger/vms/0123456789ab"),
    kernel=Path("/k/vmlinux"),
    initrd=Path("/v/initrd"),
    cmdline="quiet",
    cpus=2,
    memory_mib=512,
    devices=(
        Drive(Path("/i/rootfs.ext4"), "root", read_only=True),
        Drive(Path("/v/disk.img"), "data", read_only=False),
        TapNic("bg0", "06:00:0a:00:00:02", 1400),
    ),
    options={},
    accelerator="kvm",
    console_log=Path("/v/console.log"),
    vmm_log=Path("/v/vmm.log"),
)
SAVED = SavedMachine(Path("/s/1/machine"), "firecracker", "1.12.1", "a CPU", "kvm", 512)
ANOTHER = replace(
    CONFIG,
    vm_id="ba9876543210",
    run_dir=Path("/run/banger/vms/ba9876543210"),
    devices=(
        Drive(Path("/i/rootfs.ext4"), "root", read_only=True),
        Drive(Path("/w/disk.img"), "data", read_only=False),
        TapNic("bg1", "06:00:0a:00:00:03", 1400),
    ),
    vmm_log=Path("/w/vmm.log"),
    saved=SAVED,
)


@pytest.mark.parametrize("places", [jail.places, free.places])
def test_machine_and_what_goes_on_from_it_find_the_same_things_at_the_same_paths(places: Any) -> None:
    one, two = (form_of(configuration(each, places(each))) for each in (CONFIG, ANOTHER))
    assert one == two
    assert tap_overrides(ANOTHER) == [{"iface_id": "eth0", "host_dev_name": "bg1"}]


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": 1},
        {"devices": CONFIG.devices[:2]},
        {"devices": CONFIG.devices[1:]},
        {"devices": (Drive(Path("/v/disk.img"), "data", read_only=True), *CONFIG.devices[::2])},
    ],
)
def test_machine_with_other_parts_is_another_one(changes: dict[str, Any]) -> None:
    other = replace(CONFIG, **changes)
    assert form_of(configuration(other, jail.places(other))) != form_of(configuration(CONFIG, jail.places(CONFIG)))


def test_devices_in_another_order_are_the_same_machine_as_firecracker_tells_them_in_any() -> None:
    whole = configuration(CONFIG)
    assert form_of(whole) == form_of({**whole, "drives": whole["drives"][::-1]})


def test_machine_that_goes_on_has_no_configuration_and_neither_kernel_nor_initrd_in_its_jail() -> None:
    config = replace(ANOTHER, uid=2_100_000_000)
    where = jail.places(config)
    assert "--config-file" not in launch.arguments(config, where)
    put = {one.path: one for one in jail._put(config)}
    assert {config.kernel, config.initrd} & set(put) == set()
    for path in (SAVED.memory, SAVED.devices):
        assert (put[path].mode, put[path].place) == ("read", Path("/saved", path.name))


def test_machine_in_no_jail_finds_its_disks_by_links_in_the_directory_that_it_is_started_in(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_text("a disk")
    config = replace(
        CONFIG, run_dir=tmp_path / "run", vmm_log=tmp_path / "vmm.log", devices=(Drive(disk, "data", read_only=False),)
    )
    config.run_dir.mkdir()
    for _ in range(2):
        free.prepare(config, {"fc.json": "{}"})
    assert (config.run_dir / free.places(config)[disk]).read_text() == "a disk"
    assert not free.places(config)[disk].is_absolute()
    assert configuration(config, free.places(config))["vsock"]["uds_path"] == "./ga.sock"


# -- what can be saved -----------------------------------------------------------------------------


def told(monkeypatch: pytest.MonkeyPatch, whole: Mapping[str, Any], version: str) -> None:
    answers = {"/vm/config": whole, "/version": {"firecracker_version": version}, "/": {"state": "Running"}}
    monkeypatch.setattr(Api, "_request", lambda self, method, path, body: answers[path])


def a_machine(tmp_path: Path, *, jailed: bool = False) -> Machine:
    make_place(tmp_path / "vmm.log")
    if jailed:
        jail.shared_dir(tmp_path).mkdir()
    return Machine("0" * 12, processes.NO_PROCESS, tmp_path, tmp_path / "console.log", tmp_path / "vmm.log")


@pytest.mark.parametrize(
    ("version", "cards", "words"),
    [("1.11.0", True, "1.12"), ("1.11.0", False, ""), ("1.12.0", True, ""), ("1.16.1", True, ""), ("odd", True, "odd")],
)
def test_version_that_cannot_change_a_tap_saves_no_machine_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, words: str, *, cards: bool
) -> None:
    config = CONFIG if cards else replace(CONFIG, devices=CONFIG.devices[:2])
    told(monkeypatch, configuration(config, free.places(config)), version)
    obstacle = saving.obstacle_of(a_machine(tmp_path))
    assert words in obstacle
    assert bool(words) is bool(obstacle)


def test_machine_that_would_open_the_disks_of_the_saved_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, configuration(CONFIG), "1.12.1")
    assert "earlier banger" in saving.obstacle_of(a_machine(tmp_path))
    told(monkeypatch, configuration(CONFIG, jail.places(CONFIG)), "1.12.1")
    machine = a_machine(tmp_path, jailed=True)
    assert saving.obstacle_of(machine) == ""
    saving_place(machine.vmm_log).rmdir()
    assert "earlier banger" in saving.obstacle_of(machine)


def test_place_of_a_save_is_made_anew_and_what_nobody_ended_is_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "vmm.log"
    make_place(log)
    assert saving_place(log).stat().st_mode & 0o777 == 0o711
    for _ in range(2):
        (saving_place(log) / "memory").write_text("half")
        assert is_unfinished(log)
        forget(log)
        assert not is_unfinished(log)
    (saving_place(log) / "memory").write_text("half")
    make_place(log)
    assert not is_unfinished(log)


def test_machine_goes_on_although_firecracker_refuses_to_listen_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = processes.identify(os.getpid(), Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0", 1)[0])
    asked: list[str] = []

    def request(self: Api, method: str, path: str, body: object) -> dict[str, str]:
        asked.append(f"{method} {path}")
        if len(asked) < 3:
            raise ApiError("status 503")
        return {"state": "Paused"}

    monkeypatch.setattr(Api, "_request", request)
    saving.Saving(replace(a_machine(tmp_path), identity=own), CancelToken())._go_on(30.0)
    assert asked == ["GET /"] * 3 + ["PATCH /vm"]


# -- files -----------------------------------------------------------------------------------------


def test_copy_without_zeros_is_the_same_and_takes_the_room_of_what_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = (9 << 20) + 17
    content = bytearray(size)
    content[5_000_000:5_000_003], content[-1:] = b"abc", b"x"
    source.write_bytes(content)
    with target.open("wb") as file:
        copy_without_zeros(source, file.fileno(), size, CancelToken())
    assert target.read_bytes() == content
    assert target.stat().st_blocks * 512 < 1 << 20


def test_copy_without_zeros_takes_what_it_was_told_and_no_less(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100)
    with (tmp_path / "target").open("wb") as file:
        copy_without_zeros(tmp_path / "source", file.fileno(), 10, CancelToken())
        assert (tmp_path / "target").stat().st_size == 10
        with pytest.raises(OSError, match="ends after 100 bytes"):
            copy_without_zeros(tmp_path / "source", file.fileno(), 101, CancelToken())


def test_copy_without_zeros_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    token = CancelToken()
    token.cancel()
    with (tmp_path / "target").open("wb") as file, pytest.raises(BangerError) as caught:
        copy_without_zeros(tmp_path / "source", file.fileno(), 1, token)
    assert caught.value.kind is ErrorKind.CANCELLED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_secret_file_that_is_lent_can_be_read_by_one_group_for_so_long_and_is_never_theirs(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.touch(0o400)

    def mode() -> tuple[int, int, int]:
        status = file.stat()
        return status.st_uid, status.st_gid, status.st_mode & 0o777

    def load() -> None:
        with handing.lent([file], 2_000_100_000):
            assert mode() == (0, 2_000_100_000, 0o440)
            raise KeyError

    with pytest.raises(KeyError):
        load()
    assert mode() == (0, os.getegid(), 0o400)
