"""Kernel sources, with a package manager made of three shell scripts."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels import local_files, sources, staging
from banger.kernels.apt_source import AptKernelSource, resolve
from banger.kernels.file_source import FileKernelSource
from banger.kernels.packages import dependencies, parse_fields
from banger.layout import Layout
from tests.support.rootfs import read_image
from tests.support.waiting import eventually
from tests.unit.test_kernels_image_file import RELEASE, bzimage

Script = Callable[[str, str], None]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Put a shell script in front of the host's programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def script(name: str, text: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    return script


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def amd64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture
def archive(script: Script, tmp_path: Path) -> Path:
    """An archive with a meta package, the kernel it leads to and that one's modules; what it unpacks is returned."""
    content = tmp_path / "content"
    (content / "boot").mkdir(parents=True)
    (content / f"boot/vmlinuz-{RELEASE}").write_bytes(bzimage(b"payload"))
    tree = content / f"usr/lib/modules/{RELEASE}"
    (tree / "kernel").mkdir(parents=True)
    (tree / "kernel/overlay.ko").write_bytes(b"module")
    (tree / "modules.dep").write_text("kernel/overlay.ko:\n")
    (tree / "build").symlink_to("/usr/src/linux-headers")
    script(
        "apt-cache",
        f"""case $3 in
            linux-image-meta) echo 'Package: linux-image-meta'; echo 'Depends: linux-image-{RELEASE} (= 6.1)' ;;
            linux-image-{RELEASE}) echo 'Package: linux-image'; echo 'Depends: kmod, linux-modules-{RELEASE}' ;;
            *) echo "E: No packages found" >&2; exit 100 ;;
        esac""",
    )
    script("apt-get", 'while [ "$1" != download ]; do shift; done; shift; for p; do echo "$p" >"$p.deb"; done')
    script("dpkg-deb", f'cp -a {content}/. "$3"')
    return content


def build(source: AptKernelSource | FileKernelSource, request: KernelRequest, staged: Path) -> BuiltKernel:
    return source.build(request, staged, Operation("kernel.pull", "x"))


def modules_in(staged: Path, data: bytes | None = None) -> set[bytes]:
    """Paths in the image of the modules; only those of files with ``data`` if that is given."""
    found = read_image(staged / "modules.ext4")
    return {path for path, facts in found.items() if data is None or facts.data == data}


# -- packages ----------------------------------------------------------------------------------------------


def test_meta_package_leads_to_the_kernel_and_what_its_modules_are_split_into(archive: Path) -> None:
    assert resolve("linux-image-meta", CancelToken()) == [f"linux-image-{RELEASE}", f"linux-modules-{RELEASE}"]


def test_meta_packages_that_lead_in_a_circle_are_invalid(script: Script) -> None:
    script("apt-cache", "echo 'Depends: linux-image-a'")
    with pytest.raises(BangerError, match="does not lead to a kernel"):
        resolve("linux-image-a", CancelToken())


def test_package_kernel_leaves_exactly_the_four_parts_in_staging(archive: Path, staged: Path) -> None:
    built = build(AptKernelSource(), KernelRequest(source="apt:linux-image-meta", cmdline="quiet"), staged)
    assert sorted(path.name for path in staged.iterdir()) == ["kernel.json", "modules.ext4", "vmlinuz"]
    assert modules_in(staged) == {b"", b"kernel", b"kernel/overlay.ko", b"modules.dep"}
    assert (built.version, built.format, built.platform) == (RELEASE, "bzimage", "linux/amd64")
    assert (built.source, built.cmdline) == ("apt:linux-image-meta", "quiet")
    assert built.has_modules
    assert not built.has_initrd
    assert json.loads((staged / "kernel.json").read_text())["digest"] == built.digest


def test_package_without_a_kernel_is_invalid(archive: Path, staged: Path) -> None:
    (archive / f"boot/vmlinuz-{RELEASE}").unlink()
    with pytest.raises(BangerError, match="no kernel in it") as caught:
        build(AptKernelSource(), KernelRequest(source="apt:linux-image-meta"), staged)
    assert caught.value.kind is ErrorKind.INVALID


def test_unknown_package_is_not_found_with_apts_words_and_a_command_to_type(archive: Path, staged: Path) -> None:
    with pytest.raises(BangerError, match="linux-image-none") as caught:
        build(AptKernelSource(), KernelRequest(source="apt:linux-image-none"), staged)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.cause == "E: No packages found"
    assert caught.value.hint == "apt-get update"


def test_failed_download_is_unavailable_with_apts_words(archive: Path, script: Script, staged: Path) -> None:
    script("apt-get", "echo 'E: Failed to fetch' >&2; exit 100")
    with pytest.raises(BangerError, match="cannot download") as caught:
        build(AptKernelSource(), KernelRequest(source="apt:linux-image-meta"), staged)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "Failed to fetch" in caught.value.cause


def test_host_without_apt_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, staged: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BangerError, match="apt-cache") as caught:
        build(AptKernelSource(), KernelRequest(source="apt:linux-image-meta"), staged)
    assert caught.value.kind is ErrorKind.UNAVAILABLE


def test_cancelled_download_ends_apt_and_its_children(archive: Path, script: Script, staged: Path) -> None:
    mark = staged.parent / "pid"
    script("apt-get", f"sleep 60 & echo $! >{mark}.new; mv {mark}.new {mark}; wait")
    operation = Operation("kernel.pull", "x")
    errors: list[BangerError] = []

    def pull() -> None:
        try:
            AptKernelSource().build(KernelRequest(source="apt:linux-image-meta"), staged, operation)
        except BangerError as error:
            errors.append(error)

    worker = threading.Thread(target=pull)
    worker.start()
    eventually(mark.exists)
    operation.cancel()
    worker.join(10)
    assert [error.kind for error in errors] == [ErrorKind.CANCELLED]
    sleeper = Path("/proc", mark.read_text().strip(), "cmdline")
    eventually(lambda: not sleeper.exists() or sleeper.read_bytes() == b"")
    assert list(staged.iterdir()) == []


def test_control_fields_are_read_up_to_the_first_empty_line() -> None:
    fields = parse_fields("Package: a\nDepends: b (>= 1), c | d, e:any\nDescription: x\n more\n\nPackage: other\n")
    assert fields["Package"] == "a"
    assert dependencies(fields) == ["b", "c", "e"]
    assert dependencies({}) == []


# -- files -------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "my-kernel"
    path.write_bytes(bzimage(b"payload"))
    return path


@pytest.mark.parametrize("below", ["", "lib/modules/" + RELEASE, "usr/lib/modules/" + RELEASE, RELEASE])
def test_imported_modules_are_found_at_or_below_the_directory(
    kernel: Path, staged: Path, tmp_path: Path, below: str
) -> None:
    tree = tmp_path / "given" / below
    (tree / "kernel").mkdir(parents=True)
    (tree / "modules.dep").write_text("")
    request = KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given"))
    assert build(FileKernelSource(), request, staged).has_modules
    assert b"modules.dep" in modules_in(staged)


def test_imported_modules_of_another_kernel_are_invalid(kernel: Path, staged: Path, tmp_path: Path) -> None:
    (tmp_path / "given/lib/modules/5.0.0/kernel").mkdir(parents=True)
    with pytest.raises(BangerError, match=f"no modules for kernel {RELEASE}"):
        build(FileKernelSource(), KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given")), staged)


@pytest.mark.parametrize("part", ["kernel", "initrd", "module"])
@pytest.mark.parametrize("thing", ["pipe", "endless device", "link to one", "directory"])
@pytest.mark.timeout(20)
def test_imported_thing_that_is_no_file_is_neither_waited_for_nor_read(
    kernel: Path, staged: Path, tmp_path: Path, part: str, thing: str
) -> None:
    odd = tmp_path / "odd"
    tree = tmp_path / "lib" / "modules" / RELEASE
    (tree / "kernel").mkdir(parents=True)
    if part == "module":
        odd = tree / "kernel" / "odd.ko"
        if thing in ("link to one", "directory"):
            pytest.skip("links and directories are parts of a module tree")
    match thing:
        case "pipe":
            os.mkfifo(odd)
        case "endless device":
            if os.getuid() != 0:
                pytest.skip("only root makes devices")
            os.mknod(odd, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        case "link to one":
            odd.symlink_to("/dev/zero")
        case "directory":
            odd.mkdir()
    request = KernelRequest(
        kernel_path=str(odd if part == "kernel" else kernel),
        initrd_path=str(odd) if part == "initrd" else "",
        modules_path=str(tmp_path) if part == "module" else "",
    )
    with pytest.raises(BangerError) as caught:
        build(FileKernelSource(), request, staged)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.subject == str(odd)


def test_imported_file_larger_than_any_kernel_is_not_read_whole(
    kernel: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files, "MOST_KERNEL_BYTES", 1000)
    with pytest.raises(BangerError, match="larger than 1000 bytes") as caught:
        build(FileKernelSource(), KernelRequest(kernel_path=str(kernel)), staged)
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("is_damaged", [True, False])
def test_damaged_kernel_is_taken_with_a_warning(kernel: Path, staged: Path, is_damaged: bool) -> None:
    content = bzimage(struct.pack("<I", 4))
    kernel.write_bytes(content[:-20] if is_damaged else content)
    operation = Operation("kernel.import", "x")
    heard: list[str] = []
    operation.subscribe(lambda event: heard.append(event.message))
    FileKernelSource().build(KernelRequest(kernel_path=str(kernel)), staged, operation)
    warned = [message for message in heard if "may not boot" in message]
    assert len(warned) == is_damaged
    assert not is_damaged or "cut short" in warned[0]


def test_imported_initrd_is_kept(kernel: Path, staged: Path, tmp_path: Path) -> None:
    (tmp_path / "my-initrd").write_bytes(b"initrd")
    request = KernelRequest(kernel_path=str(kernel), initrd_path=str(tmp_path / "my-initrd"))
    assert build(FileKernelSource(), request, staged).has_initrd
    assert (staged / "initrd").read_bytes() == b"initrd"


def test_imports_of_equal_content_have_equal_digests(kernel: Path, tmp_path: Path) -> None:
    digests = []
    for number, content in enumerate([bzimage(b"payload"), bzimage(b"payload"), bzimage(b"other")]):
        kernel.write_bytes(content)
        target = tmp_path / f"staging-{number}"
        target.mkdir()
        digests.append(build(FileKernelSource(), KernelRequest(kernel_path=str(kernel)), target).digest)
    assert digests[0] == digests[1] != digests[2]
    assert digests[0].startswith("sha256:")


def test_equal_modules_have_equal_digests_and_images_whoever_made_the_tree(kernel: Path, tmp_path: Path) -> None:
    found = []
    for number, mode in enumerate((0o600, 0o664)):
        tree = tmp_path / f"tree-{number}"
        tree.mkdir(mode=0o700 + number)
        (tree / "modules.dep").write_text("")
        (tree / "kernel").write_text("kernel")
        (tree / "kernel").chmod(mode)
        os.utime(tree / "kernel", (number, number))
        target = tmp_path / f"staging-{number}"
        target.mkdir()
        built = build(FileKernelSource(), KernelRequest(kernel_path=str(kernel), modules_path=str(tree)), target)
        found.append((built.digest, read_image(target / "modules.ext4")))
    assert found[0] == found[1]


def test_configuration_among_the_modules_is_laid_beside_the_kernel(kernel: Path, staged: Path, tmp_path: Path) -> None:
    (tmp_path / "given/kernel").mkdir(parents=True)
    (tmp_path / "given/modules.dep").write_text("")
    (tmp_path / "given/config").write_text("CONFIG_EXT4_FS=m\n")
    build(FileKernelSource(), KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given")), staged)
    assert (staged / "config").read_text() == "CONFIG_EXT4_FS=m\n"


def test_configuration_that_is_a_link_is_not_followed(kernel: Path, staged: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "given/kernel").mkdir(parents=True)
    (tmp_path / "given/modules.dep").write_text("")
    (tmp_path / "given/config").symlink_to(tmp_path / "secret")
    build(FileKernelSource(), KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given")), staged)
    assert not (staged / "config").exists()


def test_pipe_among_the_modules_is_refused(kernel: Path, staged: Path, tmp_path: Path) -> None:
    (tmp_path / "given/kernel").mkdir(parents=True)
    (tmp_path / "given/modules.dep").write_text("")
    os.mkfifo(tmp_path / "given/kernel/pipe")
    request = KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given"))
    with pytest.raises(BangerError, match="pipe") as caught:
        build(FileKernelSource(), request, staged)
    assert caught.value.kind is not ErrorKind.INTERNAL


def test_missing_kernel_file_is_not_found(staged: Path, tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="cannot read") as caught:
        build(FileKernelSource(), KernelRequest(kernel_path=str(tmp_path / "none")), staged)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_kernel_for_another_machine_is_invalid(kernel: Path) -> None:
    with pytest.raises(BangerError, match="for amd64, this host is arm64") as caught:
        staging.recognise(kernel, "aarch64")
    assert caught.value.kind is ErrorKind.INVALID


# -- indexing ----------------------------------------------------------------------------------------------


def test_modules_without_an_index_get_one(kernel: Path, staged: Path, tmp_path: Path, script: Script) -> None:
    (tmp_path / "given/kernel").mkdir(parents=True)
    script("depmod", f'[ "$3" = {RELEASE} ] && echo "kernel/a.ko:" >"$2/lib/modules/$3/modules.dep"')
    build(FileKernelSource(), KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given")), staged)
    assert modules_in(staged, data=b"kernel/a.ko:\n") == {b"modules.dep"}
    assert not (staged / ".depmod").exists()


def test_modules_that_cannot_be_indexed_are_kept_with_a_note(
    kernel: Path, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given/kernel").mkdir(parents=True)
    monkeypatch.setattr(staging, "DEPMOD", (("no-such-depmod",), ("false",)))
    operation = Operation("kernel.import", "x")
    heard: list[str] = []
    operation.subscribe(lambda event: heard.append(event.message))
    request = KernelRequest(kernel_path=str(kernel), modules_path=str(tmp_path / "given"))
    assert FileKernelSource().build(request, staged, operation).has_modules
    assert any("cannot be indexed" in message for message in heard)


def test_sources_share_the_requests_among_them(tmp_path: Path) -> None:
    requests = [KernelRequest(source="apt:x"), KernelRequest(kernel_path="/x"), KernelRequest(source="ftp:x")]
    found = [
        [
            type(one).__name__
            for one in sources(Layout(*[tmp_path] * 4), Config.load(tmp_path / "none", {}))
            if one.handles(it)
        ]
        for it in requests
    ]
    assert found == [["AptKernelSource"], ["FileKernelSource"], []]
