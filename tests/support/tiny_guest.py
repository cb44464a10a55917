"""Guests of a few bytes that a VMM boots in no time: they say "up" on the serial port and wait for the power button."""

from __future__ import annotations

from pathlib import Path

from banger.vmm.qemu.proof_guest import pvh_image

# 32-bit code. QEMU: include/hw/acpi/generic_event_device.h; the ICH9 power management block is at port 0x600.
_SAY_UP = """
66 ba f8 03             mov dx, 0x3f8
b0 75 ee                mov al, 'u'; out dx, al
b0 70 ee                mov al, 'p'; out dx, al
b0 0a ee                mov al, 10; out dx, al
"""
_WAIT = {
    "microvm": """
a1 00 00 a0 fe          poll: mov eax, [0xfea00000]     ; pending events; reading clears them
a8 02                   test al, 2                      ; the power button
74 f7                   jz poll
c6 05 00 02 a0 fe 34    mov byte [0xfea00200], 0x34     ; sleep type 5, go
f4                      hlt
""",
    "firecracker": """
e4 64                   poll: in al, 0x64               ; the keyboard controller
a8 01                   test al, 1                      ; a key
74 fa                   jz poll
b0 fe e6 64             mov al, 0xfe; out 0x64, al      ; reset
f4                      hlt
""",
    "q35": """
66 ba 02 06             mov dx, 0x602
66 b8 00 01 66 ef       mov ax, 0x100; out dx, ax       ; let the power button set its bit
66 ba 00 06             mov dx, 0x600
66 ed                   poll: in ax, dx
f6 c4 01                test ah, 1
74 f9                   jz poll
66 ba 04 06             mov dx, 0x604
66 b8 00 20 66 ef       mov ax, 0x2000; out dx, ax      ; sleep type 0 is soft off here, go
f4                      hlt
""",
}
_SLEEP = """
fa                      cli
f4                      hlt
eb fd                   jmp back to it
"""
#: The state is a number in memory; a letter tells its last four bits.
_COUNT = """
b9 00 00 10 00          again: mov ecx, 0x100000
49                      dec ecx
75 fd                   jnz back to dec
ff 05 00 00 30 00       inc dword [0x300000]
a0 00 00 30 00          mov al, [0x300000]
24 0f 04 61 ee          and al, 15; add al, 'a'; out dx, al
eb e6                   jmp again
"""
LETTERS = "abcdefghijklmnop"
_FLOOD = """
ee                      out dx, al
eb fd                   jmp back to it
"""
_TEXT_COLUMN = 24


def write_button_guest(path: Path, machine: str) -> Path:
    """A kernel that powers off when the button is pressed. It polls: do not let it run for long."""
    return _write(path, _SAY_UP + _WAIT[machine])


def write_sleeping_guest(path: Path) -> Path:
    """A kernel that sleeps for good and hears nothing."""
    return _write(path, _SAY_UP + _SLEEP)


def write_counting_guest(path: Path) -> Path:
    """A kernel that says the :data:`LETTERS` in their order, over and over. It is never idle."""
    return _write(path, _SAY_UP + _COUNT)


def write_flooding_guest(path: Path) -> Path:
    """A kernel that says nothing else any more, for ever, as fast as it can."""
    return _write(path, _SAY_UP + _FLOOD)


def _write(path: Path, listing: str) -> Path:
    path.write_bytes(pvh_image(bytes.fromhex("".join(line[:_TEXT_COLUMN] for line in listing.splitlines()))))
    return path
