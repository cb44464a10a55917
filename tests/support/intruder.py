"""Somebody who has taken over a VMM in its jail, and tries what there is to try; and what there would be to find."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from banger.layout import Layout

#: Enters all namespaces of a process and becomes its user; then everything is tried, and told as JSON.
_INTRUDER = r"""
import ctypes, errno, json, os, socket, sys
pid, uid, paths, others = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
os.listdir(".".encode())  # codecs and the like are loaded now: afterwards there is no Python any more
namespaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("ipc", "uts", "net", "cgroup", "pid", "mnt")]
for one in namespaces:
    if libc.setns(one, 0):
        raise OSError(ctypes.get_errno(), "setns")
if child := os.fork():  # who enters a PID namespace has children in it
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)

def tried(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def call(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)

told = {"paths": {}}
for path in paths:
    told["paths"][path] = [
        tried(lambda: os.close(os.open(path, os.O_RDONLY))),
        tried(lambda: os.close(os.open(path, os.O_RDWR))),
        tried(lambda: call(path)),
        tried(lambda: os.chmod(path, 0o777)),
    ]
told["kill"] = [tried(lambda: os.kill(one, 9)) for one in others]
told["devices"] = sorted(os.listdir("/dev"))
told["root"] = sorted(os.listdir("/"))
told["home"] = sorted(os.listdir(sys.argv[5])) if os.path.isdir(sys.argv[5]) else None
told["mknod"] = tried(lambda: os.mknod("/dev/sda", 0o60666, os.makedev(8, 0)))
told["write"] = [tried(lambda: os.mkdir(f"{one}/x")) for one in json.loads(sys.argv[6])]
told["links"] = sorted(name for _, name in socket.if_nameindex())
told["mount"] = libc.mount(b"none", b"/dev", b"tmpfs", 0, None)
print(json.dumps(told))
"""
_DIRECTORIES = ("", "/dev", "/usr/lib")


def intrude(
    pid: int, uid: int, paths: list[Path], others: list[int], home: Path, directories: tuple[str, ...] = _DIRECTORIES
) -> dict[str, Any]:
    """From within the namespaces of a process, as its user.

    Args:
        pid: of the process.
        uid: what it is.
        paths: are opened for reading and for writing, called as sockets, and changed.
        others: processes to be killed, as they are numbered out here.
        home: is listed.
        directories: in which something is made.
    """
    words = [sys.executable, "-I", "-c", _INTRUDER, str(pid), str(uid), json.dumps([str(path) for path in paths])]
    words += [json.dumps(others), str(home), json.dumps(directories)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@contextmanager
def open_secrets(home: Path) -> Iterator[list[Path]]:
    """What root's daemon has, as it would lie there, and open to everybody by mode: what hides it is the jail."""
    layout = Layout.from_environment({"BANGER_HOME": str(home / "home")})
    layout.make_directories()
    files = [layout.database, layout.ssh_key, layout.ssh_key.with_suffix(".pub"), layout.installation_id_file]
    for path in files:
        path.write_text("secret", encoding="utf-8")
        path.chmod(0o666)
    for directory in (home, layout.data, layout.run, layout.ssh_key.parent):
        directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(layout.socket))
        listener.listen()
        layout.socket.chmod(0o666)
        yield [*files, layout.socket]


def status_of(pid: int) -> dict[str, str]:
    """``/proc/PID/status`` (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return dict(re.split(r":\s*", line, maxsplit=1) for line in lines if ":" in line)
