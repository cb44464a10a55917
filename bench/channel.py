"""The channel into a guest: a command, bulk data and what a quiet guest costs, against OpenSSH into the same guest.

ssh has its best form here: one connection that is open already and shared (``ControlMaster``), so that no key exchange
and no login is measured. When the daemon itself reached guests by ssh over a forwarded port, on an emulated guest, a
command took 150 ms, and 3.5 MB/s came out and 1.6 MB/s went in.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
            yield from _commands(machine, ssh, rounds)
            yield from _bulk(home, machine, ssh, root, rounds)
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


def _commands(machine: Machine, ssh: _Ssh, rounds: int) -> Iterator[Comparison]:
    own = f"i=0; while [ $i -lt {COMMANDS} ]; do /bin/true; i=$((i+1)); done"

    def forks() -> float:
        with_, without = _timed(lambda: machine.exec(["sh", "-c", own]).check()), _exec_s(machine)
        return (with_ - without) / COMMANDS

    medians = interleaved(
        {
            "agent": lambda: statistics.fmean(_exec_s(machine) for _ in range(COMMANDS)),
            "ssh": lambda: statistics.fmean(ssh.time("true") for _ in range(COMMANDS)),
            "fork": forks,
        },
        rounds,
    )
    yield Comparison("exec of true at the API vs ssh, connected", medians["agent"], medians["ssh"], OF_SSH)
    name = "exec of true at the API vs a fork and exec in the guest"
    yield Comparison(name, medians["agent"], medians["fork"], BEYOND_FORK_S, limit_is_difference=True)


def _bulk(home: BangerHome, machine: Machine, ssh: _Ssh, root: Path, rounds: int) -> Iterator[Comparison]:
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
                "out": lambda: _timed(lambda: machine.exec(out).check()),
                "in": lambda: _timed(lambda: machine.exec(["sh", "-c", "cat >/dev/null"], input=data).check()),
                "cp in": lambda: by_cp(str(whole), f"{NAME}:/var/tmp/big"),
                "cp out": lambda: by_cp(f"{NAME}:/var/tmp/big", str(Path(directory, "back"))),
                "ssh out": lambda: SSH_SHARE * ssh.time(f"head -c {part_bytes} /dev/zero"),
                "ssh in": lambda: SSH_SHARE * ssh.time("cat >/dev/null", part),
            },
            rounds,
        )
    for name, peer in (("out", "ssh out"), ("in", "ssh in"), ("cp in", "ssh in"), ("cp out", "ssh out")):
        title = f"{OURS_BYTES // _MB} MB {name}{'' if 'cp' in name else ' through exec'} vs {peer}"
        yield Comparison(title, medians[name], medians[peer], OF_SSH_RATE)


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
