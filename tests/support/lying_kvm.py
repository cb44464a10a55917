"""Hosts whose ``/dev/kvm`` opens and is not worth it, and hosts that have none: stand-ins in a mount namespace.

The stand-in for QEMU passes every proof that a small guest can give at the speed of hardware, and then lets real
kernels hang or crawl, as KVM that is virtualised in software does. Everything that is not on KVM runs on the real one.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from banger.vmm.qemu import proof_guest
from banger.vmm.qemu.proof_guest import pvh_image
from tests.support.daemon import BangerHome

#: Puts links to what there is in the place of ``/dev``, and a ``/dev/kvm`` of the given kind there.
_DEVICES = """
set -e
mkdir -p "$1"; mount --rbind /dev "$1"; mount -t tmpfs -o mode=0755 tmpfs /dev
for node in "$1"/* "$1"/.[!.]*; do [ ! -e "$node" ] || ln -s "$node" "/dev/${node##*/}"; done
rm -f /dev/kvm
case $2 in null) mknod -m 666 /dev/kvm c 1 3 ;; denied) mknod -m 600 /dev/kvm c 10 232 ;; esac
shift 2
exec "$@"
"""

_QEMU = """#!/bin/sh
kernel='' kvm=no
for word in "$@"; do
    case $last in -kernel) kernel=$word ;; -accel) [ "$word" != kvm ] || kvm=yes ;; esac
    last=$word
done
[ $kvm = yes ] || exec {real} "$@"
case $kernel in *banger-proof-*) printf '{said}'; exit {status} ;; esac
read -r mode <{place}/mode
echo "$mode" >>{place}/tried
for word in "$@"; do
    shift
    case $word in kvm) word=tcg ;; host) word=max ;; "$kernel") word={place}/$mode ;; esac
    set -- "$@" "$word"
done
exec {real} "$@"
"""

# 32-bit code.
_HANG = "eb fe                   here: jmp here"
_CRAWL = """
66 ba f8 03             mov dx, 0x3f8
b0 2e ee                again: mov al, '.'; out dx, al
b9 00 00 00 10          mov ecx, 0x10000000
49                      dec ecx
75 fd                   jnz back to dec
eb f3                   jmp again
"""
_TEXT_COLUMN = 24


@dataclass(frozen=True, slots=True)
class LyingKvm:
    """A host whose KVM passes the proof; ``mode`` says what real kernels do on it: ``hang`` or ``crawl``."""

    place: Path

    @classmethod
    def make(cls, place: Path) -> LyingKvm:
        """Write the stand-in and its guests into ``place``."""
        place.mkdir()
        for name, listing in (("hang", _HANG), ("crawl", _CRAWL)):
            code = "".join(line[:_TEXT_COLUMN] for line in listing.splitlines())
            (place / name).write_bytes(pvh_image(bytes.fromhex(code)))
        ticks = 2_600_000_000 * proof_guest.INTERVAL_S
        said = b"swwwww" + struct.pack("<6I", *[int(ticks * 0.999), int(ticks * 1.001)] * proof_guest.ROUNDS)
        script = _QEMU.format(
            real=shutil.which("qemu-system-x86_64"),
            said="".join(f"\\{byte:03o}" for byte in said),
            status=proof_guest.EXIT_CODE,
            place=place,
        )
        qemu = place / "qemu-system-x86_64"
        qemu.write_text(script)
        qemu.chmod(0o755)
        kvm = cls(place)
        kvm.let_kernels("hang")
        return kvm

    def let_kernels(self, mode: str) -> None:
        """From now on kernels ``hang`` or ``crawl``."""
        (self.place / "mode").write_text(f"{mode}\n")

    @property
    def tried(self) -> list[str]:
        """What became of every kernel that was tried on it."""
        file = self.place / "tried"
        return file.read_text().split() if file.exists() else []

    def on(self, home: BangerHome) -> BangerHome:
        """The same installation, but on this host."""
        # In a jail, the script that stands in for QEMU would find no shell.
        env = {"PATH": f"{self.place}:{home.cli.env['PATH']}", "BANGER_VMM_JAIL": "off"}
        there = with_kvm(home, "null")
        return BangerHome(home.path, replace(there.cli, env={**there.cli.env, **env}))


def with_kvm(home: BangerHome, kind: str) -> BangerHome:
    """The same installation on a host whose ``/dev/kvm`` is ``none``, ``null`` (``/dev/null``) or ``denied`` (root's)."""
    devices = home.path.parent / f"devices-{home.path.name}-{kind}"  # not in it: all there belongs to its user
    prefix = ("unshare", "-m", "sh", "-c", _DEVICES, "sh", str(devices), kind, *home.cli.prefix)
    return BangerHome(home.path, replace(home.cli, prefix=prefix))


def can_make_devices() -> bool:
    """True if this host lets us have a mount namespace with device nodes."""
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt && mknod /mnt/null c 1 3 && : </mnt/null"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0
