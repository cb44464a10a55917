"""What a guest or a registry says does not reach a terminal as it is; what is no terminal gets every byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from banger.core.frames import FrameType
from banger.render.terminal import Terminal as Output
from tests.support.cli import Cli, banger
from tests.support.cli_terminal import Terminal
from tests.support.fake_api import FakeApi, FrameSession, event, image_json, kernel_json, vm_json
from tests.unit.test_cli_why import WHY

pytest_plugins = ("tests.support.cli_fixtures",)
EVIL = "x\x1b]0;owned\x07\x9b31m\u202ey"
CONSOLE = b"[\x1b[32m OK \x1b[0m] up\r\n\x1b]52;c;ZXZpbA==\x07\xc2\x9b2Jend"
STEERING = re.compile(rb"\x1b\]|\x07|\xc2\x9b|\xe2\x80\xae")


@pytest.mark.parametrize(
    ("arguments", "shown"), [((), b"[ OK ] up\r\n\\x1b]52;c;ZXZpbA==\\x07\\x9b2Jend"), (("--raw",), b"\x07")]
)
def test_console_on_a_terminal_is_shown_not_obeyed_unless_raw(
    api: FakeApi, terminal: type[Terminal], arguments: tuple[str, ...], shown: bytes
) -> None:
    api.on("GET", "/v1/vms/web/logs", data=CONSOLE)
    tty = terminal("vm", "logs", "web", *arguments)
    tty.read_until(shown)
    assert bool(STEERING.search(tty.output)) is bool(arguments)
    assert tty.close() == 0


@pytest.mark.parametrize("arguments", [(), ("--raw",)])
def test_console_elsewhere_is_what_it_is_byte_for_byte(api: FakeApi, arguments: tuple[str, ...]) -> None:
    api.on("GET", "/v1/vms/web/logs", data=CONSOLE)
    assert banger("vm", "logs", "web", *arguments) == (0, CONSOLE, b"")


def test_boot_messages_progress_and_errors_are_shown_not_obeyed(api: FakeApi, terminal: type[Terminal]) -> None:
    def talk(session: FrameSession) -> None:
        session.send_json(FrameType.EVENT, event("step_started", EVIL))
        session.send_json(FrameType.EVENT, event("note", message=EVIL))
        session.fail(kind="unavailable", message=EVIL, cause=EVIL, hint=EVIL)

    api.on("POST", "/v1/vms/run", talk=talk)
    for arguments in (("run", "alpine", "true"), ("--debug", "run", "alpine", "true")):
        tty = terminal(*arguments)
        tty.read_until(b"hint:")
        tty.close()
        assert not STEERING.search(tty.output)


def test_names_labels_and_what_was_left_out_are_shown_not_obeyed(api: FakeApi, terminal: type[Terminal]) -> None:
    api.on("GET", "/v1/vms", [vm_json(name=EVIL, id=EVIL)])
    api.on("GET", "/v1/images/a", image_json(source=EVIL, config={"labels": {EVIL: EVIL}}))
    for arguments in (("ps", "-q"), ("ps", "--json"), ("image", "show", "a")):
        tty = terminal(*arguments)
        tty.read_until(b"owned")
        tty.close()
        assert not STEERING.search(tty.output)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_nothing_that_steers_the_shells_terminal(cli: Cli, api: FakeApi, shell: str) -> None:
    evil = f"{EVIL}\nrm -rf"
    api.on("GET", "/v1/images", [image_json(evil)])
    api.on("GET", "/v1/catalog", {"images": [{"name": "debian", "summary": evil}], "kernels": []})
    words = ["banger image show "] if shell == "bash" else ["banger", "image", "pull", ""]
    offered = cli("__complete", shell, "--", *words).out
    assert offered
    assert not STEERING.search(offered.encode())
    assert "\nrm" not in offered


def test_json_says_the_same_with_every_character(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json(name=EVIL)])
    ended = cli("ps", "--json")
    assert json.loads(ended.out)[0]["name"] == EVIL
    assert "\x9b" not in ended.out


def test_console_without_line_ends_is_told_in_parts(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms/web/logs", data=b"n" * 300_000)
    lines = [json.loads(line)["line"] for line in cli("vm", "logs", "web", "--json").out.splitlines()]
    assert (len(lines), "".join(lines)) == (5, "n" * 300_000)


LOGGING = """
from banger.daemon import logs
logs.set_up("INFO", dev=False)
from loguru import logger
words = "said\\n2026-01-01T00:00:00.000Z ERROR   forged\\r2026-01-01 forged\\x1b]0;owned\\x07"
logger.info("the guest {}", words)
logger.bind(op=words).info("bound")
try:
    raise ValueError(words)
except ValueError:
    logger.exception("caught {}", words)
logger.info("x" * 100_000)
import threading, warnings
def fail():
    raise ValueError(words)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
warnings.warn(words)
class Odd:
    def __del__(self):
        raise ValueError(words)
Odd()
"""


def test_log_of_the_daemon_has_no_lines_that_a_guest_made() -> None:
    ended = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, check=True, timeout=60)
    lines = ended.stderr.decode().splitlines()
    own = [line for line in lines if re.match(r"\d{4}-", line)]
    assert [line.split()[1] for line in own] == ["INFO", "INFO", "ERROR", "INFO", "ERROR", "WARNING", "ERROR"]
    assert all(line.startswith("    | ") for line in lines if line not in own)
    assert b"\x1b" not in ended.stderr
    assert any("ValueError" in line for line in lines)
    assert max(map(len, own)) < 20_000


def poisoned(value: Any) -> Any:
    """Everything that is text, but for times, which are read, as somebody hostile would have it; keys too."""
    if isinstance(value, Mapping):
        return {key: item if key.endswith("_at") or key == "at" else poisoned(item) for key, item in value.items()} | (
            {EVIL: EVIL} if not value else {}
        )
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return EVIL if isinstance(value, str) else value


OPERATION = {
    "id": "0p", "kind": "image.pull", "subject": "debian", "state": "failed", "elapsed_s": 2.0, "finished_at": None,
    "steps": [{"name": "fetch", "started_s": 0, "duration_s": 2.0, "failed": True}],
    "created_at": "2026-11-23T12:00:00.000Z", "error": {"message": "no", "cause": "c", "hint": "try"},
}  # fmt: skip
ENTRY = {"name": "debian", "source": "docker.io/x", "summary": "s", "origin": "o"}
FINDING = {"severity": "error", "code": "c", "message": "m", "hint": "h"}
VM = vm_json(labels={"a": "b"}, ports=[], timings=[{"name": "boot", "started_s": 0.0, "duration_s": 1.0}])
SHOWN: Mapping[tuple[str, ...], tuple[str, str, Any]] = {
    ("ps",): ("GET", "/v1/vms", [vm_json(ports=[])]),
    ("vm", "show", "web"): ("GET", "/v1/vms/web", {**VM, "ports": []}),
    ("vm", "why", "web"): ("GET", "/v1/vms/web/why", WHY),
    ("image", "list"): ("GET", "/v1/images", [image_json()]),
    ("image", "show", "debian"): ("GET", "/v1/images/debian", image_json()),
    ("image", "lint", "debian"): (
        "GET",
        "/v1/images/debian/lint",
        {"image": "i", "kernel": "k", "kernel_config": "c", "errors": 1, "warnings": 0, "findings": [FINDING]},
    ),
    ("kernel", "list"): ("GET", "/v1/kernels", [kernel_json()]),
    ("kernel", "show", "mine"): ("GET", "/v1/kernels/mine", kernel_json()),
    ("catalog", "list"): ("GET", "/v1/catalog", {"images": [ENTRY], "kernels": [ENTRY]}),
    ("op", "list"): ("GET", "/v1/operations", [OPERATION]),
    ("op", "show", "0p"): ("GET", "/v1/operations/0p", OPERATION),
    ("home", "list"): ("GET", "/v1/homes", [{"name": "h", "vm": "v", "image": "i", "disk_bytes": 1, "broken": ""}]),
    ("doctor", "--leaks"): (
        "GET",
        "/v1/system/objects",
        [{"kind": "tap", "key": "k", "owner": "o", "reason": "r", "is_leak": True}],
    ),
    ("system", "df"): ("GET", "/v1/system/df", {"images_bytes": 1, "free_bytes": 2}),
    ("daemon", "status"): ("GET", "/v1/system", {"pid": 1, "version": "1", "vmm": "q", "dns": ["d"], "socket": "s"}),
}


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
@pytest.mark.parametrize("extra", [(), ("--json",), ("-q",)])
def test_nothing_that_is_shown_can_steer_a_terminal(
    cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Output, "__init__", _interactive)
    method, path, value = SHOWN[arguments]
    api.on(method, path, poisoned(value))
    ended = cli(*arguments, *extra)
    assert ended.code in (0, 1, 2, 9)
    assert ended.out
    assert not STEERING.search((ended.out + ended.err).encode())


def _interactive(self: Any, stream: Any, env: Any = None) -> None:
    """Standard output of a test is no terminal."""
    self.stream, self.interactive, self.can_move, self.colour, self.unicode = stream, True, False, False, True
