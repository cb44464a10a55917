"""What people get wrong, and what the world does to them: each has its own message, hint and exit code, and no rest."""

from __future__ import annotations

import base64
import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from banger.core.errors import EXIT_CODES, ErrorKind
from tests.support import images
from tests.support.command import Result
from tests.support.daemon import NOBODY, BangerHome, banger_home
from tests.support.images import TestImage
from tests.support.programs import missing_programs
from tests.support.registry import LocalRegistry, running_registry

#: `vm run` says this whenever the command in the guest was never reached, so that its own codes stay its own.
NEVER_RAN = 125


def check_refusal(result: Result, kind: ErrorKind, *words: str, code: int | None = None) -> None:
    """A failed command ended with its kind's exit code and told what, and what to do about it."""
    assert result.code == (EXIT_CODES[kind] if code is None else code), str(result)
    assert result.output == b"", str(result)
    assert any(line.startswith("error: ") for line in result.errors.splitlines()), str(result)
    assert "hint: " in result.errors, str(result)
    assert "Traceback" not in result.errors, str(result)
    for word in words:
        assert word in result.errors, str(result)


@pytest.fixture
def tidy(home: BangerHome) -> Iterator[BangerHome]:
    """The shared installation; what the test refused must have left nothing in it."""
    vms = {vm["name"] for vm in home.json("vm", "list")}
    vmms = set(home.vmms())
    yield home
    assert {vm["name"] for vm in home.json("vm", "list")} == vms
    assert set(home.vmms()) == vmms
    assert home.leftovers() == []


@pytest.fixture
def twins(home: BangerHome, busybox: str) -> Iterator[tuple[str, str]]:
    """Two VMs, never started, whose names begin alike."""
    names = ("twin-one", "twin-two")
    for name in names:
        home.run("vm", "create", "--name", name, busybox).ok()
    yield names
    home.run("vm", "delete", *names).ok()


@pytest.mark.parametrize("noun", ["vm", "image", "kernel"])
def test_unknown_name_is_not_found(tidy: BangerHome, noun: str) -> None:
    check_refusal(tidy.run(noun, "show", "nowhere"), ErrorKind.NOT_FOUND, f'{noun} "nowhere" not found')


def test_misspelt_name_is_corrected(tidy: BangerHome, busybox: str) -> None:
    check_refusal(tidy.run("image", "show", "bsuybox"), ErrorKind.NOT_FOUND, f'did you mean "{busybox}"?')


@pytest.mark.registry
def test_image_that_the_registry_does_not_have_is_not_found(tidy: BangerHome, registry: LocalRegistry) -> None:
    reference = registry.reference("test/nowhere:latest")
    check_refusal(tidy.run("image", "pull", reference), ErrorKind.NOT_FOUND, "test/nowhere")
    check_refusal(tidy.run("vm", "run", reference, "--", "true"), ErrorKind.NOT_FOUND, "test/nowhere", code=NEVER_RAN)


def test_ambiguous_prefix_lists_the_candidates(home: BangerHome, twins: tuple[str, str]) -> None:
    check_refusal(home.run("vm", "show", "twin"), ErrorKind.AMBIGUOUS, *twins)
    check_refusal(home.run("vm", "delete", "twin"), ErrorKind.AMBIGUOUS, *twins)


@pytest.mark.parametrize("noun", ["vm", "image", "kernel"])
@pytest.mark.parametrize("verb", ["show", "delete"])
def test_empty_name_is_a_usage_error(tidy: BangerHome, noun: str, verb: str) -> None:
    check_refusal(tidy.run(noun, verb, ""), ErrorKind.USAGE, 'the name "" is empty')


@pytest.mark.parametrize("name", ["Upper", "9lives", "under_score", "-dash", "a" * 41, "sp ace", "../up"])
def test_invalid_vm_name_is_a_usage_error(tidy: BangerHome, busybox: str, name: str) -> None:
    check_refusal(tidy.run("vm", "create", f"--name={name}", busybox), ErrorKind.USAGE, name)


def test_name_in_use_is_already_there(home: BangerHome, busybox: str, twins: tuple[str, str]) -> None:
    check_refusal(home.run("vm", "create", "--name", twins[0], busybox), ErrorKind.ALREADY_EXISTS, twins[0])


def test_registry_that_is_down_is_unavailable(tidy: BangerHome) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        reference = f"127.0.0.1:{closed.getsockname()[1]}/test/app:1"
        check_refusal(tidy.run("image", "pull", reference), ErrorKind.UNAVAILABLE, "127.0.0.1")


@pytest.mark.registry
@pytest.mark.skipif(bool(missing_programs("htpasswd", "docker-registry")), reason="needs htpasswd and docker-registry")
@pytest.mark.parametrize("password", ["wrong", None], ids=["wrong", "none"])
def test_wrong_credentials_are_denied(fresh_home: BangerHome, tmp_path: Path, password: str | None) -> None:
    with running_registry(tmp_path / "registry", ("alice", "s3cret")) as registry:
        images.push(images.busybox(), registry, "private/app:1")
        if password:
            docker = fresh_home.path / ".docker"
            docker.mkdir()
            (docker / "config.json").write_text(
                json.dumps({"auths": {registry.host: {"auth": _basic("alice", password)}}})
            )
        result = fresh_home.run("image", "pull", registry.reference("private/app:1"))
    check_refusal(result, ErrorKind.DENIED, registry.host)
    assert fresh_home.leftovers() == []


@pytest.mark.registry
def test_right_credentials_are_accepted(fresh_home: BangerHome, tmp_path: Path) -> None:
    """Guards the test above: it is the credentials that are refused."""
    if missing_programs("htpasswd", "docker-registry"):
        pytest.skip("needs htpasswd and docker-registry")
    with running_registry(tmp_path / "registry", ("alice", "s3cret")) as registry:
        images.push(images.busybox(), registry, "private/app:1")
        (fresh_home.path / ".docker").mkdir()
        login = {"auths": {registry.host: {"auth": _basic("alice", "s3cret")}}}
        (fresh_home.path / ".docker" / "config.json").write_text(json.dumps(login))
        fresh_home.run("image", "pull", registry.reference("private/app:1")).ok()


@pytest.mark.registry
def test_blob_that_does_not_match_its_digest_is_invalid(fresh_home: BangerHome, tmp_path: Path) -> None:
    if missing_programs("docker-registry"):
        pytest.skip("needs docker-registry")
    image = images.busybox()
    with running_registry(tmp_path / "registry") as registry:
        reference = images.push(image, registry, "test/tampered:1")
        layer = max((image.layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
        stored = next((tmp_path / "registry").rglob(f"sha256/*/{layer.name}/data"))
        data = bytearray(stored.read_bytes())
        data[len(data) // 2] ^= 0xFF
        stored.write_bytes(data)
        result = fresh_home.run("image", "pull", reference)
    check_refusal(result, ErrorKind.INVALID, layer.name[:12])
    assert fresh_home.leftovers() == []
    assert fresh_home.json("image", "list") == []


@pytest.mark.registry
def test_digest_that_nobody_has_is_not_found(tidy: BangerHome, registry: LocalRegistry) -> None:
    reference = registry.reference("test/busybox@sha256:" + "0" * 64)
    check_refusal(tidy.run("image", "pull", reference), ErrorKind.NOT_FOUND, "0" * 12)


@pytest.mark.registry
def test_image_for_another_architecture_is_invalid(tidy: BangerHome, pushed: Callable[[TestImage], str]) -> None:
    check_refusal(tidy.run("image", "pull", pushed(images.foreign())), ErrorKind.INVALID, "s390x")


@pytest.mark.registry
@pytest.mark.root
def test_disk_without_room_is_exhausted(session_root: Path, pushed: Callable[[TestImage], str]) -> None:
    reference = pushed(images.debian())
    with banger_home(session_root) as small, _small_disk(small.data):
        check_refusal(small.run("image", "pull", reference), ErrorKind.EXHAUSTED)
        assert small.leftovers() == []
        small.run("daemon", "stop").ok()


def test_more_memory_than_the_host_has_is_exhausted(tidy: BangerHome, busybox: str) -> None:
    run = tidy.run("vm", "run", "--memory", "64T", busybox, "--", "true")
    check_refusal(run, ErrorKind.EXHAUSTED, "memory", code=NEVER_RAN)


@pytest.mark.boot
def test_port_that_is_taken_is_a_conflict(tidy: BangerHome, busybox: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = tidy.run("vm", "run", "-p", f"{port}:80", busybox, "--", "true")
    check_refusal(run, ErrorKind.CONFLICT, str(port), code=NEVER_RAN)


@pytest.mark.parametrize("content", [b"", b"no kernel\n" * 1000, b"\x7fELF" + bytes(200), b"MZ" + bytes(2000)])
def test_file_that_is_no_kernel_is_invalid(tidy: BangerHome, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(content)
    check_refusal(tidy.run("kernel", "import", "broken", str(file)), ErrorKind.INVALID, "vmlinuz")
    assert "broken" not in {kernel["name"] for kernel in tidy.json("kernel", "list")}


def test_kernel_file_that_is_not_there_is_not_found(tidy: BangerHome) -> None:
    check_refusal(tidy.run("kernel", "import", "broken", "/no/such/kernel"), ErrorKind.NOT_FOUND, "/no/such/kernel")


@pytest.mark.root
def test_no_daemon_and_no_permission_to_start_one_is_denied(session_root: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can take a right away")
    with banger_home(session_root, NOBODY) as locked:
        os.chown(locked.path, 0, 0)
        locked.path.chmod(0o755)
        check_refusal(locked.run("vm", "list"), ErrorKind.DENIED, str(locked.path))
        assert sorted(locked.path.iterdir()) == []


def test_state_directory_of_a_newer_version_is_refused_and_left_alone(fresh_home: BangerHome) -> None:
    fresh_home.run("vm", "list").ok()
    fresh_home.run("daemon", "stop").ok()
    database = fresh_home.data / "banger.db"
    _pretend_newer(database)
    before = database.read_bytes()
    result = fresh_home.run("vm", "list")
    assert result.code in (EXIT_CODES[ErrorKind.INVALID], EXIT_CODES[ErrorKind.UNAVAILABLE]), str(result)
    assert "newer" in result.errors
    assert "hint: " in result.errors
    assert database.read_bytes() == before


def test_refusal_as_json_has_kind_message_and_hint(tidy: BangerHome) -> None:
    error = tidy.run("vm", "show", "--json", "nowhere").error()
    assert (error["kind"], error["subject"]) == ("not_found", "nowhere")
    assert error["message"] == 'vm "nowhere" not found'
    assert error["hint"]


@pytest.mark.parametrize("argv", [["vm", "list", "--nonsense"], ["nonsense"], ["vm"], ["vm", "run", "--cpus", "many"]])
def test_misuse_of_the_command_line_is_a_usage_error(tidy: BangerHome, argv: list[str]) -> None:
    result = tidy.run(*argv)
    assert result.code == EXIT_CODES[ErrorKind.USAGE] or (argv == ["vm"] and result.code == 0)
    assert "Traceback" not in result.errors


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    """A file system of eight megabytes at ``path``."""
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "banger-test", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _pretend_newer(database: Path) -> None:
    """Raise the schema's number, as a later banger would have."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 9999")
