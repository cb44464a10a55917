"""Firecracker's configuration, its words, and the client of its API, against a server that misbehaves."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banger.config import Config
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.models import ExitReason
from banger.core.ports import Drive, EngineError, Health, Machine, TapNic, UserNic, VmmConfig
from banger.core.wire.vm_spec import VmSpec
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm import identity as processes
from banger.vmm.firecracker import client, exits, failures, jail, launch
from banger.vmm.firecracker import driver as firecracker_driver
from banger.vmm.firecracker.client import Api, ApiConnectError, ApiError, ApiTimeoutError
from banger.vmm.firecracker.configuration import configuration
from banger.vmm.firecracker.driver import FirecrackerDriver
from tests.support.fake_vmm import FakeEngines

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
STAMP = "2026-11-28T17:45:41.767987318 [banger-vm-0123456789ab:main] "
#: Of the API file of 1.16, those that the oldest supported version knows as well.
KNOWN_FIELDS = {
    "boot-source": {"kernel_image_path", "initrd_path", "boot_args"},
    "machine-config": {"vcpu_count", "mem_size_mib", "cpu_template"},
    "vsock": {"guest_cid", "uds_path"},
    "entropy": set(),
    "metrics": {"metrics_path"},
    "drives": {"drive_id", "path_on_host", "is_root_device", "is_read_only", "cache_type"},
    "network-interfaces": {"iface_id", "host_dev_name", "guest_mac"},
}


def test_configuration_has_drives_in_their_order_and_flushes_those_that_are_written() -> None:
    drives = configuration(CONFIG)["drives"]
    assert [(one["drive_id"], one["is_read_only"], one["cache_type"]) for one in drives] == [
        ("root", True, "Unsafe"),
        ("data", False, "Writeback"),
    ]
    assert not any(one["is_root_device"] for one in drives)


def test_configuration_has_only_fields_that_every_supported_version_knows() -> None:
    for name, content in configuration(replace(CONFIG, options={"cpu_template": "T2"})).items():
        for one in content if isinstance(content, list) else [content]:
            assert set(one) <= KNOWN_FIELDS[name]


def test_configuration_resets_by_the_one_way_that_ends_the_machine() -> None:
    words = configuration(CONFIG)["boot-source"]["boot_args"].split()
    assert {"reboot=k", "panic=-1", "console=ttyS0", "quiet"} <= set(words)


@pytest.mark.parametrize(
    ("template", "where"), [("T2S", ("machine-config", "cpu_template")), ("/etc/cpu.json", ("cpu-config",))]
)
def test_cpu_template_is_a_name_or_a_file(template: str, where: tuple[str, ...]) -> None:
    found = configuration(replace(CONFIG, options={"cpu_template": template}))
    for key in where:
        found = found[key]
    assert found == template  # type: ignore[comparison-overlap]


def test_machine_in_a_jail_names_no_path_of_the_host() -> None:
    config = replace(CONFIG, uid=2_100_000_000, options={"cpu_template": "/etc/cpu.json"})
    where = jail.places(config)
    told = json.dumps([configuration(config, where), launch.arguments(config, where)])
    assert not [path for path in ("/run/banger", "/k/", "/v/", "/i/", "/etc") if path in told]
    assert configuration(config, where)["vsock"]["uds_path"] == "/vm/ga.sock"


def test_device_that_firecracker_does_not_have_is_a_usage_error() -> None:
    with pytest.raises(BangerError) as caught:
        configuration(replace(CONFIG, devices=(UserNic(),)))
    assert caught.value.kind is ErrorKind.USAGE


def test_kernel_arguments_that_would_be_cut_are_a_usage_error() -> None:
    with pytest.raises(BangerError, match="too long"):
        configuration(replace(CONFIG, cmdline="x" * 2000))


@pytest.mark.parametrize(
    ("status", "log", "reason", "words"),
    [
        (
            148,
            f"{STAMP}Shutting down VM after intercepting a bad syscall (231).",
            "vmm_crash",
            "(number 231), status 148",
        ),
        (149, "", "vmm_crash", "SIGBUS"),
        (151, "", "vmm_crash", "SIGXFSZ"),
        (152, "", "vmm_crash", "configuration"),
        (156, "", "killed", "SIGHUP"),
        (157, "", "vmm_crash", "SIGILL"),
        (1, f"{STAMP}Failure during vcpu run: Bad address", "kvm_failure", "Failure during vcpu run"),
        (1, f"{STAMP}Received KVM_EXIT_INTERNAL_ERROR", "kvm_failure", "KVM_EXIT_INTERNAL_ERROR"),
        (1, f"{STAMP}something else", "vmm_crash", "something else"),
        (-9, "", "killed", "SIGKILL"),
        (-11, "", "vmm_crash", "SIGSEGV"),
        (None, f"{STAMP}Firecracker exiting with error. exit_code=149", "vmm_crash", "SIGBUS"),
        (0, "", "guest_reboot", "rebooted"),
        (None, "", "guest_reboot", "rebooted"),
    ],
)
def test_end_of_a_machine_is_told_by_status_and_log(status: int | None, log: str, reason: str, words: str) -> None:
    record = exits.explain(Outcome(status), "[   9.1] reboot: Restarting system\n", log)
    assert record.reason is ExitReason(reason)
    assert words in record.words


def test_what_firecracker_says_in_every_start_is_nobodys_cause() -> None:
    log = f"{STAMP}Received a VcpuEvent::Resume message with immediate_exit enabled. immediate_exit was disabled before"
    assert exits.last_lines(f"{STAMP}the cause\n{log} proceeding\n") == "the cause"


def test_memory_that_ran_out_on_the_host_counts_more_than_the_status() -> None:
    assert exits.explain(Outcome(-9, out_of_memory=True), "", "").reason is ExitReason.OUT_OF_MEMORY


def test_power_off_of_bangers_own_init_is_told_from_a_reboot() -> None:
    record = exits.explain(Outcome(0), "banger: off\n[   9.1] reboot: Restarting system\n", "")
    assert record.reason is ExitReason.GUEST_POWEROFF


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Error creating KVM object: Permission denied (os error 13)", ErrorKind.UNAVAILABLE, "KVM does not take it"),
        ("cannot create mmap region: Cannot allocate memory", ErrorKind.EXHAUSTED, "no 512 MiB of memory"),
        ("Open tap device failed: Resource busy (os error 16)", ErrorKind.UNAVAILABLE, "cannot open its tap"),
        ("Kernel Loader: failed to load ELF kernel image", ErrorKind.INVALID, "cannot load its kernel"),
        ("Failed to apply cpu template", ErrorKind.INVALID, "CPU template"),
        ("who knows", ErrorKind.UNAVAILABLE, "gave up"),
    ],
)
def test_start_that_failed_says_what_to_do(said: str, kind: ErrorKind, words: str) -> None:
    error = failures.explain(CONFIG, f"{STAMP}{said}\n", Exception("gone"), timed_out=False)
    assert (error.kind, words in error.message, said in error.cause) == (kind, True, True)
    assert error.hint


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('banger-jail: cannot find the tap "bgt0": No such device', "something that it needs cannot be had"),
        ('banger-jail: cannot make "namespaces": Operation not permitted', "cannot be put into a jail"),
        ("Jailer error: Failed to create /dev/kvm via mknod inside the jail", "cannot be put into a jail"),
    ],
)
def test_jail_that_cannot_be_made_says_why_and_is_no_fault_of_kvm(said: str, words: str) -> None:
    error = failures.explain(CONFIG, f"thread 'main' panicked\n{said}\n", Exception("gone"), timed_out=False)
    assert (error.kind, error.cause) == (ErrorKind.UNAVAILABLE, said)
    assert words in error.message
    assert not isinstance(error, EngineError)


def test_kvm_that_is_to_blame_is_an_error_of_the_engine() -> None:
    error = failures.explain(CONFIG, "Error opening /dev/kvm", Exception(), timed_out=False)
    assert isinstance(error, EngineError)


# -- the API ---------------------------------------------------------------------------------------


@contextmanager
def server(path: Path, answer: bytes | None, *, heard: list[bytes] | None = None) -> Iterator[None]:
    """Takes one request and answers; with None it says nothing and keeps the connection."""
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            data = connection.recv(65536)
            if heard is not None:
                heard.append(data)
            if answer is not None:
                connection.sendall(answer)
            else:
                done.wait(10)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield
        done.set()
        thread.join()


def answered(status: str, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s \r\nServer: Firecracker API\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(), len(body), body,
    )  # fmt: skip


def test_request_is_one_that_firecracker_reads(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with server(tmp_path / "s", b"HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n", heard=heard):
        Api(tmp_path / "s", 5.0).patch("/vm", {"state": "Paused"})
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PATCH /vm HTTP/1.1\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body) == {"state": "Paused"}


def test_get_has_no_body_because_firecracker_refuses_one(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with server(tmp_path / "s", answered("200", b'{"state": "Running"}'), heard=heard):
        assert Api(tmp_path / "s", 5.0).get("/") == {"state": "Running"}
    assert b"Content-Length" not in heard[0]


@pytest.mark.parametrize("key", ["fault_message", "error"])
def test_refusal_is_told_in_firecrackers_words(tmp_path: Path, key: str) -> None:
    body = json.dumps({key: "not supported\nbefore starting"}).encode()
    with server(tmp_path / "s", answered("400", body)), pytest.raises(ApiError, match="not supported before starting"):
        Api(tmp_path / "s", 5.0).put("/actions", {})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-dropbear\r\n\r\n",
        b"HTTP/1.1 2OO \r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 9999999\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{}",
        answered("200", b"[1]"),
        answered("200", b"{"),
        answered("200", b"[" * 100_000),
        b"HTTP/1.1 200 \r\n" + b"X: " + b"y" * 40_000,
    ],
)
def test_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path / "s", answer), pytest.raises(ApiError):
        Api(tmp_path / "s", 5.0).get("/")


def test_nobody_at_the_socket_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ApiConnectError):
        Api(tmp_path / "nobody", 5.0).get("/")


def test_descriptors_that_ran_out_are_an_error_like_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(client.socket, "socket", none_left)
    with pytest.raises(ApiTimeoutError, match="Too many open files"):
        Api(tmp_path / "s", 5.0).get("/")


def test_silence_ends_at_the_deadline(tmp_path: Path) -> None:
    with server(tmp_path / "s", None), pytest.raises(ApiTimeoutError):
        Api(tmp_path / "s", 0.05).get("/")


def test_silence_ends_when_the_operation_is_cancelled(tmp_path: Path) -> None:
    token = CancelToken()
    threading.Timer(0.05, token.cancel).start()
    began = time.monotonic()
    with server(tmp_path / "s", None), pytest.raises(BangerError) as caught:
        Api(tmp_path / "s", 30.0, token).get("/")
    assert caught.value.kind is ErrorKind.CANCELLED
    assert time.monotonic() - began < 10.0


# -- a start ---------------------------------------------------------------------------------------


def test_machine_that_is_being_made_is_asked_nothing_because_it_would_end_without_a_word_if_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = processes.identify(os.getpid(), Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0", 1)[0])
    looks: list[int] = []
    heard: list[bytes] = []

    def threads(name: str, pid: int) -> list[Path]:
        looks.append(len(heard))
        return [Path("/proc")] if len(looks) > 3 else []

    monkeypatch.setattr(launch, "threads_named", threads)
    with server(tmp_path / "fc.sock", answered("200", b'{"state": "Running"}'), heard=heard):
        launch._wait_running(tmp_path, own, Deadline.after(30.0), CancelToken())
    assert (looks, len(heard)) == ([0, 0, 0, 0], 1)


# -- how a machine is ------------------------------------------------------------------------------


def a_machine(tmp_path: Path, console: str, *, offset: int = 0) -> Machine:
    """A process of ours in a machine's place, whose guest has printed ``console``."""
    log = tmp_path / "console.log"
    log.write_text(console)
    own = processes.identify(os.getpid(), Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0", 1)[0])
    return Machine("0" * 12, own, tmp_path, log, tmp_path / "vmm.log", console_offset=offset)


@pytest.fixture
def driver(tmp_path: Path) -> FirecrackerDriver:
    return make_driver(tmp_path)


def make_driver(tmp_path: Path, template: str = "") -> FirecrackerDriver:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    config = Config.load(layout.config_file, {"BANGER_FIRECRACKER_CPU_TEMPLATE": template} if template else {})
    return FirecrackerDriver(config, layout, Launching(config, "0123456789ab", {}), FakeEngines("kvm"))


HALT = "[    9.1] reboot: System halted\n"


@pytest.mark.parametrize(
    ("console", "offset", "threads", "health"),
    [
        (HALT, 0, [{1: 5}], Health.HALTED),
        (HALT, 0, [{1: 5}, {1: 6}], Health.RUNS),
        (HALT, 0, [{}], Health.RUNS),
        (HALT, len(HALT), [{1: 5}], Health.RUNS),
        (f"{HALT}[    0.1] Linux version\n", 0, [{1: 5}], Health.RUNS),
    ],
    ids=["halted", "somebody only says so", "its threads cannot be seen", "in an earlier boot", "and booted again"],
)
def test_machine_has_halted_if_its_kernel_said_so_last_and_does_nothing_since(
    driver: FirecrackerDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    console: str,
    offset: int,
    threads: list[dict[int, int]],
    health: Health,
) -> None:
    looks = iter([*threads[:-1], *[threads[-1]] * 1000])
    monkeypatch.setattr(firecracker_driver, "thread_times_ns", lambda pid, name: next(looks))
    monkeypatch.setattr(firecracker_driver, "_REST_S", 0.02)
    monkeypatch.setattr(firecracker_driver, "_REST_POLL_S", 0.001)
    machine = a_machine(tmp_path, console, offset=offset)
    with server(tmp_path / "fc.sock", answered("200", b'{"state": "Running"}')):
        assert driver.condition(machine).health is health


def test_paused_machine_is_told_from_one_that_runs(driver: FirecrackerDriver, tmp_path: Path) -> None:
    with server(tmp_path / "fc.sock", answered("200", b'{"state": "Paused"}')):
        assert driver.condition(a_machine(tmp_path, "")).health is Health.PAUSED


@pytest.mark.parametrize(
    ("version", "is_stopped"), [("1.16.0", True), ("1.16.1", True), ("1.16.2", False), ("1.12.1", False)]
)
def test_pause_stops_the_whole_process_where_firecrackers_own_would_make_the_guest_deaf(
    driver: FirecrackerDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, is_stopped: bool
) -> None:
    asked: list[str] = []
    stopped: list[object] = []

    def request(self: Api, method: str, path: str, body: object) -> dict[str, str]:
        asked.append(f"{method} {path}")
        return {"firecracker_version": version, "state": "Running"}

    monkeypatch.setattr(Api, "_request", request)
    monkeypatch.setattr(processes, "stop", lambda identity, timeout_s, token: stopped.append(identity))
    driver.pause(a_machine(tmp_path, ""))
    assert (bool(stopped), "PATCH /vm" in asked) == (is_stopped, not is_stopped)


def test_resume_of_a_machine_that_runs_says_nothing_to_it(
    driver: FirecrackerDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def request(self: Api, method: str, path: str, body: object) -> dict[str, str]:
        asked.append(method)
        return {"state": "Running"}

    monkeypatch.setattr(Api, "_request", request)
    driver.resume(a_machine(tmp_path, ""))
    assert asked == ["GET"]


@pytest.mark.parametrize("template", ["T3", "cpu.json", "/nonexistent/cpu.json", "/tmp"])
def test_cpu_template_that_is_neither_built_in_nor_a_file_is_a_usage_error(tmp_path: Path, template: str) -> None:
    with pytest.raises(BangerError, match=r"firecracker\.cpu_template") as caught:
        make_driver(tmp_path, template).options(VmSpec("debian"))
    assert (caught.value.kind, "T2S" in caught.value.hint) == (ErrorKind.USAGE, True)


def test_cpu_template_goes_to_the_machine_as_it_was_set(tmp_path: Path) -> None:
    own = tmp_path / "cpu.json"
    own.write_text("{}")
    for template in ("", "T2S", str(own)):
        assert make_driver(tmp_path, template).options(VmSpec("debian")) == {"cpu_template": template}


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"machine": "q35"}, "no machine"), ({"accelerator": "tcg"}, "no emulation"), ({"cpus": 33}, "at most 32 CPUs")],
)
def test_what_firecracker_lacks_is_a_usage_error(driver: FirecrackerDriver, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(BangerError, match=words) as caught:
        driver.options(VmSpec("debian", **spec))
    assert (caught.value.kind, caught.value.hint) == (ErrorKind.USAGE, "--vmm qemu")
