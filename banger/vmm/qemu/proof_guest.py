"""A guest of 699 bytes that does what every kernel does in its first moments, and says when. Pure.

It switches to 64-bit mode with paging and does :data:`CHUNKS` equal chunks of work in ring 0: a million rounds of a
store, a load, a push and a pop that need one another, then 64 page faults that it repairs and 64 interrupts. Then it
measures its time stamp counter against the interval timer, goes to sleep and is woken by an interrupt. A host where
this runs to its end runs guests; whether it is worth it, the time of a chunk tells: where a guest's kernel mode is
emulated, user mode may run at full speed, and yet no kernel comes up.

What it says goes byte by byte to the debug console: :data:`STARTED`, a :data:`CHUNK_DONE` after each chunk, and for
each of :data:`ROUNDS` rounds a lower and an upper bound, as little-endian 32-bit words, of the counter's ticks during
:data:`INTERVAL_S`. Then it ends QEMU with :data:`EXIT_CODE` by way of the ``isa-debug-exit`` device; any fault on the
way is a reset, hence an exit with another code.
"""

from __future__ import annotations

import struct

DEBUG_CONSOLE_PORT = 0xE9
DEBUG_EXIT_PORT = 0x501
#: ``isa-debug-exit`` exits with ``2 * value + 1``; the guest writes 0x2a.
EXIT_CODE = 0x2A * 2 + 1

STARTED, CHUNK_DONE = b"s", b"w"
CHUNKS = 5
ROUNDS = 3
#: The interval timer counts 65535 ticks of 1.193182 MHz.
INTERVAL_S = 65535 / 1193182

_LOAD_ADDRESS = 0x100000
_ENTRY_OFFSET = 0x100
_XEN_PHYS32_ENTRY = 18

# Page tables at 0x1f0000, interrupt table at 0x1f3000, all inside the first 2 MiB, which are mapped one to one.
_CODE = """
bc 00 00 18 00                      mov esp, 0x180000
c7 05 f0 00 e0 fe ff 01 00 00       mov [0xfee000f0], 0x1ff       ; local APIC: enable,
c7 05 50 03 e0 fe 00 07 00 00       mov [0xfee00350], 0x700       ;   pass the 8259's interrupts on
c7 05 00 00 1f 00 03 10 1f 00       mov [0x1f0000], 0x1f1003      ; four-level paging with one 2 MiB page
c7 05 00 10 1f 00 03 20 1f 00       mov [0x1f1000], 0x1f2003
c7 05 00 20 1f 00 83 00 00 00       mov [0x1f2000], 0x83
0f 20 e0                            mov eax, cr4
83 c8 20                            or eax, PAE
0f 22 e0                            mov cr4, eax
b8 00 00 1f 00                      mov eax, 0x1f0000
0f 22 d8                            mov cr3, eax
b9 80 00 00 c0                      mov ecx, EFER
0f 32                               rdmsr
0d 00 01 00 00                      or eax, LME
0f 30                               wrmsr
0f 20 c0                            mov eax, cr0
0d 01 00 00 80                      or eax, PG | PE
0f 22 c0                            mov cr0, eax
0f 01 15 a7 02 10 00                lgdt [gdtr]
ea 6f 01 10 00 08 00                jmp 8:long_mode
31 c0                               long_mode: xor eax, eax
8e d0                               mov ss, eax
c7 04 25 e0 30 1f 00 7a 02 08 00    mov [0x1f30e0], gate(page_fault).low
c7 04 25 e4 30 1f 00 00 8e 10 00    mov [0x1f30e4], gate(page_fault).high
c7 04 25 00 32 1f 00 72 02 08 00    mov [0x1f3200], gate(timer).low
c7 04 25 04 32 1f 00 00 8e 10 00    mov [0x1f3204], gate(timer).high
c7 04 25 00 33 1f 00 89 02 08 00    mov [0x1f3300], gate(call_gate).low
c7 04 25 04 33 1f 00 00 8e 10 00    mov [0x1f3304], gate(call_gate).high
0f 01 1c 25 b1 02 10 00             lidt [idtr]
b0 73                               mov al, STARTED
e6 e9                               out DEBUG_CONSOLE_PORT, al
41 b9 05 00 00 00                   mov r9d, CHUNKS
b9 40 42 0f 00                      chunk: mov ecx, 1000000
48 89 04 25 00 00 17 00             work: mov [0x170000], rax     ; each step needs the one before
48 03 04 25 00 00 17 00             add rax, [0x170000]
50                                  push rax
58                                  pop rax
ff c9                               dec ecx
75 ea                               jnz work
b1 40                               mov cl, 64
c7 04 25 10 20 1f 00 00 00 00 00    fault: mov [0x1f2010], 0      ; unmap the page at 4 MiB,
0f 01 3c 25 00 00 40 00             invlpg [0x400000]
8b 14 25 00 00 40 00                mov edx, [0x400000]           ;   fault on it,
cd 30                               int 0x30                      ;   and take an interrupt
fe c9                               dec cl
75 e0                               jnz fault
b0 77                               mov al, CHUNK_DONE
e6 e9                               out DEBUG_CONSOLE_PORT, al
41 ff c9                            dec r9d
75 ba                               jnz chunk
bb 03 00 00 00                      mov ebx, ROUNDS
b0 30                               round: mov al, 0x30           ; timer 0: count down once
e6 43                               out 0x43, al
0f 31                               rdtsc
89 c7                               mov edi, eax                  ; edi: surely before the start
b0 ff                               mov al, 0xff
e6 40                               out 0x40, al
e6 40                               out 0x40, al
0f 31                               rdtsc
41 89 c0                            mov r8d, eax                  ; r8d: surely after the start
89 ee                               poll: mov esi, ebp            ; esi: surely before the end
0f 31                               rdtsc
89 c5                               mov ebp, eax
b0 e2                               mov al, 0xe2                  ; read back the state of timer 0
e6 43                               out 0x43, al
e4 40                               in al, 0x40
a8 80                               test al, 0x80                 ; has it run out?
74 f0                               jz poll
0f 31                               rdtsc
89 c1                               mov ecx, eax                  ; ecx: surely after the end
89 f0                               mov eax, esi
44 29 c0                            sub eax, r8d
e8 48 00 00 00                      call put
89 c8                               mov eax, ecx
29 f8                               sub eax, edi
e8 3f 00 00 00                      call put
ff cb                               dec ebx
75 c2                               jnz round
b0 11                               mov al, 0x11                  ; 8259: vectors from 0x20, only the timer
e6 20                               out 0x20, al
b0 20                               mov al, 0x20
e6 21                               out 0x21, al
b0 04                               mov al, 4
e6 21                               out 0x21, al
b0 01                               mov al, 1
e6 21                               out 0x21, al
b0 fe                               mov al, 0xfe
e6 21                               out 0x21, al
b0 30                               mov al, 0x30                  ; timer 0: 0x404 ticks, about a millisecond
e6 43                               out 0x43, al
b0 04                               mov al, 4
e6 40                               out 0x40, al
e6 40                               out 0x40, al
fb                                  sti
f4                                  sleep: hlt
eb fd                               jmp sleep
66 ba 01 05                         timer: mov dx, DEBUG_EXIT_PORT
b0 2a                               mov al, 0x2a
ee                                  out dx, al
f4                                  hlt
c7 04 25 10 20 1f 00 83 00 40 00    page_fault: mov [0x1f2010], 0x400083
48 83 c4 08                         add rsp, 8                    ; drop the error code
48 cf                               call_gate: iretq
b2 04                               put: mov dl, 4
e6 e9                               next: out DEBUG_CONSOLE_PORT, al
c1 e8 08                            shr eax, 8
fe ca                               dec dl
75 f7                               jnz next
c3                                  ret
00 00 00 00 00 00 00 00             gdt: nothing
00 00 00 00 00 9a 20 00             64-bit code
0f 00 97 02 10 00 00 00 00 00       gdtr
ff 03 00 30 1f 00 00 00 00 00       idtr
"""
_TEXT_COLUMN = 36


def image() -> bytes:
    """The guest as QEMU's ``-kernel`` takes it."""
    return pvh_image(bytes.fromhex("".join(line[:_TEXT_COLUMN] for line in _CODE.splitlines())))


def pvh_image(code: bytes) -> bytes:
    """Wrap ``code`` into an ELF file that starts in 32-bit protected mode at 0x100100.

    The entry point is told by the note of the PVH boot protocol (Xen: ``elfnote.h``, ``XEN_ELFNOTE_PHYS32_ENTRY``).
    """
    entry = _LOAD_ADDRESS + _ENTRY_OFFSET
    note = struct.pack("<III4sI", 4, 4, _XEN_PHYS32_ENTRY, b"Xen\0", entry)
    note_offset = 64 + 2 * 56
    size = _ENTRY_OFFSET + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )  # 64-bit little-endian executable for x86-64 with two segments
    segments = (
        (1, 7, 0, size, 0x1000),  # PT_LOAD
        (4, 4, note_offset, len(note), 4),  # PT_NOTE
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, at, _LOAD_ADDRESS + at, _LOAD_ADDRESS + at, length, length, align)
        for kind, flags, at, length, align in segments
    )
    return (header + table + note).ljust(_ENTRY_OFFSET, b"\0") + code


def ticks_per_second(output: bytes) -> tuple[float, float] | None:
    """The counter's rate from what the guest said, and how far off that may be, as a part of it.

    ``None`` if it said too little or its bounds contradict. Every round bounds the same rate, so the truth lies between
    the highest lower and the lowest upper bound; on a busy host, where the guest was kept waiting while it measured,
    they are far apart.
    """
    if len(output) < ROUNDS * 8:
        return None
    bounds = struct.unpack_from(f"<{ROUNDS * 2}I", output)
    lower: int = max(bounds[::2])
    upper: int = min(bounds[1::2])
    if not 0 < lower <= upper:
        return None
    return (lower + upper) / 2 / INTERVAL_S, (upper - lower) / (upper + lower)
