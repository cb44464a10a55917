from __future__ import annotations

from dataclasses import replace

import pytest

from banger.core.errors import ErrorKind
from banger.core.names import PORTS_LOG_PREFIX
from banger.core.ports import EngineError
from banger.vmm.qemu import failures
from tests.unit.test_vmm_arguments import CONFIG

PREFIX = "qemu-system-x86_64: "


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        ("cannot set up guest memory 'microvm.ram': Cannot allocate memory", ErrorKind.EXHAUSTED, "512 MiB"),
        ('-device virtio-blk-device: Failed to get "write" lock', ErrorKind.CONFLICT, "another process uses its disk"),
        ("could not load kernel 'x'", ErrorKind.INVALID, "cannot load its kernel"),
        ("Error while loading elf kernel", ErrorKind.INVALID, "cannot load its kernel"),  # cut short; for arm64
        ("-sandbox: seccomp support is disabled", ErrorKind.UNAVAILABLE, "QEMU gave up"),
        ("", ErrorKind.UNAVAILABLE, "QEMU gave up"),
    ],
)
def test_explain_reads_qemus_words(log: str, kind: ErrorKind, message: str) -> None:
    error = failures.explain(CONFIG, PREFIX + log + "\n" if log else "", OSError("gone"), timed_out=False)
    assert error.kind is kind
    assert message in error.message
    assert '"web"' in error.message
    assert error.cause == (log or "gone")
    assert error.hint


def test_explain_of_a_timeout_says_so() -> None:
    error = failures.explain(replace(CONFIG, name="slow"), "", OSError("no answer"), timed_out=True)
    assert error.kind is ErrorKind.TIMEOUT


def test_last_lines_of_a_long_log_are_few() -> None:
    assert failures.last_lines("one\n\ntwo\nthree\n  four  \n") == "two; three; four"


@pytest.mark.parametrize(
    "log",
    [
        "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy",
        "Could not access KVM kernel module: Permission denied\nqemu-system-x86_64: failed to initialize kvm: denied",
        "failed to set MSR 0x10a to 0x69\nkvm.c:3183: kvm_buf_set_msrs: Assertion `ret == n' failed.",
    ],
)
@pytest.mark.parametrize(("accelerator", "blames_kvm"), [("kvm", True), ("tcg", False)])
def test_explain_blames_kvm_for_what_kvm_does_not_take(log: str, accelerator: str, blames_kvm: bool) -> None:
    config = replace(CONFIG, accelerator=accelerator)
    error = failures.explain(config, PREFIX + log, OSError("gone"), timed_out=False)
    assert isinstance(error, EngineError) is blames_kvm


def test_kvm_failure_is_told_in_one_line_without_the_registers() -> None:
    log = "KVM internal error. Suberror: 1\nemulation failure\nRAX=0 RBX=0\nemulation failure\n"
    assert failures.kvm_failure(log) == "KVM internal error. Suberror: 1; emulation failure"
    assert failures.kvm_failure("KVM: entry failed, hardware error 0x80000021\n\nIf you're running") != ""
    assert failures.kvm_failure("qemu-system-x86_64: terminating on signal 15 from pid 1") == ""


def test_words_of_the_forwarder_in_the_same_log_are_not_taken_for_qemus() -> None:
    log = "qemu-system-x86_64: terminating on signal 15 from pid 7 (kill)\n" + f"{PORTS_LOG_PREFIX}it is gone\n" * 5
    assert failures.last_lines(log) == "terminating on signal 15 from pid 7 (kill)"
