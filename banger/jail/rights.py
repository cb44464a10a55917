"""What the VMM may: nothing but what its descriptors and its own files allow."""

from __future__ import annotations

import errno
import os
import resource

from banger.jail import kernel
from banger.jail.failure import Doing
from banger.jail.wanted import Wanted

_MOST_CAPABILITIES = 64
#: What a jailer takes to make devices, a root directory and limits, and to become another user (linux/capability.h):
#: CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID, SYS_CHROOT, SYS_ADMIN, SYS_RESOURCE, MKNOD.
_OF_A_JAILER = frozenset((0, 1, 3, 6, 7, 18, 21, 24, 27))


def drop_rights(wanted: Wanted) -> None:
    """Give up the user, every capability and the way back to them; a jailer does so itself."""
    with Doing("limit", "core dumps"):  # what is in a guest's memory stays there
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Doing("give up", "new privileges"):
        kernel.refuse_new_privileges()
    with Doing("keep away from", "the host's abstract sockets"):
        kernel.keep_to_own_abstract_sockets()
    with Doing("drop", "the capabilities"):
        _drop_bounding_set(_OF_A_JAILER if wanted.is_jailer else frozenset())
    if wanted.is_jailer:
        return  # what it has when it is executed is what the bounding set leaves
    if wanted.uid:
        with Doing("change to", "the user"):
            os.setgroups([])
            os.setresgid(wanted.gid, wanted.gid, wanted.gid)
            os.setresuid(wanted.uid, wanted.uid, wanted.uid)
    if wanted.uid or wanted.has_root:
        with Doing("drop", "the capabilities"):
            kernel.clear_ambient_capabilities()
            kernel.drop_capabilities()


def _drop_bounding_set(kept: frozenset[int]) -> None:
    for capability in range(_MOST_CAPABILITIES):
        if capability in kept:
            continue
        try:
            kernel.drop_from_bounding_set(capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the last one that this kernel knows
                return
            if error.errno != errno.EPERM:
                raise
            return  # no right to: then there are none to be had either, for there are no new privileges
