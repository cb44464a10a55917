"""The names of VMM drivers, machine types and accelerators, as typed by users and used in settings.

What each of them is, only its driver knows; a test holds the two together.
"""

from __future__ import annotations

#: ``vmm.driver``, ``--vmm``.
DRIVERS = ("qemu", "firecracker")
QEMU, FIRECRACKER = DRIVERS
#: Whichever can do what a VM asks for, the leanest first.
AUTO = "auto"
#: ``vmm.machine``, ``--machine``.
MACHINES = ("microvm", "q35")
#: ``vmm.accelerator``, ``--accelerator``: hardware, and emulation in software.
ACCELERATORS = ("kvm", "tcg")
HARDWARE, EMULATED = ACCELERATORS
