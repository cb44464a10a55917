"""`banger ssh-config`: what it puts into the user's ssh configuration, that it takes out exactly that, and what ssh makes of it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.commands.openssh import include_line, included_paths, quoted_path, with_host_key, with_line, without_line
from banger.core.errors import BangerError
from tests.support.cli import Cli, banger_process
from tests.support.fake_api import FakeApi
from tests.support.fake_ssh import carried_to

pytest_plugins = ("tests.support.cli_fixtures",)

ACCESS = {
    "user": "root", "private_key_path": "/k", "known_hosts_path": "/kh", "host_key": "ssh-ed25519 AAAAkey comment",
    "host_key_alias": "banger-1",
}  # fmt: skip
USERS = b"# mine\r\nHost a\n\tUser x\n\n  Port 1\nHost *\n    ForwardAgent yes\n    HostName %h.corp\n    Port 2222\n    User me"
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")


@pytest.fixture
def account(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without ``.ssh``; banger's installation is elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def config(account: Path) -> Path:
    """Where the user's configuration is, or will be."""
    return account / ".ssh" / "config"


@pytest.fixture
def users_config(config: Path) -> Path:
    """A configuration with content of the user's."""
    config.parent.mkdir(mode=0o700)
    config.write_bytes(USERS)
    config.chmod(0o640)
    return config


def ours(home: Path) -> Path:
    return home / "data" / "ssh" / "config"


def understood(config: Path, host: str) -> dict[str, str]:
    """What ssh itself makes of a configuration for a host."""
    done = subprocess.run(["ssh", "-F", config, "-G", host], capture_output=True, text=True, timeout=30, check=True)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


# -- installing and uninstalling ---------------------------------------------------------------------------


def test_install_puts_one_line_before_the_users_own_content(cli: Cli, home: Path, users_config: Path) -> None:
    assert cli("ssh-config", "--install").code == 0
    first, rest = users_config.read_bytes().split(b"\n", 1)
    assert first == f'Include "{ours(home)}"'.encode()
    assert rest == USERS
    assert stat.S_IMODE(users_config.stat().st_mode) == 0o640
    assert stat.S_IMODE(ours(home).stat().st_mode) == 0o600


def test_install_twice_changes_nothing(cli: Cli, users_config: Path) -> None:
    cli("ssh-config", "--install")
    before = (users_config.read_bytes(), users_config.stat().st_ino)
    assert cli("ssh-config", "--install").code == 0
    assert (users_config.read_bytes(), users_config.stat().st_ino) == before


def test_uninstall_leaves_the_users_content_as_it_was(cli: Cli, home: Path, users_config: Path) -> None:
    cli("ssh-config", "--install")
    ended = cli("ssh-config", "--uninstall")
    assert (ended.code, ended.err) == (0, "removed\n")
    assert users_config.read_bytes() == USERS
    assert not ours(home).exists()
    assert list((home / "data" / "ssh").iterdir()) == []
    assert list(users_config.parent.iterdir()) == [users_config]


def test_uninstall_keeps_what_the_user_wrote_since(cli: Cli, users_config: Path) -> None:
    cli("ssh-config", "--install")
    users_config.write_bytes(b"# new\n" + users_config.read_bytes() + b"\nHost z\n")
    cli("ssh-config", "--uninstall")
    assert users_config.read_bytes() == b"# new\n" + USERS + b"\nHost z\n"


def test_files_that_install_made_are_private_and_go_with_uninstall(cli: Cli, account: Path, config: Path) -> None:
    assert cli("ssh-config", "--install").code == 0
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert cli("ssh-config", "--install").code == 0
    assert cli("ssh-config", "--uninstall").code == 0
    assert not config.parent.exists()
    assert list(account.iterdir()) == []


def test_empty_configuration_of_the_users_stays(cli: Cli, config: Path) -> None:
    config.parent.mkdir()
    config.touch()
    cli("ssh-config", "--install")
    cli("ssh-config", "--uninstall")
    assert config.read_bytes() == b""


def test_file_that_install_made_stays_if_the_user_uses_it_now(cli: Cli, config: Path) -> None:
    cli("ssh-config", "--install")
    config.write_bytes(config.read_bytes() + b"Host a\n")
    cli("ssh-config", "--uninstall")
    assert config.read_bytes() == b"Host a\n"


def test_uninstall_of_nothing_says_so_and_succeeds(cli: Cli, users_config: Path) -> None:
    ended = cli("ssh-config", "--uninstall")
    assert ended.code == 0
    assert "includes nothing" in ended.err
    assert users_config.read_bytes() == USERS


def test_configuration_behind_a_symbolic_link_stays_there(cli: Cli, account: Path, config: Path) -> None:
    real = account / "dotfiles" / "ssh"
    real.parent.mkdir()
    real.write_bytes(USERS)
    config.parent.mkdir()
    config.symlink_to(real)
    cli("ssh-config", "--install")
    assert config.is_symlink()
    assert real.read_bytes().endswith(USERS)
    assert real.read_bytes() != USERS
    cli("ssh-config", "--uninstall")
    assert config.is_symlink()
    assert real.read_bytes() == USERS


def test_configuration_that_cannot_be_changed_is_a_clear_error(cli: Cli, home: Path, config: Path) -> None:
    config.mkdir(parents=True)
    ended = cli("ssh-config", "--install")
    assert ended.code == 6
    assert f'cannot read "{config}"' in ended.err
    assert "hint: ls -ld" in ended.err
    assert not ours(home).exists()


def test_both_flags_at_once_are_refused(cli: Cli, config: Path) -> None:
    assert cli("ssh-config", "--install", "--uninstall").code == 2
    assert not config.exists()


def test_json_tells_what_was_done(cli: Cli, config: Path) -> None:
    assert cli("ssh-config", "--install", "--json").json == {"path": str(config), "installed": True, "suffix": "vm"}
    assert cli("ssh-config", "--uninstall", "--json").json == {"path": str(config), "installed": False}
    assert "Host *.vm" in cli("ssh-config", "--json").json["config"]


def test_home_that_is_not_the_accounts_is_pointed_out(cli: Cli, config: Path) -> None:
    assert f"ssh -F {config}" in cli("ssh-config", "--install").err


# -- several installations ---------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Switch to another installation; its ``BANGER_HOME``."""

    def switch(path: Path) -> Path:
        monkeypatch.setenv("BANGER_HOME", str(path))
        return path

    return switch


def test_two_installations_come_and_go_on_their_own(
    cli: Cli, home: Path, users_config: Path, tmp_path: Path, other: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cli("ssh-config", "--install")
    second = other(tmp_path / "second one [x]")
    monkeypatch.setenv("BANGER_DNS_SUFFIX", "lab.vm")
    assert cli("ssh-config", "--install").code == 0
    assert len(users_config.read_bytes().split(b"Include")) == 3
    if shutil.which("ssh"):
        assert str(second) in understood(users_config, "web.lab.vm")["proxycommand"]
        assert str(home) in understood(users_config, "web.vm")["proxycommand"]
    other(home)
    monkeypatch.delenv("BANGER_DNS_SUFFIX")
    cli("ssh-config", "--uninstall")
    assert users_config.read_bytes() == include_line(ours(second)) + USERS
    other(second)
    cli("ssh-config", "--uninstall")
    assert users_config.read_bytes() == USERS


def test_second_installation_with_the_same_names_is_refused(
    cli: Cli, home: Path, config: Path, tmp_path: Path, other: Callable[[Path], Path]
) -> None:
    cli("ssh-config", "--install")
    before = config.read_bytes()
    second = other(tmp_path / "second")
    ended = cli("ssh-config", "--install")
    assert ended.code == 4
    assert str(ours(home)) in ended.err
    assert "dns.suffix" in ended.err
    assert config.read_bytes() == before
    assert not ours(second).exists()


def test_installation_that_is_gone_is_in_nobodys_way(
    cli: Cli, home: Path, config: Path, tmp_path: Path, other: Callable[[Path], Path]
) -> None:
    cli("ssh-config", "--install")
    ours(home).unlink()
    other(tmp_path / "second")
    assert cli("ssh-config", "--install").code == 0
    assert include_line(ours(home)) in config.read_bytes()


# -- what ssh makes of it ----------------------------------------------------------------------------------


@needs_ssh
def test_ssh_takes_our_settings_for_vms_and_the_users_for_all_others(cli: Cli, home: Path, users_config: Path) -> None:
    assert understood(users_config, "web.vm")["port"] == "2222"
    cli("ssh-config", "--install")
    told = understood(users_config, "web.vm")
    expected = {
        "hostname": "web.vm", "port": "22", "user": "root", "proxyusefdpass": "yes", "stricthostkeychecking": "true",
        "identitiesonly": "yes", "identityfile": f"{home}/data/ssh/id_ed25519", "updatehostkeys": "false",
        "userknownhostsfile": f"{home}/data/ssh/known_hosts", "forwardagent": "no", "globalknownhostsfile": "none",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    assert f"BANGER_HOME={home} " in told["proxycommand"]
    assert told["proxycommand"].endswith("ssh-proxy -- '%h'")
    for host in ("a", "vm", "web.vm.example.org", "web.notvm", "x.web.vm"):
        assert "proxycommand" not in understood(users_config, host), host
    assert understood(users_config, "a")["user"] == "x"


@needs_ssh
def test_suffix_of_the_settings_is_that_of_the_section(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_DNS_SUFFIX", "lab.example.org")
    cli("ssh-config", "--install")
    assert understood(config, "web.lab.example.org")["user"] == "root"
    monkeypatch.setenv("BANGER_DNS_SUFFIX", "*")
    ended = cli("ssh-config")
    assert ended.code == 2
    assert '"*" is not a valid value for dns.suffix' in ended.err


@needs_ssh
def test_host_name_with_a_quote_never_reaches_a_shell(cli: Cli, config: Path, tmp_path: Path) -> None:
    cli("ssh-config", "--install")
    trap = tmp_path / "trap"
    host = f"a';touch${{IFS}}{trap};'.vm"
    options = ["-o", "ConnectTimeout=1", "-o", "BatchMode=yes"]
    done = subprocess.run(["ssh", "-F", config, *options, host], capture_output=True, timeout=30, check=False)
    assert done.returncode == 255
    assert not trap.exists()
    # OpenSSH refuses such names itself since 9.6; before, this pattern does.
    assert 'Host *.vm "!*.*.vm" "!*\'*"' in cli("ssh-config").out.splitlines()


@pytest.mark.parametrize("name", ["plain", "with space", 'qu"ote', "br[a]ck*et?", "ünï", "100% $x", "back\\slash"])
@needs_ssh
def test_installation_at_an_odd_path_works_or_is_refused(
    cli: Cli, account: Path, config: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    odd = account / name
    monkeypatch.setenv("BANGER_HOME", str(odd))
    ended = cli("ssh-config", "--install")
    if name in ("100% $x", "back\\slash"):
        assert ended.code == 9
        assert "ssh cannot be given the path" in ended.err
        assert not config.exists()
        return
    assert ended.code == 0
    assert included_paths(config.read_bytes()) == [ours(odd)]
    told = understood(config, "web.vm")
    assert told["userknownhostsfile"] == f"{odd}/data/ssh/known_hosts"
    command = told["proxycommand"].replace("'%h'", "web.vm").replace("%%", "%")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert f"BANGER_HOME={odd}" in words.stdout.splitlines()


# -- pure --------------------------------------------------------------------------------------------------


def test_line_is_added_once_and_removed_once() -> None:
    line = b"Include x\n"
    for text in (b"", b"a", b"a\n", b"\r\n", b"Include x", b" Include x\n"):
        assert without_line(with_line(text, line), line) == text
        assert with_line(with_line(text, line), line) == with_line(text, line)


@pytest.mark.parametrize("path", ["/a\nb", "/a${HOME}"])
def test_path_that_ssh_cannot_be_given_is_refused(path: str) -> None:
    for function in (quoted_path, include_line):
        with pytest.raises(BangerError, match="ssh cannot be given the path"):
            function(Path(path))


def test_known_host_has_one_key_and_old_ones_go() -> None:
    text = with_host_key("", "a.vm", "ssh-ed25519 AAAA note")
    assert text == "a.vm ssh-ed25519 AAAA\n"
    text = with_host_key(with_host_key(text, "b.vm", "ssh-ed25519 BBBB"), "a.vm", "ssh-ed25519 CCCC")
    assert text == "b.vm ssh-ed25519 BBBB\na.vm ssh-ed25519 CCCC\n"
    for number in range(1200):
        text = with_host_key(text, f"n{number}.vm", "ssh-ed25519 AAAA")
    assert "a.vm" not in text
    assert text.endswith("n1199.vm ssh-ed25519 AAAA\n")


# -- the proxy ---------------------------------------------------------------------------------------------


def proxied(host: str) -> tuple[int, str, socket.socket | None]:
    """Run the proxy as ssh does; its exit code, what it complained about, and the connection it passed."""
    near, far = socket.socketpair()
    with near, far:
        process = banger_process("ssh-proxy", "--", host, stdin=far, stdout=far)
        far.close()
        _, errors = process.communicate(timeout=30)
        near.setblocking(False)
        try:
            data, descriptors, _, _ = socket.recv_fds(near, 1, 1)
        except (BlockingIOError, ConnectionResetError):
            data, descriptors = b"", []
        assert data == (b"\0" if descriptors else b"")
        return process.returncode, errors.decode(), socket.socket(fileno=descriptors[0]) if descriptors else None


def received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(65536)):
        data += piece
    return data


def test_proxy_passes_a_connection_to_the_vm_and_makes_its_key_known(api: FakeApi, home: Path) -> None:
    (home / "data" / "ssh").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as guest:
        api.on("GET", "/v1/vms/web/access", ACCESS)
        api.on("POST", "/v1/vms/web/ssh", talk=carried_to(*guest.getsockname()))
        for _ in range(2):
            code, errors, connection = proxied("web.vm")
            assert (code, errors) == (0, "")
            assert connection is not None
            accepted, _ = guest.accept()
            with connection, accepted:
                accepted.sendall(b"SSH-2.0")
                assert connection.recv(16) == b"SSH-2.0"
                assert os.get_blocking(connection.fileno())
                connection.sendall(bytes(1 << 20))
                assert len(received(accepted, 1 << 20)) == 1 << 20
                accepted.sendall(bytes(1 << 20))
                assert len(received(connection, 1 << 20)) == 1 << 20
                accepted.shutdown(socket.SHUT_RDWR)
                assert connection.recv(16) == b""
    assert (home / "data" / "ssh" / "known_hosts").read_text() == "web.vm ssh-ed25519 AAAAkey\n"


def test_proxies_at_the_same_time_lose_no_key(api: FakeApi, home: Path) -> None:
    (home / "data" / "ssh").mkdir(parents=True)
    names = [f"vm{number}" for number in range(6)]
    with socket.create_server(("127.0.0.1", 0)) as guest:
        for name in names:
            api.on("GET", f"/v1/vms/{name}/access", ACCESS)
            api.on("POST", f"/v1/vms/{name}/ssh", talk=carried_to(*guest.getsockname()))
        passed: list[socket.socket | None] = []
        threads = [threading.Thread(target=lambda name=name: passed.append(proxied(f"{name}.vm")[2])) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in passed:
            assert connection is not None
            connection.close()
    known = (home / "data" / "ssh" / "known_hosts").read_text().splitlines()
    assert sorted(line.split()[0] for line in known) == [f"{name}.vm" for name in names]
    assert [path.name for path in (home / "data" / "ssh").iterdir()] == ["known_hosts"]


def test_proxy_tells_why_it_cannot_reach_a_vm(api: FakeApi, home: Path) -> None:
    (home / "data" / "ssh").mkdir(parents=True)
    api.fail("GET", "/v1/vms/web/access", 409, kind="conflict", message='VM "web" is stopped, not running')
    code, errors, connection = proxied("web.vm")
    assert (code, connection) == (4, None)
    assert 'VM "web" is stopped' in errors
    api.on("GET", "/v1/vms/web/access", ACCESS)
    refusal = {"kind": "unavailable", "message": "the guest refuses", "cause": "no ssh", "hint": "banger vm why web"}
    api.on("POST", "/v1/vms/web/ssh", talk=lambda session: session.fail(**refusal))
    code, errors, connection = proxied("web.vm")
    assert (code, connection) == (7, None)
    assert "hint: banger vm why web" in errors


@pytest.mark.parametrize("host", ["", "-x", "../x.vm", "WEB.vm", "a b", ".vm"])
def test_proxy_asks_nobody_about_what_is_no_name(cli: Cli, api: FakeApi, host: str) -> None:
    assert cli("ssh-proxy", "--", host).code == 2
    assert api.calls == []


def test_proxy_run_by_hand_says_what_it_is_for(cli: Cli, api: FakeApi, home: Path) -> None:
    (home / "data" / "ssh").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as guest:
        api.on("GET", "/v1/vms/web/access", ACCESS)
        api.on("POST", "/v1/vms/web/ssh", talk=carried_to(*guest.getsockname()))
        process = banger_process("ssh-proxy", "--", "web.vm")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"banger ssh-config" in errors
