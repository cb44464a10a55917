"""What the jail is told."""

from __future__ import annotations

from pathlib import Path

from banger.launch import Confinement, Job, Opened
from banger.launch.jail import helper, jailed
from banger.launch.systemd import run_arguments

GIVEN = Confinement(
    files=[Opened(12, "write", Path("/v/disk"))],
    sockets=[(10, Path("/run/qmp.sock"))],
    taps=[(13, "bgt0")],
    visible=[Path("/usr/lib")],
    devices=[Path("/dev/null")],
    uid=2_100_000_000,
    has_network=False,
    enter=[Path("/proc/7/ns/net")],
)


def options(given: Confinement, cgroup: Path | None = None) -> str:
    return " ".join(jailed(given, ["/bin/vmm", "--", "a b"], cgroup))


def test_program_and_its_arguments_come_last_and_unchanged() -> None:
    assert jailed(GIVEN, ["/bin/vmm", "--", "a b"])[-4:] == ["--", "/bin/vmm", "--", "a b"]


def test_everything_that_is_given_is_told() -> None:
    told = options(GIVEN, Path("/sys/fs/cgroup/x/cgroup.procs"))
    for words in (
        "--cgroup /sys/fs/cgroup/x/cgroup.procs", "--enter /proc/7/ns/net", "--open 12 write /v/disk",
        "--listen 10 /run/qmp.sock", "--tap 13 bgt0", "--no-network", "--root", "--visible /usr/lib",
        "--device /dev/null", "--user 2100000000 2100000000",
    ):  # fmt: skip
        assert f" {words} " in told
    assert "--user-namespace" not in told


def test_process_without_a_user_of_its_own_gets_a_user_namespace_for_its_mounts() -> None:
    told = options(Confinement())
    assert " --user-namespace " in told
    assert " --user " not in told
    assert " --no-network " not in told
    assert " --user-namespace " not in options(Confinement(enter=[Path("/proc/7/ns/user")]))  # which it owns


def test_service_is_started_as_the_helper() -> None:
    words = run_arguments("u.service", Job("x", ["/bin/vmm", "$HOME"], Path("/l"), confinement=GIVEN))
    command = words[words.index("--") + 1 :]
    assert command[: len(helper())] == helper()
    assert command[-2:] == ["/bin/vmm", "$$HOME"]
