"""Words for systemd-run, and the manager's words read."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.launch import Job, Limits, Outcome
from banger.launch.environment import inheritable, is_supervised, vmm_environment
from banger.launch.systemd import SystemdLauncher, parse_properties, read_outcome, run_arguments

JOB = Job("aaaaaaaaaaaa", ["/usr/bin/$vmm", "-append", "root=$HOME ${x} 50%", "a b"], Path("/var/log/vmm.log"))


def test_arguments_reach_the_program_as_they_are() -> None:
    words = run_arguments("u.service", JOB)
    assert words[words.index("--") + 1 :] == ["/usr/bin/$vmm", "-append", "root=$$HOME $${x} 50%", "a b"]


def test_unit_is_a_service_that_outlives_its_process_and_logs_to_the_file() -> None:
    words = run_arguments("u.service", JOB)
    assert {"--unit=u.service", "--slice=banger.slice"} <= set(words)
    for wanted in ("Type=exec", "RemainAfterExit=yes", "StandardError=append:/var/log/vmm.log", "NoNewPrivileges=yes"):
        assert f"--property={wanted}" in words
    assert not any("CPUQuota" in word or "Max" in word for word in words)


def test_limits_become_properties() -> None:
    words = run_arguments("u.service", Job("x", ["/bin/true"], Path("/l"), Limits(250, 1 << 30, 1024)))
    assert {f"--property={one}" for one in ("CPUQuota=250%", "MemoryMax=1073741824", "TasksMax=1024")} <= set(words)


def test_name_of_a_unit_tells_installation_and_vm() -> None:
    assert SystemdLauncher("0123456789ab").key("aaaaaaaaaaaa") == "banger-0123456789ab-aaaaaaaaaaaa.service"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("ExecMainCode=1\nExecMainStatus=0\nResult=success", Outcome(0)),
        ("ExecMainCode=1\nExecMainStatus=3\nResult=exit-code", Outcome(3)),
        ("ExecMainCode=2\nExecMainStatus=9\nResult=signal", Outcome(-9)),
        ("ExecMainCode=3\nExecMainStatus=11\nResult=core-dump", Outcome(-11)),
        ("ExecMainCode=2\nExecMainStatus=9\nResult=oom-kill", Outcome(-9, out_of_memory=True)),
        ("ExecMainCode=0\nExecMainStatus=0\nResult=success", Outcome(None)),
        ("LoadState=not-found", Outcome(None)),
        ("", Outcome(None)),
    ],
)
def test_outcome_of_a_main_process(text: str, outcome: Outcome) -> None:
    assert read_outcome(parse_properties(text)) == outcome


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "42"}, True),
        ({"INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "41", "NOTIFY_SOCKET": "/n"}, False),  # a terminal's, inherited
        ({"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/n"}, True),  # a manager that does not tell the pid
        ({"INVOCATION_ID": "x"}, False),
        ({}, False),
    ],
)
def test_daemon_knows_whether_systemd_started_it(tmp_path: Path, env: dict[str, str], expected: bool) -> None:
    assert is_supervised(env, 42, tmp_path) is expected
    assert not is_supervised(env, 42, tmp_path / "systemd-does-not-run")


def test_children_do_not_speak_for_the_daemon() -> None:
    env = {"PATH": "/bin", "NOTIFY_SOCKET": "/n", "WATCHDOG_PID": "1", "INVOCATION_ID": "x"}
    assert inheritable(env) == {"PATH": "/bin"}


def test_vmm_inherits_nothing_that_its_daemon_was_told() -> None:
    env = {"PATH": "/bin", "API_TOKEN": "secret", "BANGER_HOME": "/b", "HOME": "/root", "https_proxy": "http://u:p@h"}
    assert vmm_environment(env) == {"PATH": "/bin"}
