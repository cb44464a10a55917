"""One guest with a busybox, two users and nothing else: everything that comes in through banger's ssh server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.guest.boot import LinuxGuestBoot
from banger.guest.hostkey import public_key
from banger.layout import Layout
from tests.support.qemu_boot import (
    Machine,
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    make_ssh_key,
    needs_qemu,
    overlay_disks,
    wait_until_ready,
)

pytestmark = [pytest.mark.boot, needs_qemu]

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\nblank:::::\ncarol:x:1001:50::/home/carol:/bin/sh"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:bob,alice\nmalice:x:666:malice\nvideo:x:44:bob,alice"
APPLETS = "sh ls cat id env pwd true sleep kill tty stat readlink ip hostname touch ps test"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("guest")
    tree = busybox_tree(place / "tree", APPLETS, ("etc", "root", "home/alice", "usr/share"))
    (tree / "etc/passwd").write_text(PASSWD)
    (tree / "etc/group").write_text(GROUP)
    (tree / "etc/hostname").write_text("build-host\n")
    (tree / "etc/data").write_text("not a program\n")
    (tree / "elsewhere").symlink_to("/usr/share")
    config = guest_config(
        make_ssh_key(place),
        env=["FROM_IMAGE=it's $HOME", "PATH=/opt/bin:/bin", "odd.name=a 'b' c"],
        files={"/etc/motd": b"hello\n"},
    )
    boot = LinuxGuestBoot(Layout(place, place, place, place))
    with machine(boot, debian_kernel(), overlay_disks(place, tree), place, config) as running:
        wait_until_ready(running)
        yield running


# -- commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exec_command_ends_its_exit_code_arrives(guest: Machine, code: int) -> None:
    assert guest.run("sh", "-c", f"exit {code}").returncode == code


def test_exec_argument_with_every_awkward_character_arrives_unchanged(guest: Machine) -> None:
    awkward = "a  b'c\"d$HOME`id`\\n*?[x]\n#;&|é"
    done = guest.run("sh", "-c", 'printf %s "$1"', "sh", awkward)
    assert done.stdout == awkward


def test_exec_standard_streams_are_kept_apart(guest: Machine) -> None:
    done = guest.ssh("banger-exec -- sh -c 'cat; echo oops >&2'", stdin="typed\n")
    assert (done.stdout, done.stderr) == ("typed\n", "oops\n")


def test_exec_unknown_command_ends_with_127_and_names_it(guest: Machine) -> None:
    done = guest.run("no-such-program")
    assert done.returncode == 127
    assert '"no-such-program" not found' in done.stderr


def test_exec_toolbox_applet_that_the_image_lacks_is_not_found(guest: Machine) -> None:
    assert guest.run("wget").returncode == 127


@pytest.mark.parametrize("program", ["/etc/data", "/etc"])
def test_exec_file_that_cannot_run_ends_with_126(guest: Machine, program: str) -> None:
    assert guest.run(program).returncode == 126


def test_exec_command_killed_by_a_signal_is_reported_as_such(guest: Machine) -> None:
    done = guest.ssh("banger-exec -- sh -c 'kill -9 $$'", "-v", "-oLogLevel=DEBUG1", "-oControlPath=none")
    assert done.returncode == 255
    assert "exit-signal" in done.stderr


def test_exec_command_replaces_every_shell_of_bangers(guest: Machine) -> None:
    done = guest.run("ps", "-o", "args", user="alice")
    assert not [line for line in done.stdout.splitlines() if "bin/enter" in line or "userspec" in line]


# -- users, directories, environment -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("alice", "uid=1000(alice) gid=1000(alice) groups=44(video),50(staff),1000(alice)"),
        ("1000", "uid=1000(alice) gid=1000(alice) groups=44(video),50(staff),1000(alice)"),
        ("alice:staff", "uid=1000(alice) gid=50(staff) groups=50(staff)"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343"),
        ("root:staff", "uid=0(root) gid=50(staff) groups=50(staff)"),
        (":staff", "uid=0(root) gid=50(staff) groups=50(staff)"),
        ("alice:", "uid=1000(alice) gid=1000(alice) groups=44(video),50(staff),1000(alice)"),
    ],
)
def test_exec_as_user_gets_that_users_numbers(guest: Machine, user: str, expected: str) -> None:
    shown = guest.run("id", user=user).stdout.strip()
    assert _sorted_groups(shown) == _sorted_groups(expected)


@pytest.mark.parametrize("user", ["nobody-here", "alice:nothing", "blank"])
def test_exec_as_unknown_user_or_group_ends_with_125(guest: Machine, user: str) -> None:
    done = guest.run("true", user=user)
    assert done.returncode == 125
    assert "in /etc/" in done.stderr


def test_exec_in_directory_follows_the_images_own_links(guest: Machine) -> None:
    assert guest.run("readlink", "/proc/self/cwd", workdir="/elsewhere").stdout.strip() == "/usr/share"


def test_exec_in_missing_directory_ends_with_125(guest: Machine) -> None:
    done = guest.run("true", workdir="/nowhere")
    assert done.returncode == 125
    assert '"/nowhere"' in done.stderr


def test_exec_environment_is_base_then_image_then_request(guest: Machine) -> None:
    shown = dict(
        line.split("=", 1)
        for line in guest.run("env", user="alice", env=["ADDED=x=y", "LANG=de", "dotted.name=1"]).stdout.splitlines()
    )
    shown.pop("PWD")
    assert shown == {
        "PATH": "/opt/bin:/bin",
        "HOME": "/home/alice",
        "USER": "alice",
        "LOGNAME": "alice",
        "LANG": "de",
        "FROM_IMAGE": "it's $HOME",
        "ADDED": "x=y",
        "odd.name": "a 'b' c",
        "dotted.name": "1",
    }


# -- shells ------------------------------------------------------------------------------------------------


def test_login_shell_on_a_terminal_is_the_users_own_and_ends_with_its_code(guest: Machine) -> None:
    done = guest.ssh("banger-exec -u alice --", "-tt", stdin='tty; echo "$0 $HOME $(pwd)"; exit 7\n')
    assert done.returncode == 7
    assert "/dev/pts/" in done.stdout
    assert "-sh /home/alice /home/alice" in done.stdout


def test_ssh_as_a_user_of_the_image_lands_in_that_users_shell(guest: Machine) -> None:
    done = guest.ssh("id -un; pwd; echo $FROM_IMAGE; exit 3", user="alice")
    assert done.returncode == 3
    assert done.stdout == "alice\n/home/alice\nit's $HOME\n"


def test_ssh_as_a_name_that_the_image_lacks_is_refused(guest: Machine) -> None:
    assert guest.ssh("true", user="mallory").returncode == 255


def test_ssh_with_another_host_key_in_known_hosts_is_refused(guest: Machine, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    other.write_text(f"[127.0.0.1]:{guest.port} {public_key(bytes(32))}\n")
    done = guest.ssh("true", f"-oUserKnownHostsFile={other}", "-oControlPath=none")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


# -- files -------------------------------------------------------------------------------------------------


def test_tool_tar_stream_is_unpacked_in_the_guest(guest: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    archive = subprocess.run(["tar", "-C", tmp_path, "-c", "file"], capture_output=True, check=True).stdout
    words = ["ssh", *guest.ssh_options(), "-p", str(guest.port), "root@127.0.0.1"]
    put = subprocess.run(
        [*words, "banger-exec -- /run/banger/bin/busybox tar -xpf - -C /root"], input=archive, check=False, timeout=60
    )
    assert put.returncode == 0
    back = subprocess.run(
        [*words, "banger-exec -- /run/banger/bin/busybox cat /root/file"], capture_output=True, check=False, timeout=60
    )
    assert back.stdout == (tmp_path / "file").read_bytes()


def test_sftp_file_goes_there_and_back_as_the_logged_in_user(guest: Machine, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(os.urandom(100_000))
    batch = tmp_path / "batch"
    batch.write_text(f"put {tmp_path}/out /tmp/sftp-{tmp_path.name}\nget /tmp/sftp-{tmp_path.name} {tmp_path}/back\n")
    guest.start_ssh()
    words = ["sftp", "-q", "-b", str(batch), *guest.ssh_options(), "-P", str(guest.port), "alice@127.0.0.1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == (tmp_path / "out").read_bytes()
    assert guest.run("stat", "-c", "%u", f"/tmp/sftp-{tmp_path.name}").stdout.strip() == "1000"


def test_scp_needs_no_scp_in_the_image(guest: Machine, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("copied\n")
    guest.start_ssh()
    words = [
        "scp",
        "-q",
        *guest.ssh_options(),
        "-P",
        str(guest.port),
        str(tmp_path / "out"),
        "root@127.0.0.1:/root/scp",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert guest.run("cat", "/root/scp").stdout == "copied\n"


# -- the machine -------------------------------------------------------------------------------------------


def test_guest_has_the_name_it_was_given_and_not_that_of_the_build_host(guest: Machine) -> None:
    assert guest.run("hostname").stdout == "guest-1\n"
    assert guest.run("cat", "/etc/hostname").stdout == "guest-1\n"
    assert "127.0.1.1\tguest-1" in guest.run("cat", "/etc/hosts").stdout


def test_guest_has_address_route_and_name_server(guest: Machine) -> None:
    assert "inet 10.0.2.15/24" in guest.run("ip", "addr").stdout
    assert "default via 10.0.2.2" in guest.run("ip", "route").stdout
    assert guest.run("cat", "/etc/resolv.conf").stdout == "nameserver 10.0.2.3\n"


def test_guest_finds_extra_files_in_place(guest: Machine) -> None:
    assert guest.run("cat", "/etc/motd").stdout == "hello\n"


def test_guest_sees_only_one_mount_of_bangers(guest: Machine) -> None:
    mounts = [line.split()[1] for line in guest.run("cat", "/proc/mounts").stdout.splitlines()]
    assert [place for place in mounts if place.startswith("/run/banger")] == ["/run/banger"]


def test_guest_users_cannot_put_anything_into_the_toolbox(guest: Machine) -> None:
    assert guest.run("stat", "-c", "%a %u", "/run/banger").stdout == "755 0\n"


def test_guest_process_one_collects_orphans(guest: Machine) -> None:
    guest.run("sh", "-c", "(sleep 0.1 & exec sleep 0) & wait; sleep 0.3")
    assert " Z" not in guest.run("ps", "-o", "stat,args").stdout


def test_guest_console_tells_the_times_of_its_boot(guest: Machine) -> None:
    marks = [line.split() for line in guest.console.splitlines() if line.startswith("banger: ")]
    assert [mark[1] for mark in marks] == ["init", "modules", "disk", "root", "network", "ready"]
    assert [float(mark[2]) for mark in marks] == sorted(float(mark[2]) for mark in marks)


def _sorted_groups(shown: str) -> tuple[str, list[str]]:
    numbers, _, groups = shown.partition(" groups=")
    return numbers, sorted(groups.split(","))
