"""One small image with many oddities of the field in it: to pull it is to meet them all in one boot."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from tests.support.registry import Layer, Link, LocalRegistry, Node

APPLETS = "sh cat id ls ps sleep yes pwd nslookup ping env wc grep setsid readlink stat head printf true touch sync"

COMMAND = ["sh", "-c", "pwd; id -u; echo $HOME; ulimit -n; echo logged >>/var/log/app.log"]
#: Its account is the last line of its file and has no newline after it.
PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1001:1001::/home/app:/bin/sh"
GROUP = b"app:x:1001:\r\nlogs:x:900:app"
HOSTS = b"# nothing but a comment\n10.9.8.7 db"

#: An ELF header of another machine, and of this one that promises what is not there; then a line for a shell.
_IDENTITY = b"\x7fELF\2\1\1" + bytes(9)
FOREIGN, DAMAGED = (
    _IDENTITY + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 57, 1, 0, 0, 0) + b"\necho run as shell\n"
    for machine in (183, 62)
)


def push_odd_image(registry: LocalRegistry, name: str) -> str:
    """Push it; its full reference."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("needs a static busybox")
    programs = {"bin/busybox": Node(Path(busybox).read_bytes(), 0o755)}
    odd = {
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "etc/hosts": HOSTS,
        "etc/hostname": Link("../run/hostname"),
        "etc/resolv.conf": Link("/run/absent/resolv.conf"),
        "run": Link("/var/run"),
        "var/run/": Node(None, 0o755),
        "var/lib/banger/first-boot": b"of another machine\n",
        "srv": Link("/data/of/srv"),
        "tmp": Link("/var/temporary"),
        "var/log/app.log": Link("/dev/stdout"),
        "var/log/error.log": Link("/dev/stderr"),
        "bin/foreign": Node(FOREIGN, 0o755),
        "bin/damaged": Node(DAMAGED, 0o755),
        "bin/nameless": Node(b"echo run as shell\n", 0o755),
        "bin/named": Node(b"#!/bin/sh\necho named\n", 0o755),
    }
    layers = [Layer({**programs, **{f"bin/{applet}": Link("busybox") for applet in APPLETS.split()}}), Layer(odd)]
    config = {
        "User": "app",
        "WorkingDir": "/srv/app/deep",
        "Volumes": {"/volume/data": {}},
        "Cmd": COMMAND,
        "Env": ["PATH=/bin", "odd.name=1"],
    }
    registry.push(name, layers, config=config)
    return registry.reference(name)
