from __future__ import annotations

from dataclasses import replace

import pytest

from banger.core.errors import ErrorKind
from banger.vmm.qemu import failures
from tests.unit.test_vmm_arguments import CONFIG

PREFIX = "qemu-system-x86_64: "


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        (
            "-netdev user,id=net0: Could not set up host forwarding rule 'tcp:127.0.0.1:8080-:80'",
            ErrorKind.CONFLICT,
            "port 8080 on 127.0.0.1 is already taken",
        ),
        (
            "-netdev user,id=net0: Could not set up host forwarding rule 'tcp::8080-:80'",
            ErrorKind.CONFLICT,
            "port 8080 on 127.0.0.1 is already taken",
        ),
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
