from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.ports import Drive, TapNic, UserNic, VmmConfig
from banger.vmm.qemu import jail
from banger.vmm.qemu.arguments import Binary, Handed, command_line
from banger.vmm.qemu.state_lines import (
    Condenser,
    MemoryFile,
    condenser_line,
    form_of,
    loading_line,
    obstacle_of,
    written_disks,
)
from banger.vmm.qemu.words import Option, first, options_of, with_options

BINARY = Binary("/usr/bin/qemu-system-x86_64", "QEMU emulator version 7.2.22 (Debian)", has_sandbox=True)
DISK, BASE = Drive(Path("/v/a,b.img"), "data", read_only=False), Drive(Path("/i/base.img"), "root", read_only=True)
CONFIG = VmmConfig(
    vm_id="0123456789ab",
    name="web",
    run_dir=Path("/run/b/0123456789ab"),
    kernel=Path("/k/vm=li,nuz"),
    initrd=Path("/v/initrd"),
    cmdline="a=b,c",
    cpus=2,
    memory_mib=512,
    devices=(DISK, BASE, TapNic("bgt0", "52:54:00:00:00:01")),
    options={"machine": "microvm"},
    accelerator="tcg",
    console_log=Path("/v/console.log"),
    vmm_log=Path("/v/vmm.log"),
)
OWN = Condenser("banger-saver-x", Path("/s/mem,ory"), 7, {"disk0": 4096, "disk1": 8192}, {"ifname": "t"})


def line(handed: Handed | None = None, **changes: object) -> list[str]:
    return command_line(BINARY, replace(CONFIG, **changes), handed or Handed(), 1)  # type: ignore[arg-type]


def in_jail() -> list[str]:
    return line(jail.handed(CONFIG))


def all_of(argv: Sequence[str], name: str) -> list[Option]:
    return [option for option in options_of(argv) if option.name == name]


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_line_that_is_taken_apart_and_put_together_is_the_same(machine: str) -> None:
    for argv in (line(options={"machine": machine}), in_jail()):
        assert with_options(argv[0], options_of(argv)) == argv


def test_option_is_changed_with_the_commas_of_the_others_as_they_were() -> None:
    option = Option("-x", "kind,a=1,,2,b=3")
    assert (option.kind, option.get("a"), option.get("b"), option.get("c")) == ("kind", "1,2", "3", "")
    assert option.with_field("b", "4,5").value == "kind,a=1,,2,b=4,,5"
    assert option.without("b").value == "kind,a=1,,2"
    assert Option("-S").words() == ["-S"]


@pytest.mark.parametrize(("machine", "name"), [("microvm", "microvm.ram"), ("q35", "pc.ram")])
def test_loading_and_saving_machines_call_their_memory_as_one_without_a_file_does(machine: str, name: str) -> None:
    argv = line(options={"machine": machine})
    for made, share in ((loading_line(argv, MemoryFile(Path("/s/m"))), "off"), (condenser_line(argv, OWN), "on")):
        memory = next(one for one in all_of(made, "-object") if one.kind == "memory-backend-file")
        assert (memory.get("id"), memory.get("share"), memory.get("size")) == (name, share, "512M")
        assert memory.get("x-use-canonical-path-for-ramblock-id") == "off"
        assert first(options_of(made), "-machine").get("memory-backend") == name
        assert made[-3:] == ["-S", "-incoming", "defer"]
        assert not {"-initrd", "-append"} & set(made)


def test_memory_file_that_can_be_is_opened_for_reading_only() -> None:
    fields = ("readonly", "rom")
    for read_only, said in ((True, ("on", "off")), (False, ("", ""))):
        memory = all_of(loading_line(line(), MemoryFile(Path("/m"), read_only)), "-object")[-1]
        assert tuple(memory.get(field) for field in fields) == said


@pytest.mark.parametrize(("version", "can"), [("7.2.22", False), ("8.1.5", False), ("8.2.0", True), ("10.0.2", True)])
def test_qemu_that_can_have_a_memory_file_for_reading_only_is_known_by_its_version(version: str, can: bool) -> None:
    assert replace(BINARY, version=f"QEMU emulator version {version} (Debian)").reads_memory_files is can


@pytest.mark.parametrize("argv", [line(), in_jail()], ids=["free", "jailed"])
def test_condenser_has_the_devices_of_the_machine_and_nothing_of_the_hosts(argv: list[str]) -> None:
    made = condenser_line(argv, OWN)
    assert form_of(made) == form_of(argv)
    assert [option.value for option in all_of(made, "-device")] == [option.value for option in all_of(argv, "-device")]
    assert "-add-fd" not in made
    assert [(one.kind, one.get("size"), one.get("read-only")) for one in all_of(made, "-blockdev")] == [
        ("null-co", "4096", "off"), ("null-co", "8192", "on"),
    ]  # fmt: skip
    assert [one.value for one in all_of(made, "-netdev")] == ["tap,id=net0,ifname=t"]
    assert [one.value for one in all_of(made, "-chardev")] == [
        "socket,id=qmp,fd=7", "null,id=console", "file,id=agent,path=/dev/null", "file,id=ports,path=/dev/null",
    ]  # fmt: skip
    assert first(options_of(made), "-name").kind == "banger-saver-x"
    kept = (str(CONFIG.kernel), BINARY.path, "/dev/null", "/s/mem,,ory")
    assert not [word for word in made if "/" in word and not any(path in word for path in kept)]


def test_line_of_a_loaded_machine_is_taken_for_that_of_a_condenser_or_another_loaded_one() -> None:
    loaded = loading_line(line(), MemoryFile(Path("/s/m")))
    assert condenser_line(loaded, OWN) == condenser_line(line(), OWN)
    assert loading_line(loaded, MemoryFile(Path("/s/n"))) == loading_line(line(), MemoryFile(Path("/s/n")))


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": 1},
        {"memory_mib": 256},
        {"options": {"machine": "q35"}},
        {"devices": (BASE, DISK, CONFIG.devices[2])},
        {"devices": CONFIG.devices[:2]},
        {"devices": (DISK, replace(BASE, read_only=False), CONFIG.devices[2])},
        {"devices": (DISK, BASE, UserNic())},
        {"devices": (DISK, replace(BASE, label="other"), CONFIG.devices[2])},
    ],
)
def test_form_differs_with_what_a_guest_sees(changes: dict[str, object]) -> None:
    assert form_of(line(**changes)) != form_of(line())


def test_form_is_the_same_wherever_the_host_has_its_ends() -> None:
    moved = (replace(DISK, path=Path("/w/c.img")), BASE, TapNic("bgt1", "52:54:00:00:00:02"))
    other = {"vm_id": "ba9876543210", "name": "other", "run_dir": Path("/run/c"), "cmdline": "x", "devices": moved}
    assert form_of(line(**other)) == form_of(line()) == form_of(in_jail())


def test_disks_that_are_written_are_found_also_behind_what_was_handed_over() -> None:
    assert written_disks(line()) == written_disks(in_jail()) == [DISK.path]


@pytest.mark.parametrize(
    "words",
    [
        ["-device", "vhost-vsock-device,guest-cid=3"],
        ["-device", "vfio-pci,host=01:00.0"],
        ["-netdev", "tap,id=net1,vhost=on"],
        ["-device", "vhost-user-fs-pci,chardev=fs"],
    ],
)
def test_machine_with_a_device_that_the_host_has_a_part_of_cannot_be_saved(words: list[str]) -> None:
    assert obstacle_of(line()) == ""
    assert words[1] in obstacle_of([*line(), *words])
