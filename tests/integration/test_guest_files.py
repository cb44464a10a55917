"""The scripts that look at, send and receive files in a guest, run here by the busybox that guests get."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import GuestPath
from banger.guest import files
from tests.support.programs import missing_programs
from tests.support.tars import Member, archive, entry, read_archive

pytestmark = pytest.mark.skipif(bool(missing_programs("busybox")), reason="not installed: busybox")


class Shell:
    """Runs a tool's arguments as a guest would, with a toolbox of its own."""

    def __init__(self, toolbox: Path) -> None:
        self.toolbox = toolbox

    def __call__(self, args: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        own = [arg.replace("/run/banger", str(self.toolbox)) for arg in args]
        return subprocess.run(["busybox", *own], input=stdin, capture_output=True, check=False, timeout=60)

    def send(self, path: Path | str) -> tuple[dict[str, Member], list[str]]:
        """What is sent of ``path``, and what is told about it."""
        done = self(files.send(str(path)))
        assert done.returncode == 0, done.stderr
        return read_archive([done.stdout]), done.stderr.decode().splitlines()


@pytest.fixture
def shell() -> Iterator[Shell]:
    with tempfile.TemporaryDirectory() as toolbox:
        Path(toolbox, "bin").mkdir()
        Path(toolbox, "tmp").mkdir()
        busybox = subprocess.run(["sh", "-c", "command -v busybox"], capture_output=True, text=True, check=True).stdout
        Path(toolbox, "bin", "busybox").symlink_to(busybox.strip())
        yield Shell(Path(toolbox))
        assert not list(Path(toolbox, "tmp").iterdir()), "nothing stays in the guest's memory"


def test_path_is_what_it_leads_to_and_a_link_says_where(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "new\nline").write_text("")
    for name, text in (("to-dir", "dir"), ("to-file", "new\nline"), ("dangling", "dir/none"), ("lost", "no/ne")):
        (tmp_path / name).symlink_to(text)
    os.mkfifo(tmp_path / "pipe")
    base = str(tmp_path.resolve())
    expected = {
        "dir": GuestPath("directory"),
        "new\nline": GuestPath("file"),
        "none": GuestPath("missing"),
        "pipe": GuestPath("other"),
        "to-dir": GuestPath("directory", True, f"{base}/dir"),
        "to-dir/": GuestPath("directory"),
        "dangling": GuestPath("missing", True, f"{base}/dir/none"),
        "lost": GuestPath("missing", True, f"{base}/no/ne"),
    }
    for name, what in expected.items():
        assert files.seen(shell(files.look(f"{base}/{name}")).stdout) == what, name
    assert files.seen(shell(files.look(f"{base}/to-file")).stdout).kind == "file"


def test_answer_that_makes_no_sense_is_unavailable() -> None:
    with pytest.raises(BangerError) as raised:
        files.seen(b"sh: not found\n")
    assert raised.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize("make", [files.look, files.send, files.receive])
def test_relative_path_is_a_usage_error(make: object) -> None:
    with pytest.raises(BangerError) as raised:
        make("etc")  # type: ignore[operator]
    assert raised.value.kind is ErrorKind.USAGE


def test_tree_is_sent_with_links_as_text(shell: Shell, tmp_path: Path) -> None:
    tree = tmp_path / "-tree"
    tree.mkdir(mode=0o700)
    (tree / "f").write_text("1")
    (tree / "empty").write_text("")
    (tree / "abs").symlink_to("/etc")
    found, told = shell.send(tree)
    assert sorted(found) == ["-tree", "-tree/abs", "-tree/empty", "-tree/f"]
    assert (found["-tree"][0].mode, found["-tree/abs"][0].linkname, told) == (0o700, "/etc", [])
    assert sorted(shell.send(f"{tree}/.")[0]) == [".", "./abs", "./empty", "./f"]
    assert shell.send(tree / "empty")[0]["empty"][1] == b""
    assert shell.send(tree / "abs")[0]["abs"][0].issym()


def test_socket_in_a_tree_does_not_fail_the_copy(shell: Shell, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "after").write_text("1")
    assert "after" in {Path(name).name for name in shell.send(tmp_path)[0]}


@pytest.mark.parametrize(
    "path", ["/proc/cpuinfo", "/proc/self/limits", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_file_that_the_kernel_makes_up_comes_with_its_content(shell: Shell, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path} here")
    found, told = shell.send(path)
    info, data = found[Path(path).name]
    assert data.split()[0] == Path(path).read_bytes().split()[0]
    assert (info.size, info.mode, told) == (len(data), Path(path).stat().st_mode & 0o7777, [])


def test_directory_of_the_kernel_comes_with_content_and_tells_what_it_lacks(shell: Shell) -> None:
    found, told = shell.send("/proc/sys/kernel")
    assert found["kernel/ostype"][1] == b"Linux\n"
    names = {line.removeprefix("left out: ").partition(": ")[0] for line in told}
    real = {str(path.relative_to("/proc/sys")) for path in Path("/proc/sys/kernel").rglob("*") if path.is_file()}
    assert {name for name, (info, _) in found.items() if info.isreg()} | names >= real
    assert not names & found.keys()


def test_directory_of_the_kernel_that_is_too_large_is_an_error(shell: Shell) -> None:
    done = shell([arg.replace("max_files=4000", "max_files=5") for arg in files.send("/proc/sys/kernel")])
    assert done.returncode != 0
    assert b"more than 5 files" in done.stderr


def test_file_that_never_ends_or_is_too_large_is_an_error(shell: Shell) -> None:
    if not Path("/proc/sys/net/ipv4/route/flush").exists():
        pytest.skip("no file here that cannot be read by anybody")
    small = [arg.replace("max_blocks=131072", "max_blocks=1") for arg in files.send("/proc/self/smaps")]
    for args in (small, files.send("/proc/sys/net/ipv4/route/flush")):
        done = shell(args)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"cannot be read, or not to an end" in done.stderr


@pytest.mark.parametrize(("size", "whole"), [(10, False), (8 << 20, True), (16 << 20, True)])
def test_file_that_changes_its_size_is_whole_or_an_error(shell: Shell, tmp_path: Path, size: int, whole: bool) -> None:
    (tmp_path / "f").write_bytes(b"x" * (8 << 20))
    args = [arg.replace("/run/banger", str(shell.toolbox)) for arg in files.send(str(tmp_path / "f"))]
    with subprocess.Popen(["busybox", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sending:
        assert sending.stdout is not None
        data = sending.stdout.read(512)  # a pipe holds far less than the file: it is being read now
        os.truncate(tmp_path / "f", size)
        data += sending.stdout.read()
    assert (sending.returncode == 0) is whole
    if whole:
        assert read_archive([data])["f"][1] == b"x" * (8 << 20)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_file_systems_of_the_kernel_below_are_left_out_and_told(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "it's"
    for name in ("proc", "tmp"):
        (root / name).mkdir(parents=True)
    args = [arg.replace("/run/banger", str(shell.toolbox)) for arg in files.send(str(root))]
    script = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" && echo 1 >"$0/tmp/f" && exec busybox "$@"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, str(root), *args], capture_output=True, check=False)
    if b"permission denied" in done.stderr:
        pytest.skip("this host does not let us mount")
    found = read_archive([done.stdout])
    assert sorted(found) == ["it's", "it's/proc", "it's/tmp", "it's/tmp/f"], done.stderr
    place = f"{root}/proc".lstrip("/")
    assert done.stderr.decode() == f"left out: {place}: a file system of the kernel's own\n"


def test_archive_is_received_into_a_directory(shell: Shell, tmp_path: Path) -> None:
    data = archive(entry("ümlaut", data=b"1"), entry("l", linkname="/etc", kind=b"2"), entry("n" * 200, data=b"2"))
    assert shell(files.receive(str(tmp_path)), data).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l", "n" * 200, "ümlaut"]


@pytest.mark.parametrize("data", [b"", b"x" * 5000, archive(entry("a", data=b"1" * 9000))[:4000]])
def test_half_an_archive_is_not_received_well(shell: Shell, tmp_path: Path, data: bytes) -> None:
    assert shell(files.receive(str(tmp_path)), data).returncode != 0


def test_directory_that_is_missing_receives_nothing(shell: Shell, tmp_path: Path) -> None:
    assert shell(files.receive(f"{tmp_path}/none"), archive(entry("a"))).returncode != 0
