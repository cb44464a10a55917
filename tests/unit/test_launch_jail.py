"""What the jail is told."""

from __future__ import annotations

from pathlib import Path

from banger.launch import Confinement, ForHelper, ForJailer, Job, Opened, Put
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
#: What a jailer gets, which makes the rest of the jail.
JAILERS = Confinement(
    visible=[Path("/opt/jailer")],
    uid=2_100_000_000,
    has_processes=False,
    jailer=ForJailer(Path("/jails"), 4096, [Put("write", Path("/v/disk"), Path("/jails/r/disk"))], ["bgt0"]),
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


def test_helper_keeps_what_it_inherits_has_a_tap_of_its_own_and_ends_with_its_parent() -> None:
    given = Confinement(uid=2100000000, has_network=False, written=[Path("/s/memory")], helper=ForHelper([7], 8))
    told = options(given)
    for words in ("--keep 7", "--own-tap 8", "--end-with-parent", "--put write /s/memory /s/memory", "--no-network"):
        assert f" {words} " in told
    assert not {"--keep", "--own-tap", "--end-with-parent"} & set(options(GIVEN).split())


def test_service_is_started_as_the_helper() -> None:
    words = run_arguments("u.service", Job("x", ["/bin/vmm", "$HOME"], Path("/l"), confinement=GIVEN))
    command = words[words.index("--") + 1 :]
    assert command[: len(helper())] == helper()
    assert command[-2:] == ["/bin/vmm", "$$HOME"]


def test_jailer_is_told_whom_to_become_and_gets_what_it_needs_for_that() -> None:
    told = options(JAILERS)
    for words in (
        "--user 2100000000 2100000000", "--jailer", "--scratch /jails 4096", "--put write /v/disk /jails/r/disk",
        "--lend-tap bgt0", "--root",
    ):  # fmt: skip
        assert f" {words} " in told
    assert " --process-namespace " not in told  # who starts it has seen to that
    assert not {"--jailer", "--scratch", "--put", "--lend-tap"} & set(options(GIVEN).split())


def test_service_that_is_process_1_of_a_namespace_is_what_the_helper_leaves_behind() -> None:
    words = run_arguments("u.service", Job("x", ["/opt/jailer"], Path("/l"), confinement=JAILERS))
    assert "--property=Type=forking" in words
    assert "--process-namespace" in words
    usual = run_arguments("u.service", Job("x", ["/bin/vmm"], Path("/l"), confinement=GIVEN))
    assert "--property=Type=exec" in usual
    assert "--process-namespace" not in usual
