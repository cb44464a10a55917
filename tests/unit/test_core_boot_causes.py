"""Why a boot failed, from consoles of guests that did it.

``corpus/consoles`` holds recordings: Debian's 6.1 cloud kernel under QEMU 7.2, damaged, starved or given a wrong initrd
on purpose. What cannot be made here is as the projects' public trackers have it; the tracker and number are named.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.boot_causes import BootFacts, explain_boot, is_silent, telling_lines
from banger.core.boot_signs import SIGNS
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason

CONSOLES = Path(__file__).parents[1] / "corpus" / "consoles"
RESET = ExitRecord(ExitReason.VMM_CRASH, "the VMM ended without a word from the guest", 0)
FACTS = BootFacts("", "tcg", 2.5, memory_mib=512, vm="web", kernel="mine", image="debian")


def recorded(name: str) -> str:
    return (CONSOLES / f"{name}.txt").read_text(errors="replace")


@pytest.mark.parametrize(
    ("name", "memory_mib", "ended", "key", "reason", "hint"),
    [
        ("kernel-damaged", 512, None, "kernel-damaged", "Decoding failed", "--kernel debian-cloud"),
        ("kernel-damaged-q35", 512, None, "kernel-damaged", "Decoding failed", "--kernel debian-cloud"),
        ("kernel-damaged-oops", 512, RESET, "kernel-crashed", "BUG: unable to handle page fault", "--kernel"),
        ("initrd-garbage", 512, RESET, "initrd-damaged", "invalid magic at start of compressed", "--bundle"),
        ("initrd-gz-corrupt", 512, RESET, "initrd-damaged", "no cpio magic", "--bundle"),
        ("initrd-gz-trunc", 512, RESET, "initrd-damaged", "read error", "--bundle"),
        ("initrd-too-large", 128, RESET, "initrd-damaged", "invalid magic", "--memory 256M"),
        ("initrd-no-room-hang", 96, None, "memory", "no suitable memory region", "--memory 256M"),
        ("initrd-no-init", 512, RESET, "no-initrd", "VFS: Unable to mount root fs", "import --modules"),
        ("no-initrd", 512, RESET, "no-initrd", "VFS: Unable to mount root fs", "import --modules"),
        ("init-no-interp", 512, RESET, "init-missing", "Failed to execute /init (error -2)", "--bundle"),
        ("init-not-exec", 512, RESET, "init-for-another-processor", "error -8", "--kernel"),
        ("init-exits", 512, RESET, "init-ended", "exitcode=0x00000300", "--init none"),
        ("init-segv", 512, RESET, "init-ended", "Attempted to kill init!", "--init none"),
        ("memory-deadlock", 128, RESET, "memory", "System is deadlocked on memory", "--memory 256M"),
        ("memory-killed-hang", 128, None, "memory", "Out of memory: Killed process", "--memory 256M"),
        ("kernel-crash", 512, RESET, "panic", "sysrq triggered crash", "--kernel"),
        ("init-silent-hang", 512, None, "slow", "not started banger's init", "vm.boot_timeout_s"),
    ],
)  # fmt: skip
def test_recorded_console_is_explained(
    name: str, memory_mib: int, ended: ExitRecord | None, key: str, reason: str, hint: str
) -> None:
    cause = explain_boot(replace(FACTS, console=recorded(name), memory_mib=memory_mib, ended=ended))
    assert cause.key == key
    assert reason in cause.reason
    assert hint in cause.hint
    assert cause.lines[0].startswith("after 2.50 s under emulation")


#: What guests said whose users asked in public why they do not boot: tracker, console, VMM, the cause.
REPORTED = [
    ("kata-containers/runtime#1937",
     ("[   18.882635] Run /usr/lib/systemd/systemd as init process\n[   18.883399] Kernel panic - not syncing: "
     "Requested init /usr/lib/systemd/systemd failed (error -2).\n[   18.884005] CPU: 0 PID: 1 Comm: swapper/0"),
     "", "init-missing"),
    ("kata-containers#771",
     ("entering rust-agent\nError: No such file or directory (os error 2)\n[    1.4] Kernel panic - not syncing: "
     "Attempted to kill init! exitcode=0x00000100\n"), "", "init-ended"),
    ("minikube#22169",
     ("[    0.415000] Initramfs unpacking failed: write error\n[    0.433] Run /init as init process\n/init: line 13: "
     "/sbin/switch_root: No such file or directory\n[    0.727733] Kernel panic - not syncing: Attempted to kill init! "
     "exitcode=0x00007f00\n"), "", "memory"),
    ("spinifex#850",
     "[    1.0] Initramfs unpacking failed: write error\n[    1.2] Kernel panic - not syncing: No working init found.\n",
     "", "memory"),
    ("krabs#8", "Out of memory and no killable processes...\nKernel panic - not syncing: System is deadlocked on memory\n",
     "", "memory"),
    ("IRATI/stack#784",
     ("[    0.85] Trying to unpack rootfs image as initramfs...\n[    2.48] swapper/0 invoked oom-killer: gfp_mask=0x200d2\n"
     "[   30.65] Kernel panic - not syncing: Out of memory and no killable processes...\n"), "", "memory"),
    ("nixos-images#348",
     ("Initramfs unpacking failed: ZSTD-compressed data is corrupt\nNo filesystem could mount root, tried:\n"
     'Kernel panic - not syncing: VFS: Unable to mount root fs on "LABEL=nixos" or unknown-block(0,0)\n'),
     "", "initrd-damaged"),
    ("linuxkit#3123",
     ("[    1.76] RAMDISK: gzip image found at block 0\n[    1.80] RAMDISK: EOF while reading compressed data\n"
     "[    1.80] uncompression error\n[    1.87] Kernel panic - not syncing: VFS: Unable to mount root fs on "
     "unknown-block(0,0)\n"), "", "initrd-damaged"),
    ("MikroTikPatch#53", "\n\nXZ-compressed data is corrupt\n\n -- System halted", "", "kernel-damaged"),
    ("nixpkgs#147767", "\n\nZSTD-compressed data is corrupt\n\n -- System halted", "", "kernel-damaged"),
    ("depenguin-run#102", "", "KVM internal error. Suberror: 1\nextra data[0]: 0x0\nemulation failure\nRAX=0", "kvm-internal"),
    ("xqemu#270", "", "KVM: entry failed, hardware error 0x80000021\n\nIf you're running a guest on an Intel machine",
     "kvm-entry"),
    ("kubevirt#2318", "", "KVM: entry failed, hardware error 0x0\nRAX=0000000000000000", "kvm-entry"),
    ("uhyve#1150", "", "not implemented: FailEntry(0, 2)", "kvm-entry"),
    ("lima#1957",
     ("[ 1674.02] EXT4-fs error (device vda1): ext4_lookup:1851: inode #35601: comm apport: iget: checksum invalid\n"
     "[ 1674.03] Aborting journal on device vda1-8.\n[ 1674.03] EXT4-fs (vda1): Remounting filesystem read-only\n"),
     "", "disk-damaged"),
    ("zfs#5973, as a panic",
     ("[    2.1] BUG: unable to handle page fault for address: ffffc90b5b6bf000\n[    2.1] Oops: 0000 [#1] SMP\n"
     "[    2.3] Kernel panic - not syncing: Fatal exception in interrupt\n"), "", "kernel-crashed"),
    ("coreos/bugs#23",
     "[    3.02] dracut-cmdline[48]: /lib/dracut/parse-resume.sh: line 73: echo: write error: No space left on device\n",
     "", "disk-full"),
    ("a machine without a timer",
     "[    0.1] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug\n", "", "timer"),
]  # fmt: skip


@pytest.mark.parametrize(("tracker", "console", "vmm_log", "key"), REPORTED, ids=[row[0] for row in REPORTED])
def test_reported_console_is_explained(tracker: str, console: str, vmm_log: str, key: str) -> None:
    cause = explain_boot(replace(FACTS, console=console, vmm_log=vmm_log, accelerator="kvm"))
    assert cause.key == key
    assert cause.reason
    assert cause.hint


@pytest.mark.parametrize(
    ("changes", "key", "reason", "hint"),
    [
        # firecracker#3418, mvm#2510: not a line
        ({"accelerator": "kvm"}, "silent-kvm", "never said a word", "--accelerator tcg"),
        ({"accelerator": "kvm", "told": "its console was silent while the VMM worked for 2.1 s"},
         "silent-kvm", "silent while the VMM worked for 2.1 s", "--accelerator tcg"),
        ({"accelerator": "kvm", "console": "[    0.1] Linux version 6.1\n", "told": "its first program did not run"},
         "slow-kvm", "its first program did not run", "--accelerator tcg"),
        ({}, "silent", "damaged", "--kernel debian-cloud"),
        ({"kernel": "debian-cloud"}, "silent", "damaged", "kernel delete --force debian-cloud"),
        ({"kernel_fault": "its payload cannot be unpacked (Corrupt input data)"}, "kernel-damaged", "Corrupt", "--kernel"),
        ({"kernel_fault": "it is cut short", "ended": RESET}, "kernel-damaged", "cut short", "--kernel"),
        ({"kernel_arguments": "quiet console=tty0"}, "console-elsewhere", '"tty0"', "--kernel"),
        ({"ended": RESET}, "reset-silent", "reset before the kernel's first word", "--kernel"),
        # firecracker#5437, #685: nested KVM that cannot enter the kernel; Firecracker then exits with 0, without a line
        ({"ended": RESET, "accelerator": "kvm"}, "reset-kvm", "this KVM cannot run it", "--accelerator tcg"),
        ({"ended": RESET, "accelerator": "kvm", "kernel_fault": "it is cut short"}, "kernel-damaged", "cut short", "--kernel"),
        ({"ended": RESET, "memory_mib": 64}, "memory", "64 MiB", "--memory 256M"),
        ({"ended": ExitRecord(ExitReason.OUT_OF_MEMORY, "the host's kernel killed the VMM because memory ran out", -9)},
         "vmm-out-of-memory", "memory ran out", "stop other VMs"),  # kubevirt#4560
        ({"ended": ExitRecord(ExitReason.KILLED, "the VMM was killed with SIGKILL", -9)},
         "vmm-killed", "SIGKILL while it booted", "banger vm start web"),
        ({"ended": ExitRecord(ExitReason.VMM_CRASH, "the VMM crashed with SIGSEGV", -11)},
         "vmm-crashed", "SIGSEGV", "--bundle"),
        ({"console": "banger: init 3.1\n", "host_load": 4.2}, "busy-host", "4.2 processes for each CPU", "more time"),
        ({"console": "banger: init 3.1\nbanger: root 9.0\nbanger: ready 9.5\n", "told": "no answer within 30 s"},
         "no-answer", "its agent does not answer", "--init none"),
        ({"console": "banger: init 3.1\nbanger: root 9.0\n"}, "slow", "its agent not up", "vm.boot_timeout_s"),
    ],
)  # fmt: skip
def test_boot_that_nobody_explains_is_told_by_what_is_missing(
    changes: dict[str, object], key: str, reason: str, hint: str
) -> None:
    cause = explain_boot(replace(FACTS, **changes))  # type: ignore[arg-type]
    assert cause.key == key
    assert reason in cause.reason
    assert hint in cause.hint


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ('no disk with the label "root" (are the kernel\'s virtio drivers there?)', "no-disk-driver"),
        ("cannot mount the overlay (does the kernel have overlayfs?)", "no-overlay"),
        ("the kernel has no devtmpfs", "no-devtmpfs"),
        ("cannot mount the image (/dev/vda)", "image-not-mounted"),
        ("cannot mount the writable disk (/dev/vdb)", "disk-not-mounted"),
        ("the image has no /sbin/init", "no-init-in-image"),
        ("cannot start the ssh server", "init-failed"),
    ],
)
def test_what_bangers_init_could_not_do_is_the_cause(said: str, key: str) -> None:
    cause = explain_boot(
        replace(FACTS, console=f"banger: init 1.0\nbanger: failed: {said}\n[    2.0] reboot: Power down\n")
    )
    assert cause.key == key
    assert said.split(" (", maxsplit=1)[0] in cause.reason


@pytest.mark.parametrize(
    ("kernel_says", "failed", "key"),
    [
        ("EXT4-fs (vdb): bad geometry: block count 1 exceeds size of device", "the writable disk", "disk-damaged"),
        ("EXT4-fs (vda): VFS: Can't find ext4 filesystem", "the image", "image-damaged"),
        ("I/O error, dev vda, sector 2 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2", "the image", "host-io"),
        ("mkdir: can't create directory '/data/upper': No space left on device", "the overlay", "disk-full"),
    ],
)
def test_reason_that_the_kernel_gives_counts_for_more_than_the_inits(kernel_says: str, failed: str, key: str) -> None:
    console = f"[    1.5] {kernel_says}\nbanger: failed: cannot mount {failed} (/dev/vda)\n"
    cause = explain_boot(replace(FACTS, console=console))
    assert cause.key == key
    assert kernel_says in cause.reason


@pytest.mark.parametrize("name", ["kernel-damaged-oops", "kernel-crash", "no-initrd", "init-silent-hang", "init-exits"])
def test_kernel_that_is_known_to_be_damaged_is_the_cause_whatever_it_did(name: str) -> None:
    facts = replace(FACTS, console=recorded(name), ended=RESET if name != "init-silent-hang" else None)
    assert explain_boot(facts).doubtful
    cause = explain_boot(replace(facts, kernel_fault="it is not what its distribution signed"))
    assert (cause.key, cause.reason) == (
        "kernel-damaged",
        "the kernel's file is damaged: it is not what its distribution signed",
    )


def test_kernel_that_ran_bangers_init_is_not_looked_at() -> None:
    assert not explain_boot(replace(FACTS, console="banger: init 1\nbanger: failed: cannot mount /run\n")).doubtful
    assert not explain_boot(replace(FACTS, console="banger: init 1\n")).doubtful


def test_evidence_of_a_panic_is_its_line_and_no_stack_trace() -> None:
    cause = explain_boot(replace(FACTS, console=recorded("no-initrd"), ended=RESET))
    assert "Kernel panic - not syncing: VFS" in cause.lines[-1]
    assert not any("+0x" in line or "Kernel Offset" in line for line in cause.lines)


def test_silence_is_told_with_the_accelerator_and_the_time() -> None:
    cause = explain_boot(replace(FACTS, accelerator="kvm", elapsed_s=125.0))
    assert cause.lines == ("after 2m 05s on KVM, the console stayed silent",)


def test_words_of_the_unpacker_alone_count_as_silence_of_the_kernel() -> None:
    console = "Probing EDD (edd=off to disable)... ok\nMemory KASLR using RDRAND RDTSC...\n"
    assert is_silent(console)
    assert not is_silent(console + "[    0.000000] Linux version 6.1.0\n")
    cause = explain_boot(replace(FACTS, console=console))
    assert cause.key == "silent"
    assert "the kernel itself said nothing" in cause.lines[0]


def test_advice_for_a_vm_that_is_gone_does_not_speak_of_it() -> None:
    full = replace(FACTS, console="No space left on device\nbanger: failed: cannot mount /run\n")
    assert explain_boot(full).hint == "banger vm grow web --disk SIZE"
    assert "web" not in explain_boot(replace(full, kept=False)).hint


@pytest.mark.parametrize("filler", ["I/O error, dev ", "Out of memory: ", "EXT4-fs (", "x" * 64, "BUG: ", " "])
def test_guest_that_prints_without_end_is_explained_at_once(filler: str) -> None:
    console = filler * (4_000_000 // len(filler))
    begun = time.process_time()
    explain_boot(replace(FACTS, console=console))
    telling_lines(console[-65536:])
    assert time.process_time() - begun < 1.0


def test_every_row_of_the_table_has_a_reason_that_can_be_filled() -> None:
    for sign in SIGNS:
        assert sign.reason.format("a", line="b", before="c")
        assert "{0}" not in sign.reason or sign.pattern.groups, sign.key
