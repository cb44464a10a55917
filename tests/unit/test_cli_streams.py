"""Standard output and standard error that take nothing: one line, a documented code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from banger.core.frames import FrameType
from banger.layout import Layout
from tests.support.cli import banger_process
from tests.support.fake_api import FakeApi, FrameSession, event, image_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)
#: Each case is a process of its own.
pytestmark = pytest.mark.slow

FULL = b"error: cannot write to standard output: no space left on device\n"
CLOSED = b"error: cannot write to standard output: bad file descriptor\n"

COMMANDS = [
    "--help", "--version", "version --json", "vm run --help", "completion bash", "__complete bash -- 'banger v'",
    "config show", "image list", "image list --json", "image list -q", "vm show web", "vm stop web --json",
    "vm logs web", "vm logs -f --json web", "op follow 0p --json", "daemon logs", "vm exec web echo",
    "vm cp web:/etc/hosts -", "run alpine echo", "run -d alpine",
]  # fmt: skip


@pytest.fixture
def daemon(api: FakeApi) -> FakeApi:
    """Answers all of them."""

    def speak(session: FrameSession) -> None:
        session.started()
        session.send(FrameType.STDOUT, b"hello\n")
        session.exit(0)

    api.on("GET", "/v1/images", [image_json()])
    api.on("GET", "/v1/vms/web", vm_json())
    api.on("GET", "/v1/vms/0123456789ab", vm_json())
    api.long("POST", "/v1/vms/web/stop", vm_json())
    api.on("GET", "/v1/vms/web/logs", data=b"hello\n")
    api.on("GET", "/v1/operations/0p/events", lines=[{"event": event("started")}, {"result": None}])
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/etc/hosts", "kind": "file"})
    api.on("POST", "/v1/vms/web/files/get", talk=speak)
    api.on("POST", "/v1/vms/web/exec", talk=speak)
    api.on("POST", "/v1/vms/run", talk=speak)
    log = Layout.from_environment().daemon_log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("started\n")
    return api


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    script = f"exec {sys.executable} -m banger {command}"
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_full_output_is_one_line_and_a_code_of_its_own(daemon: FakeApi, command: str) -> None:
    done = shell(f"{command} >/dev/full")
    assert (done.returncode, done.stderr) == (74, FULL)


@pytest.mark.parametrize("command", ["--help", "image list --json", "vm exec web echo", "vm logs -f web"])
def test_closed_output_is_an_output_that_fails(daemon: FakeApi, command: str) -> None:
    done = shell(f"{command} >&-")
    assert (done.returncode, done.stderr) == (74, CLOSED)


@pytest.mark.parametrize("command", ["--help", "image list", "vm logs web", "vm exec web echo", "op follow 0p --json"])
def test_reader_that_has_left_is_no_error(daemon: FakeApi, command: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = banger_process(*command.split(), stdout=write_end)
    os.close(write_end)
    assert (process.communicate(timeout=30)[1], process.returncode) == (b"", 141)


def test_file_system_that_fills_up_is_an_output_that_fails(daemon: FakeApi, tmp_path: Path) -> None:
    """A limit of the file's size stands for it: what fitted is there, and the rest is not silently missing."""
    daemon.on("GET", "/v1/vms/web/logs", data=b"x" * 4000)
    done = shell(f"vm logs web >{tmp_path / 'log'}").returncode
    assert done == 0
    script = f"ulimit -f 1; exec {sys.executable} -m banger vm logs web >{tmp_path / 'log'}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (74, b"error: cannot write to standard output: file too large\n")


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-"])
def test_messages_that_nobody_can_read_change_nothing(daemon: FakeApi, closed: str) -> None:
    assert shell(f"vm show nope {closed}").returncode == 3
    assert shell(f"vm lst {closed}").returncode == 2
    done = shell(f"vm stop web {closed}")
    assert (done.returncode, done.stdout) == (0, b"web\n")
    done = shell(f"run alpine echo {closed}")
    assert (done.returncode, done.stdout) == (0, b"hello\n")


def test_failure_keeps_its_code_where_its_json_cannot_be_written(daemon: FakeApi) -> None:
    done = shell("vm show nope --json >/dev/full")
    assert (done.returncode, done.stderr) == (3, b'error: no route "GET /v1/vms/nope"\n')


def test_output_that_another_process_made_non_blocking_is_waited_for(daemon: FakeApi) -> None:
    rows = [image_json(f"image-{i}") for i in range(2000)]
    daemon.on("GET", "/v1/images", rows)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    process = banger_process("image", "list", "--json", stdout=write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reader:
        text = reader.read()
    process.communicate(timeout=30)
    assert (process.returncode, text.count(b'"name": "image-')) == (0, len(rows))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_characters_without_bytes_are_escaped(daemon: FakeApi, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    name = "süß \udcff"
    daemon.on("GET", "/v1/images", [image_json(name)])
    table, document = shell("image list"), shell("image list --json")
    assert (table.returncode, document.returncode) == (0, 0)
    assert b"\\udcff" in table.stdout
    assert json.loads(document.stdout)[0]["name"] == name


def test_argument_that_is_not_utf8_is_not_our_bug(daemon: FakeApi) -> None:
    done = shell("vm show $'\\xff' --json")
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (3, "not_found")
    assert shell("vm lst $'\\xff'").returncode == 2


@pytest.mark.parametrize("command", ["logs -f web", "op follow 0p --json", "daemon logs -f"])
def test_reader_that_leaves_a_silent_stream_ends_it(daemon: FakeApi, command: str) -> None:
    held = threading.Event()
    daemon.on("GET", "/v1/vms/web/logs", lines=[{"line": "one"}], held=held)
    daemon.on("GET", "/v1/operations/0p/events", lines=[{"event": event("started")}], held=held)
    process = banger_process(*command.split())
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert (process.wait(20), process.stderr.read()) == (141, b"")
    held.set()
    process.communicate()
