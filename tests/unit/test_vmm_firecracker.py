"""Firecracker's configuration, its words, and the client of its API, against a server that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import Outcome
from banger.core.models import ExitReason
from banger.core.ports import Drive, EngineError, TapNic, UserNic, VmmConfig
from banger.vmm.firecracker import exits, failures
from banger.vmm.firecracker.client import Api, ApiConnectError, ApiError, ApiTimeoutError
from banger.vmm.firecracker.configuration import configuration

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
