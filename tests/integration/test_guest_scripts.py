"""The guest's scripts on images that are odd: text files of every form, and links wherever banger goes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.guest_scripts import Guest, image_root, needs_chroot, toolbox_root

pytestmark = needs_chroot

ID = "cafe12345678"
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tweb\n"


@pytest.fixture
def image(tmp_path: Path) -> Guest:
    return image_root(tmp_path / "root")


@pytest.fixture
def toolbox(tmp_path: Path) -> Guest:
    return toolbox_root(tmp_path / "toolbox")


# -- accounts ----------------------------------------------------------------------------------------------

ROOT = "root:x:0:0::/root:/bin/sh\n"


@pytest.mark.parametrize(
    "passwd",
    [
        ROOT + "app:x:1001:1002::/srv:/bin/sh",
        ROOT.replace("\n", "\r\n") + "app:x:1001:1002::/srv:/bin/sh\r\n",
        "# accounts\n\n" + ROOT + "\n\r\napp:x:1001:1002\r",
        "app:x:1001:1002::/srv:/bin/sh\napp:x:0:0::/:/bin/sh\n",
    ],
    ids="no-last-newline crlf comments-and-blanks twice".split(),
)
def test_user_is_found_however_the_lines_end(image: Guest, passwd: str) -> None:
    image.write("etc/passwd", passwd)
    image.write("etc/group", "wheel:x:10:root,app\r\nlogs:x:900:app")
    for user in ("app", "1001"):
        done = image.exec("id", user=user)
        assert "uid=1001" in done.stdout, done.stderr
        assert "gid=1002" in done.stdout
        assert {"10(wheel)", "1002", "900(logs)"} == set(done.stdout.split("groups=")[1].strip().split(","))
    assert "gid=900" in image.exec("id", user="app:logs").stdout
    assert image.enter("id -u", account="app").stdout == "1001\n"


@pytest.mark.parametrize("passwd", ["", "# nobody\n", "directory", "missing", "link", "fifo"])
def test_root_needs_no_account_in_the_image(image: Guest, passwd: str) -> None:
    if passwd == "directory":
        image.path("etc/passwd").mkdir()
    elif passwd == "link":
        image.link("etc/passwd", "nowhere")
    elif passwd == "fifo":
        os.mkfifo(image.path("etc/passwd"))
    elif passwd != "missing":
        image.write("etc/passwd", passwd)
    for user in ("", "root", "1234"):
        assert image.exec("echo", "ran", user=user).stdout == "ran\n"
    image.start()
    assert "root:x:0:0:root:/:/bin/sh\n" in image.read("etc/passwd")
    assert image.read("etc/group") == "root:x:0:\n"


def test_line_without_numbers_is_no_user_and_certainly_not_root(image: Guest) -> None:
    image.write("etc/passwd", "app:x::::/:\nbad:x:zero:0::/:\n")
    for user in ("app", "bad", "zero"):
        done = image.exec("id", user=user)
        assert (done.returncode, done.stdout) == (125, "")
        assert f'"{user}"' in done.stderr


def test_number_is_a_number_even_if_an_account_is_called_so(image: Guest) -> None:
    image.write("etc/passwd", "1001:x:5:5::/:\n" + ROOT)
    assert image.exec("id", "-u", user="1001").stdout == "1001\n"


def test_account_completed_by_the_first_boot_leaves_the_others_whole(image: Guest) -> None:
    image.write("etc/passwd", "app:x:1001:1001::/:/bin/sh")
    image.write("etc/group", "app:x:1001:")
    image.start()
    assert image.read("etc/passwd") == "app:x:1001:1001::/:/bin/sh\nroot:x:0:0:root:/:/bin/sh\n"
    assert image.read("etc/group") == "app:x:1001:\nroot:x:0:\n"


def test_ssh_server_knows_the_accounts_that_the_image_has_when_it_is_started(image: Guest) -> None:
    image.write("run/banger/etc/passwd", "root:x:0:0::/home:/run/banger/bin/enter\nold:x:0:0::/home:/x\n")
    image.write("etc/passwd", ROOT + "app:x:1001:1001::/:/bin/sh\nodd name:x:5:5::/:/bin/sh\n#x:x:6:6::/:/bin/sh")
    image.path("run/banger/tmp").mkdir(exist_ok=True)
    done = image.start_ssh()
    assert done.returncode == 0, done.stderr
    enter = "x:0:0::/home:/run/banger/bin/enter\n"
    assert image.read("run/banger/etc/passwd") == f"root:{enter}app:{enter}"
    assert not image.path("run/banger/tmp/starting-ssh").exists()


def test_home_is_what_the_account_says_even_if_no_layer_has_it(image: Guest) -> None:
    image.write("etc/passwd", ROOT + "app:x:1001:1001::/home/app:/bin/sh\n")
    assert image.exec("sh", "-c", "echo $HOME; pwd", user="app").stdout == "/home/app\n/\n"
    assert image.exec("sh", "-c", "echo $HOME", user="7").stdout == "/\n"
    assert image.enter("pwd", account="app").stdout == "/\n"


@pytest.mark.parametrize("by", ["image", "request"])
def test_variables_called_like_those_of_the_script_reach_the_command_and_change_nothing_else(
    image: Guest, by: str
) -> None:
    image.write("etc/passwd", ROOT + "app:x:1001:1002::/srv:/bin/sh\n")
    script = image.read("run/banger/bin/enter")
    own = {*re.findall(r"\b([a-z]+)=", script), *" ".join(re.findall(r"read -r ([a-z_ ]+)", script)).split()} - {"_"}
    given = [f"{name}=/of/{name}" for name in (*sorted(own), "IFS", "OPTIND", "RANDOM", "http_proxy")]
    options = {}
    if by == "image":
        image.write("run/banger/etc/environment", "".join(f"set_env '{one}'\n" for one in given))
    else:
        options["env"] = " ".join(f"-e '{one}'" for one in given)
    assert "uid=1001 gid=1002" in image.exec("id", user="app", **options).stdout.replace("(app)", "")
    assert image.exec("pwd", user="app", **options).stdout == "/\n"
    printed = image.exec("env", user="app", **options).stdout.splitlines()
    assert set(given) <= set(printed)
    assert len(printed) == len(set(printed))


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", HOSTS),
        ("# placeholder\n", "# placeholder\n" + HOSTS),
        ("# placeholder", "# placeholder\n" + HOSTS),
        ("#127.0.0.1 localhost web\n", "#127.0.0.1 localhost web\n" + HOSTS),
        ("127.0.0.1 localhost\n10.9.8.7 db", None),
        ("127.0.0.1 localhost\r\n::1 localhost\r\n10.9.8.7 db\r\n", None),
        (
            "127.0.0.1 localhost web # ours\n::1\tip6 localhost\n",
            "127.0.0.1 localhost web # ours\n::1\tip6 localhost\n",
        ),
        ("10.0.0.1 localhost # not 127.0.0.1\n", "10.0.0.1 localhost # not 127.0.0.1\n" + HOSTS),
        ("10.0.0.1 a\n" * 500 + "10.9.8.7 db", None),
    ],
    ids="empty comment comment-without-newline commented-out no-last-newline crlf complete elsewhere long".split(),
)
def test_hosts_keeps_its_lines_and_gets_those_it_lacks(image: Guest, before: str, after: str | None) -> None:
    image.write("etc/hosts", before)
    image.start()
    now = image.read("etc/hosts")
    assert now.startswith(before)
    if after is not None:
        assert now == after
    lines = [line.partition("#")[0].split() for line in now.splitlines()]
    assert [address for address, *names in filter(None, lines) if "db" in names] == ["10.9.8.7"] * ("db" in before)
    for address, name in (("127.0.0.1", "localhost"), ("::1", "localhost"), ("127.0.", "web")):
        assert any(line and line[0].startswith(address) and name in line[1:] for line in lines), now


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
@pytest.mark.parametrize(
    "target", ["../run/nowhere", "/absent/file", "/etc/other", "directory", "loop", "read-only", "missing"]
)
def test_file_that_banger_writes_is_one_whatever_the_image_has_there(image: Guest, name: str, target: str) -> None:
    place = f"etc/{name}"
    image.write("etc/other", "10.9.8.7 db")
    if target == "directory":
        image.write(f"{place}/inside", "kept\n")
    elif target == "read-only":
        image.write(place, "", 0o444)
    elif target == "loop":
        image.link(place, name)
    elif target != "missing":
        image.link(place, target)
    image.start(init="none")  # nor a resolver service
    assert image.path(place).is_file()
    assert not image.path(place).is_symlink()
    expected = {"hosts": "127.0.1.1\tweb\n", "hostname": "web\n", "resolv.conf": "nameserver 10.0.2.3\n"}[name]
    assert image.read(place).endswith(expected)
    assert image.read("etc/other") == "10.9.8.7 db"
    if target == "directory":
        assert image.read(f"{place}.of-image/inside") == "kept\n"


def test_resolver_link_of_an_image_with_an_init_leads_somewhere_and_is_left_alone_afterwards(image: Guest) -> None:
    image.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    image.start()
    assert image.read("run/systemd/resolve/stub-resolv.conf") == "nameserver 10.0.2.3\n"
    image.write("run/systemd/resolve/stub-resolv.conf", "of the service\n")
    image.start(first=False)
    assert image.path("etc/resolv.conf").is_symlink()
    assert image.read("etc/resolv.conf") == "of the service\n"


def test_later_boot_leaves_the_users_files_alone(image: Guest) -> None:
    image.start()
    for name in ("hosts", "hostname", "resolv.conf", "passwd", "group"):
        image.write(f"etc/{name}", f"# my {name}")
    assert "failed" not in image.start(first=False)
    for name in ("hosts", "hostname", "resolv.conf", "passwd", "group"):
        assert image.read(f"etc/{name}") == f"# my {name}"


def test_first_boot_says_that_it_is_done(image: Guest) -> None:
    image.start()
    assert image.read("note") == f"{ID}\n"


# -- directories -------------------------------------------------------------------------------------------


def test_directories_of_the_configuration_are_made_wherever_links_lead(image: Guest) -> None:
    image.link("srv", "/data/of/srv")
    image.link("up", "../../../elsewhere")
    image.link("loop", "loop")
    image.write("file", "")
    named = ["/srv/app/deep", "/plain dir/a", "/up/x", "/loop/x", "/file/x", "/etc"]
    image.write("run/banger/etc/directories", "".join(f"{path}\n" for path in named))
    shown = image.start()
    for place in ("data/of/srv/app/deep", "plain dir/a", "elsewhere/x"):
        made = image.path(place)
        assert made.is_dir()
        assert (made.stat().st_mode & 0o7777, made.stat().st_uid) == (0o755, 0)
    assert [line for line in shown.splitlines() if "cannot make" in line] == [
        "banger: cannot make the directory /loop/x",
        "banger: cannot make the directory /file/x",
    ]


@pytest.mark.parametrize("target", ["", "/nowhere/tmp", "file"])
def test_tmp_is_everybodys_where_the_image_has_none(image: Guest, target: str) -> None:
    if target == "file":
        image.write("tmp", "")
    elif target:
        image.link("tmp", target)
    image.start()
    assert image.path(target if target.startswith("/") else "tmp").stat().st_mode & 0o7777 == 0o1777


def test_exec_in_a_directory_that_is_not_there_ends_with_125(image: Guest) -> None:
    done = image.exec("pwd", workdir="-w /nowhere")
    assert done.returncode == 125
    assert '"/nowhere"' in done.stderr


# -- implicit shells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "app"])
@pytest.mark.parametrize("odd", ["", "-e odd.name=1"])
@pytest.mark.parametrize("name", ["/bin/data", "data", "./bin/data"])
def test_command_of_no_format_is_126_on_every_path(image: Guest, user: str, odd: str, name: str) -> None:
    image.write("etc/passwd", ROOT + "app:x:1001:1001::/:/bin/data\n")
    image.write("bin/data", b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xb7\0\necho run as shell\n", 0o755)
    done = image.exec(name, user=user, odd=odd)
    assert (done.returncode, done.stdout) == (126, "")
    assert "exec format error" in done.stderr


def test_login_shell_of_no_format_is_126(image: Guest) -> None:
    image.write("etc/passwd", "root:x:0:0::/:/bin/data\n")
    image.write("bin/data", "echo run as shell\n", 0o755)
    for command in ("banger-exec --", "", "echo typed"):
        done = image.enter(command)
        assert (done.returncode, done.stdout) == (126, ""), command
        assert "exec format error" in done.stderr


def test_odd_environment_reaches_the_command_once(image: Guest) -> None:
    image.write("run/banger/etc/environment", "set_env 'odd.name=image'\nset_env '-u=x y'\n")
    done = image.exec("env", user="7", odd="-e odd.name=mine -e 'it'\\''s=1'")
    shown = [line for line in done.stdout.splitlines() if not line[0].isupper() and line[0] != "_"]
    assert sorted(shown) == ["-u=x y", "it's=1", "odd.name=mine"]


# -- before the image's root is entered --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "proc"])
@pytest.mark.parametrize(
    ("links", "place"),
    [
        ({}, ""),
        ({"": "/var/x"}, "/var/x"),
        ({"": "var/x"}, "/var/x"),
        ({"": "../../../var/x"}, "/var/x"),
        ({"": "/link/y", "link": "/deep/er", "deep": "./down"}, "/down/er/y"),
        ({"": "/"}, ""),
        ({"": ".."}, ""),
        ({"": "/dev/x"}, ""),
        ({"": "/proc"}, ""),
        ({"": "other", "other": "THIS"}, ""),
        ({"": "/file/x"}, ""),
    ],
    ids="none absolute relative upwards chain root parent device system loop file".split(),
)
def test_mount_points_are_found_inside_the_images_root(
    toolbox: Guest, name: str, links: dict[str, str], place: str
) -> None:
    toolbox.write("new/file", "")
    for link, target in links.items():
        toolbox.link(f"new/{link or name}", target.replace("THIS", name))
    before = {path.name for path in toolbox.root.iterdir()}
    assert toolbox.init() == "yes"
    wanted = place or f"/{name}"
    assert f"/new{wanted}" in toolbox.mounted
    made = toolbox.path(f"new{wanted}")
    assert made.is_dir()
    assert not made.is_symlink()
    assert {path.name for path in toolbox.root.iterdir()} == before | {"calls", "etc"}


@pytest.mark.parametrize("root", ["overlay", "direct"])
def test_note_of_the_first_boot_is_heeded_only_in_its_own_place(toolbox: Guest, root: str) -> None:
    place = "data/first-boot" if root == "overlay" else "new/.banger"
    assert toolbox.init(root=root) == "yes"
    assert toolbox.init(root=root) == "yes"  # nobody has written it
    toolbox.write(place, "another-vm\n")
    assert toolbox.init(root=root) == "yes"
    toolbox.write(place, f"{ID}\n")
    assert toolbox.init(root=root) == "no"


@pytest.mark.parametrize("root", ["overlay", "direct"])
@pytest.mark.parametrize("odd", ["directory", "link", "dangling", "fifo"])
def test_note_that_is_no_file_is_replaced(toolbox: Guest, root: str, odd: str) -> None:
    place = "data/first-boot" if root == "overlay" else "new/.banger"
    toolbox.write("elsewhere", f"{ID}\n")
    if odd == "directory":
        toolbox.write(f"{place}/inside", "")
    elif odd == "fifo":
        os.mkfifo(toolbox.path(place))
    else:
        toolbox.link(place, "/elsewhere" if odd == "link" else "/nowhere")
    assert toolbox.init(root=root) == "yes"
    assert toolbox.path(place).is_file()
    assert not toolbox.path(place).is_symlink()
    assert toolbox.read("elsewhere") == f"{ID}\n"


def test_machine_of_an_older_banger_is_not_set_up_again(toolbox: Guest) -> None:
    toolbox.write("data/upper/etc/hostname", "web\n")
    assert toolbox.init() == "no"
    toolbox.write("new/var/lib/banger/first-boot", "web\n")
    assert toolbox.init(root="direct") == "no"


def test_old_note_that_came_with_an_image_is_not_heeded(toolbox: Guest) -> None:
    toolbox.write("new/var/lib/banger/first-boot", "another\n")
    assert toolbox.init(root="direct") == "yes"
    toolbox.path("new/.banger").unlink()
    toolbox.write("etc/note", "web\n")
    toolbox.path("new/var/lib/banger/first-boot").unlink()
    toolbox.link("new/var/lib/banger/first-boot", "/etc/note")
    assert toolbox.init(root="direct") == "yes"
