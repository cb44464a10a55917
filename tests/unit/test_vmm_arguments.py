from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Drive, Nic, TapNic, UserNic, VmmConfig
from banger.vmm.qemu import jail
from banger.vmm.qemu.arguments import Binary, Handed, command_line, options

BINARY = Binary("/usr/bin/qemu-system-x86_64", "QEMU emulator version 7.2.0", has_sandbox=True)
DRIVES = (Drive(Path("/i/rootfs.ext4"), "root", read_only=True), Drive(Path("/v/disk.img"), "work", read_only=False))
NIC = UserNic()
CONFIG = VmmConfig(
    vm_id="0123456789ab",
    name="web",
    run_dir=Path("/run/banger/vms/0123456789ab"),
    kernel=Path("/k/vmlinuz"),
    initrd=Path("/v/initrd"),
    cmdline="banger.quiet",
    cpus=2,
    memory_mib=512,
    devices=(*DRIVES, NIC),
    options={"machine": "microvm"},
    accelerator="tcg",
    console_log=Path("/v/console.log"),
    vmm_log=Path("/v/vmm.log"),
)


HANDED = Handed(sockets={"qmp.sock": 7})


def line(binary: Binary = BINARY, machine: str = "microvm", **changes: object) -> list[str]:
    config = replace(CONFIG, options={"machine": machine}, **changes)  # type: ignore[arg-type]
    return command_line(binary, config, HANDED, tsc_khz=2_600_000)


def values(argv: Sequence[str], flag: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == flag]


def parse(value: str) -> dict[str, str]:
    """As QEMU reads an option: commas part the pairs, a doubled one is a comma."""
    pairs = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    return dict(pair.split("=", 1) if "=" in pair else ("", pair) for pair in pairs)


def test_command_line_carries_the_marker_where_identity_looks_for_it() -> None:
    assert any(word.startswith("banger-vm-0123456789ab") for word in line())


@pytest.mark.parametrize(
    ("machine", "accelerator", "told"),
    [("microvm", "tcg", True), ("microvm", "kvm", False), ("q35", "tcg", False), ("q35", "kvm", False)],
)
def test_clock_rate_is_told_only_where_the_guest_cannot_measure_it(machine: str, accelerator: str, told: bool) -> None:
    (arguments,) = values(line(machine=machine, accelerator=accelerator), "-append")
    assert ("tsc_early_khz=2600000 no_timer_check tsc=reliable" in arguments) is told


def test_kernel_arguments_end_with_what_the_guest_wants() -> None:
    (arguments,) = values(line(), "-append")
    assert arguments.startswith("console=ttyS0 earlyprintk=ttyS0,115200 ")  # also the unpacker of a bzImage is heard
    assert arguments.endswith(" banger.quiet")


@pytest.mark.parametrize(("accelerator", "cpu"), [("kvm", "host"), ("tcg", "max,-erms,-fsrm")])
def test_accelerator_decides_the_cpu_model(accelerator: str, cpu: str) -> None:
    argv = line(accelerator=accelerator)
    assert values(argv, "-cpu") == [cpu]
    assert values(argv, "-accel")[0].startswith(accelerator)


@pytest.mark.parametrize(("machine", "bus"), [("microvm", "device"), ("q35", "pci")])
def test_devices_sit_on_the_bus_of_the_machine(machine: str, bus: str) -> None:
    names = [value.split(",")[0] for value in values(line(machine=machine), "-device")]
    kinds = ["blk", "blk", "net", "rng", "serial"]
    assert names == [*(f"virtio-{kind}-{bus}" for kind in kinds), "virtserialport", "virtserialport"]


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_guest_agent_has_serial_ports_whose_other_ends_are_sockets_in_the_vms_own_directory(machine: str) -> None:
    argv = line(machine=machine)
    found = {}
    for port in (parse(value) for value in values(argv, "-device") if value.startswith("virtserialport")):
        socket = next(parse(value) for value in values(argv, "-chardev") if f"id={port['chardev']}" in value)
        assert (socket["server"], socket["wait"]) == ("on", "off")
        found[port["name"]] = socket["path"]
    run_dir = CONFIG.run_dir
    assert found == {"org.banger.agent": f"{run_dir}/ga.sock", "org.banger.agent.ports": f"{run_dir}/gp.sock"}


def test_drives_keep_order_serial_and_access() -> None:
    argv = line()
    disks = [parse(value) for value in values(argv, "-blockdev")]
    assert [(disk["file.filename"], disk["read-only"]) for disk in disks] == [
        ("/i/rootfs.ext4", "on"),
        ("/v/disk.img", "off"),
    ]
    assert [parse(value)["serial"] for value in values(argv, "-device")[:2]] == ["root", "work"]


def test_flush_of_the_guest_reaches_the_host() -> None:
    argv = line()
    assert [parse(value)["cache.no-flush"] for value in values(argv, "-blockdev")] == ["off", "off"]
    assert not any("cache=unsafe" in word or "write-cache=off" in word for word in argv)


def test_write_that_the_host_does_not_take_stops_the_machine_and_a_read_is_told_to_the_guest() -> None:
    base, layer = [parse(value) for value in values(line(), "-device")][:2]
    assert (layer["werror"], layer["rerror"]) == ("stop", "report")
    assert base["rerror"] == "report"
    assert "werror" not in base  # nothing is written to it


def test_block_device_is_opened_as_one_and_a_file_as_a_file() -> None:
    drives = [Drive(Path("/dev/dm-3"), "root", False), Drive(Path("/developer/disk"), "data", False)]
    disks = [parse(value) for value in values(line(devices=drives), "-blockdev")]
    assert [disk["file.driver"] for disk in disks] == ["host_device", "file"]


def test_tap_is_taken_as_it_is_with_the_address_that_the_host_expects() -> None:
    argv = line(devices=[*DRIVES, TapNic("bg0123456789ab", "02:aa:bb:cc:dd:ee")])
    (netdev,) = values(argv, "-netdev")
    assert netdev == "tap,id=net0,ifname=bg0123456789ab,script=no,downscript=no"
    assert parse(values(argv, "-device")[2])["mac"] == "02:aa:bb:cc:dd:ee"


@pytest.mark.parametrize("has_sandbox", [True, False])
def test_sandbox_is_used_where_the_binary_has_it(has_sandbox: bool) -> None:
    assert ("-sandbox" in line(replace(BINARY, has_sandbox=has_sandbox))) is has_sandbox


@given(path=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1))
def test_any_path_reaches_qemu_unchanged(path: str) -> None:
    assert parse(options("file", path=path, append="on")) == {"": "file", "path": path, "append": "on"}


def test_machines_have_stable_addresses_of_their_own() -> None:
    def mac(vm_id: str) -> str:
        return parse(values(line(vm_id=vm_id), "-device")[2])["mac"]

    assert mac("aaaaaaaaaaaa") == mac("aaaaaaaaaaaa") != mac("bbbbbbbbbbbb")


@pytest.mark.parametrize(("field", "value"), [("machine", "pdp11"), ("accelerator", "xen")])
def test_unknown_choice_is_a_usage_error_that_lists_the_known_ones(field: str, value: str) -> None:
    with pytest.raises(BangerError) as caught:
        line(**{field: value})
    assert caught.value.kind is ErrorKind.USAGE
    assert value in caught.value.message
    assert caught.value.hint.startswith("choose from ")


def test_monitor_without_an_inherited_socket_is_made_at_its_path() -> None:
    argv = command_line(BINARY, replace(CONFIG, run_dir=Path("/run/a,b")), Handed(), tsc_khz=2_600_000)
    chardev = next(parse(value) for value in values(argv, "-chardev") if "id=qmp" in value)
    assert (chardev["path"], chardev["server"], chardev["wait"]) == ("/run/a,b/qmp.sock", "on", "off")
    assert "fd" not in chardev


def test_machine_in_a_jail_names_no_file_socket_or_tap_that_it_inherits() -> None:
    config = replace(CONFIG, uid=2_100_000_000, devices=(*DRIVES, TapNic("bgt0", "52:54:00:00:00:01")))
    handed = jail.handed(config)
    argv = command_line(BINARY, config, handed, tsc_khz=2_600_000)
    sets = {parse(value)["opaque"]: parse(value)["set"] for value in values(argv, "-add-fd")}
    disks = [parse(value)["file.filename"] for value in values(argv, "-blockdev")]
    assert disks == [f"/dev/fdset/{sets[str(drive.path)]}" for drive in DRIVES]
    chardevs = {parse(value)["id"]: parse(value) for value in values(argv, "-chardev")}
    assert chardevs["console"]["path"] == f"/dev/fdset/{sets['/v/console.log']}"
    assert [chardevs[name]["fd"] for name in ("qmp", "agent", "ports")] == [
        str(number) for number in handed.sockets.values()
    ]
    assert values(argv, "-netdev") == [f"tap,id=net0,fd={handed.taps['bgt0']}"]
    numbers = [*handed.sockets.values(), *handed.files.values(), *handed.taps.values()]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > 2


def test_machine_in_a_jail_gets_what_it_may_not_write_for_reading_alone() -> None:
    config = replace(CONFIG, uid=2_100_000_000)
    given = jail.confinement(config, BINARY, jail.handed(config))
    assert [(file.mode, file.path) for file in given.files] == [
        ("append", CONFIG.console_log),
        ("read", DRIVES[0].path),
        ("write", DRIVES[1].path),
    ]


@pytest.mark.parametrize(
    ("devices", "sees"), [((NIC,), True), ((), False), ((TapNic("bgt0", "52:54:00:00:00:01"),), False)]
)
def test_machine_in_a_jail_sees_the_hosts_network_only_if_its_own_stack_is_on_it(
    devices: tuple[Nic, ...], sees: bool
) -> None:
    config = replace(CONFIG, uid=2_100_000_000, devices=devices)
    given = jail.confinement(config, BINARY, jail.handed(config))
    assert given.has_network is sees
    assert (Path("/etc/resolv.conf") in given.visible) in ((sees, False) if sees else (False,))


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_machine_in_a_jail_has_kvm_only_if_it_runs_on_it(accelerator: str) -> None:
    config = replace(CONFIG, uid=2_100_000_000, accelerator=accelerator)
    given = jail.confinement(config, BINARY, jail.handed(config))
    assert (Path("/dev/kvm") in given.devices) is (accelerator == "kvm")
