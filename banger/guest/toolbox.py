"""The toolbox: a root file system of a few megabytes with what banger needs in a guest, independent of the image.

It is the initrd's root; in the running guest it is seen as ``/run/banger``. Programs and libraries are this host's own,
unchanged: dropbear runs chrooted, where loader and libraries stand at their normal places, and the others are started
through that loader. What the host lacks comes from its distribution's packages, unpacked into the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib import resources

from banger.guest.agent_program import agent_program
from banger.guest.cpio import CpioWriter
from banger.kernels.modules import Module

#: Raise it when the archive changes by code alone; changes of programs and scripts are seen by themselves.
RECIPE = 3

#: Where an account's login shell stands, both in the toolbox and, with other content, in the image's root.
ENTER = "run/banger/bin/enter"

#: The mark is for systemd's final killing spree, which looks at the first letter of a process's command line. By the
#: name ``become`` it is the last step of what the scripts start.
AGENT = "@banger-agent"

#: Applets that the scripts name; all of them are in every distribution's static busybox.
APPLETS = tuple(
    "chmod chroot cp date env hostname ifconfig insmod mkdir mount mv nsenter poweroff readlink reboot rm route setsid"
    " rmdir sh sleep sync umount uname unshare usleep".split()
)

_ACCOUNTS = {
    "etc/passwd": f"root:x:0:0::/home:/{ENTER}\n",
    "etc/group": "root:x:0:\ntty:x:5:\n",
    "etc/shells": f"/{ENTER}\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\n",
    # Runs in the toolbox and leaves it: the kernel appends the script's own path and the arguments of the login shell
    # to this command, and that path is bin/enter of the toolbox once process 1's mounts are entered.
    ENTER: "#!/bin/nsenter -m/proc/1/ns/mnt\n",
}
_DIRECTORIES = ("base", "cgroup", "data", "dev", "home", "new", "proc", "sys", "tmp")
#: Copied to ``/dev``, where the kernel leaves them to user space.
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def scripts() -> dict[str, bytes]:
    """The scripts and the one program that this package carries, by place in the toolbox."""
    data = resources.files("banger.guest") / "data"
    places = {"init": "init", "start": "bin/start", "enter": "bin/enter", "ssh-server": "bin/ssh-server"}
    return {place: (data / name).read_bytes() for name, place in places.items()} | {f"bin/{AGENT}": agent_program()}


def fingerprint(kernel_id: str, files: Mapping[str, bytes]) -> str:
    """What the archive's content depends on, as 32 hex digits."""
    digest = hashlib.sha256(f"{RECIPE} {kernel_id}\n".encode())
    for path in sorted(files):
        digest.update(f"{path} {hashlib.sha256(files[path]).hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def archive(files: Mapping[str, bytes], loader: str, modules: Mapping[str, Iterable[Module]]) -> bytes:
    """The toolbox as a cpio archive: ``files`` (programs and scripts), accounts, mount points, links, modules.

    Of ``modules`` there are several lists by name; the one without a name is loaded by every guest.
    """
    cpio = CpioWriter()
    cpio.directory(".", 0o755)  # the kernel's own root is everybody's to write, and is seen as /run/banger
    for name in _DIRECTORIES:
        cpio.directory(name, 0o1777 if name == "tmp" else 0o755)
    cpio.character_device("dev/console", 5, 1)
    for path in sorted(files):
        cpio.file(path, files[path], 0o755)
    for applet in APPLETS:
        cpio.symlink(f"bin/{applet}", "busybox")
    cpio.symlink("bin/become", AGENT)
    for link, target in _LINKS.items():
        cpio.symlink(f"links/{link}", target)
    cpio.symlink("lib64", "lib")
    cpio.symlink("lib/loader", loader)
    for path, text in _ACCOUNTS.items():
        cpio.file(path, text.encode(), 0o755 if path == ENTER else 0o644)
    for name, chosen in modules.items():
        order = []
        for module in chosen:
            cpio.file(f"modules/{module.file_name}", module.content)
            order.append(module.file_name)
        cpio.file(f"modules/order-{name}" if name else "modules/order", "".join(f"{one}\n" for one in order).encode())
    return cpio.finish()
