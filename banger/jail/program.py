"""``OPTION... -- PROGRAM ARGUMENT...``: become PROGRAM, confined. What is asked for is done in the order below.

- ``--cgroup FILE``: enter the cgroup whose ``cgroup.procs`` this is
- ``--process-namespace``: be process 1 of a PID namespace, in a session of its own: it is a child that goes on, and
  this process leaves
- ``--enter FILE``: enter a namespace; may be repeated
- ``--open NUMBER MODE PATH``: open a file as descriptor NUMBER; MODE is ``read``, ``write`` or ``append``
- ``--listen NUMBER PATH``: a Unix socket, for its owner alone, as descriptor NUMBER
- ``--tap NUMBER NAME``: a tap that is there already
- ``--keep NUMBER``: an inherited descriptor
- ``--lend-tap NAME``: a tap that is there already may be attached to by the user of ``--user``
- ``--user-namespace``: be the owner of the namespaces that follow, for those who are not root
- ``--no-network``: an empty network namespace
- ``--own-tap NUMBER``: a new tap in it, as descriptor NUMBER, with which it goes
- ``--root``: a root directory with nothing in it but what the next four say; other namespaces too
- ``--scratch PLACE BYTES``: an empty directory of that size in it, which can be written
- ``--visible PATH``: seen in it at the same place, read-only; a symbolic link as a link
- ``--put MODE PATH PLACE``: a file, directory or block device, seen there; MODE is ``read`` or ``write``
- ``--device PATH``: a device node, at the same place, for the VMM's user
- ``--user UID GID``: become these, without any group
- ``--end-with-parent``: PROGRAM is killed when the thread that has started this process ends
- ``--jailer``: PROGRAM becomes these itself: it stays root, with the capabilities that this takes

What cannot be done is said in one line, with the status 125, and nothing is executed.
"""

from __future__ import annotations

import os

from banger.jail import handed, kernel, rights, root
from banger.jail.failure import Doing, JailError
from banger.jail.wanted import Wanted, read

FAILED = 125
_MOST_MASK, _FILES_MASK = 0o077, 0o022


def main(words: list[str]) -> None:
    """Never returns."""
    try:
        _become(read(words))
    except JailError as failure:
        os.write(2, f"banger-jail: {failure}\n".encode(errors="surrogateescape"))
    os._exit(FAILED)


def _become(wanted: Wanted) -> None:
    os.umask(_FILES_MASK)
    if wanted.cgroup:
        with Doing("write", wanted.cgroup):
            root.write_text(wanted.cgroup, "0")
    handed.close_others()
    if wanted.has_process_namespace:
        root.enter_process_namespace()
    for namespace in wanted.enter:
        _enter(namespace)
    for option, words in wanted.handed:
        _hand_over(option, words)
    for tap in wanted.lent_taps:
        handed.lend_tap(tap, wanted.uid)
    root.enter_namespaces(wanted)
    if wanted.own_tap >= 0:
        handed.make_tap(wanted.own_tap)
    if wanted.has_root:
        root.make_root(wanted)
    rights.drop_rights(wanted)
    if wanted.ends_with_parent:
        with Doing("end with", "the parent"):
            kernel.end_with_parent()
    os.umask(_MOST_MASK)
    kernel.restore_signals()
    with Doing("run", wanted.program[0]):
        os.execv(wanted.program[0], wanted.program)


def _enter(namespace: str) -> None:
    with Doing("enter", namespace):
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        kernel.enter_namespace(fd)
        os.close(fd)


def _hand_over(option: str, words: list[str]) -> None:
    number = int(words[0])
    if option == "--open":
        handed.open_file(number, words[1], words[2])
    elif option == "--listen":
        handed.listen_at(number, words[1])
    elif option == "--tap":
        handed.attach_tap(number, words[1])
    else:
        handed.keep(number)
