"""The channel into a guest: a command, bulk data and what a quiet guest costs, against ssh into such a guest.

The bars are those of the channel that the agent replaced: ssh of the daemon's own, over kept connections to a
forwarded port. Its figures were taken before it was deleted (``SSH_*``), and its times are counted in what starting a
program took in the same guest then: nearly all of them was work of the guest's processor, so that a host whose guests
are twice as fast would have had ssh twice as fast, too. For bulk data the better of what was measured counts in each
direction, through an exec or in a copy, on a quiet host or on a busy one.

Beside them, without a bar, OpenSSH as a user has it today, in its best form: one connection that is open already and
shared (``ControlMaster``), so that no key exchange and no login is measured. It goes through the agent itself.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.commands.ssh import proxy_of, ssh_options
from banger.sdk import Banger, Machine
from bench.idle_channels import idle_kib
from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home

NAME = "measured"
_MB = 10**6
#: Bytes that go through in one run. By ssh it is a tenth, whose time is taken ten times: all would take minutes.
OURS_BYTES = 100 * _MB
SSH_SHARE = 10
#: Commands in one run.
COMMANDS = 20
#: Of the ssh channel before the agent: a program started and waited for by the guest itself, a command through the API,
#: and bytes a second out of the guest and into it.
SSH_FORK_S, SSH_EXEC_S, SSH_OUT, SSH_IN = 0.0265, 0.150, 3.5 * _MB, 2.8 * _MB
OF_SSH, OF_SSH_RATE = 0.25, 1 / 12
#: Beyond what the guest itself takes to start a program and wait for it.
BEYOND_FORK_S = 0.005
STREAMS, BESIDE_STREAMS = 20, 3.0
IDLE_VMS, IDLE_KIB = 50, 150.0


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Commands, bulk data both ways, a command beside bulk data, and quiet guests."""
    with banger_home(root) as home:
        home.run("vm", "run", "debian", "--name", NAME, "--detach").ok()
        machine = Banger(home.path).vms.get(NAME)
        with _shared_ssh(home, machine, root) as ssh:
            commands = _commands(machine, ssh, rounds)
            yield from _compared_commands(commands)
            yield from _bulk(home, machine, ssh, root, rounds, commands["fork"] / SSH_FORK_S)
        yield _beside(home, machine, rounds)
    name = f"memory of the channel of a quiet guest, of {IDLE_VMS}, allowed"
    yield Comparison(name, idle_kib(root, IDLE_VMS), IDLE_KIB, 1.0, unit="KiB")


@dataclass(frozen=True, slots=True)
class _Ssh:
    """A login that is done already."""

    argv: Sequence[str]

    def time(self, command: str, source: Path | None = None) -> float:
        started = time.perf_counter()
        with (source or Path("/dev/null")).open("rb") as stdin:
            subprocess.run([*self.argv, command], stdin=stdin, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started


@contextmanager
def _shared_ssh(home: BangerHome, machine: Machine, root: Path) -> Iterator[_Ssh]:
    access = Banger(home.path).client.get(f"/v1/vms/{machine.id}/access")
    control = root / "control"
    options = ["-o", f"ControlPath={control}", "-o", "LogLevel=ERROR", *ssh_options(access, proxy_of(NAME))]
    argv = ["ssh", "-F", "none", *options, f"root@{NAME}"]
    with subprocess.Popen([*argv[:-1], "-M", "-N", argv[-1]], env=home.cli.env, stdin=subprocess.DEVNULL) as master:
        try:
            deadline = time.monotonic() + 60
            while subprocess.run([*argv[:-1], "-O", "check", argv[-1]], capture_output=True, check=False).returncode:
                if time.monotonic() > deadline:
                    raise RuntimeError("no ssh connection into the guest")
                time.sleep(0.1)
            yield _Ssh(argv)
        finally:
            master.terminate()


def _commands(machine: Machine, ssh: _Ssh, rounds: int) -> dict[str, float]:
    """Seconds that a command takes by each way, and a fork and exec of the guest's own."""
    own = f"i=0; while [ $i -lt {COMMANDS} ]; do /bin/true; i=$((i+1)); done"

    def forks() -> float:
        with_, without = _timed(lambda: machine.exec(["sh", "-c", own]).check()), _exec_s(machine)
        return (with_ - without) / COMMANDS

    return interleaved(
        {
            "agent": lambda: statistics.fmean(_exec_s(machine) for _ in range(COMMANDS)),
            "ssh": lambda: statistics.fmean(ssh.time("true") for _ in range(COMMANDS)),
            "fork": forks,
        },
        rounds,
    )


def _compared_commands(medians: Mapping[str, float]) -> Iterator[Comparison]:
    agent, fork = medians["agent"], medians["fork"]
    before = SSH_EXEC_S * fork / SSH_FORK_S
    yield Comparison("exec of true at the API vs the ssh channel before the agent", agent, before, OF_SSH)
    name = "exec of true at the API vs a fork and exec in the guest"
    yield Comparison(name, agent, fork, BEYOND_FORK_S, limit_is_difference=True)
    yield Comparison("exec of true at the API vs a shared OpenSSH connection", agent, medians["ssh"], math.inf)


def _bulk(
    home: BangerHome, machine: Machine, ssh: _Ssh, root: Path, rounds: int, guest_pace: float
) -> Iterator[Comparison]:
    """Bulk data each way; ``guest_pace`` is the time that the guest's processor takes for what took 1 then."""
    with tempfile.TemporaryDirectory(dir=root) as directory:
        whole, part = Path(directory, "whole"), Path(directory, "part")
        whole.write_bytes(bytes(OURS_BYTES))
        part.write_bytes(bytes(OURS_BYTES // SSH_SHARE))
        data = whole.read_bytes()
        out = ["head", "-c", str(OURS_BYTES), "/dev/zero"]

        def by_cp(*words: str) -> float:
            return timed(home.cli.argv("vm", "cp", *words), home.cli.env)

        part_bytes = OURS_BYTES // SSH_SHARE
        medians = interleaved(
            {
                "out through exec": lambda: _timed(lambda: machine.exec(out).check()),
                "in through exec": lambda: _timed(
                    lambda: machine.exec(["sh", "-c", "cat >/dev/null"], input=data).check()
                ),
                "in by vm cp": lambda: by_cp(str(whole), f"{NAME}:/var/tmp/big"),
                "out by vm cp": lambda: by_cp(f"{NAME}:/var/tmp/big", str(Path(directory, "back"))),
                "ssh out": lambda: SSH_SHARE * ssh.time(f"head -c {part_bytes} /dev/zero"),
                "ssh in": lambda: SSH_SHARE * ssh.time("cat >/dev/null", part),
            },
            rounds,
        )
    before = {"out": OURS_BYTES / SSH_OUT * guest_pace, "in": OURS_BYTES / SSH_IN * guest_pace}
    for name in ("out through exec", "in through exec", "out by vm cp", "in by vm cp"):
        title, way = f"{OURS_BYTES // _MB} MB {name}", name.split()[0]
        yield Comparison(f"{title} vs the ssh channel before the agent", medians[name], before[way], OF_SSH_RATE)
        yield Comparison(f"{title} vs a shared OpenSSH connection", medians[name], medians[f"ssh {way}"], math.inf)


def _beside(home: BangerHome, machine: Machine, rounds: int) -> Comparison:
    """A command in a guest that sends as much as it can."""
    idle = statistics.median(_exec_s(machine) for _ in range(COMMANDS))
    argv = home.cli.argv("vm", "exec", NAME, "--", "cat", "/dev/zero")
    streams = [
        subprocess.Popen(argv, env=home.cli.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        for _ in range(STREAMS)
    ]
    try:
        drains = [subprocess.Popen(["cat"], stdin=one.stdout, stdout=subprocess.DEVNULL) for one in streams]
        machine.exec(["true"]).check()  # behind everything that was begun before
        busy = statistics.median(_exec_s(machine) for _ in range(max(COMMANDS, rounds)))
    finally:
        for one in streams:
            one.kill()
            one.wait()
    for drain in drains:
        drain.wait()
    return Comparison(f"exec beside {STREAMS} streams at full speed vs idle", busy, idle, BESIDE_STREAMS)


def _exec_s(machine: Machine) -> float:
    return _timed(lambda: machine.exec(["/bin/true"]).check())


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
