"""The kept connections: making them, losing them, and what actors ask of them."""

from __future__ import annotations

import asyncio
import logging
import pwd
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.models import GuestAccess
from banger.core.operation import Operation
from banger.guest import channel_dial, channel_link
from banger.guest.sshkeys import ensure_key
from tests.support.channels import Channels, channels, operation, read_until
from tests.support.dropbear import Forward, Guest, dropbear, free_port, needs_dropbear, new_host_key_line
from tests.support.waiting import eventually

pytestmark = [needs_dropbear, pytest.mark.root]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with dropbear(tmp_path_factory.mktemp("guest")) as running:
        yield running


@pytest.fixture
def channel() -> Iterator[Channels]:
    with channels() as made:
        yield made


@pytest.fixture
def forward(guest: Guest) -> Iterator[Forward]:
    with Forward(guest.access.port) as running:
        yield running


@pytest.fixture
def access(guest: Guest, forward: Forward) -> GuestAccess:
    """The guest, reached through the forward."""
    return replace(guest.access, port=forward.port)


def test_connect_is_kept_for_everything_after_it(channel: Channels, access: GuestAccess, forward: Forward) -> None:
    channel.guests.connect(access, operation(), 10)
    channel.guests.connect(access, operation(), 10)
    assert channel.guests.run(access, "banger-tool echo hello", 10) == (0, b"hello\n")
    assert channel.exec(access, "true").status.code == 0
    assert forward.accepted == 1


def test_commands_one_after_the_other_share_one_connection(
    channel: Channels, access: GuestAccess, forward: Forward
) -> None:
    for _ in range(10):
        assert channel.exec(access, "true").status.code == 0
    assert forward.accepted == 1


def test_commands_at_the_same_time_each_run_once_and_undisturbed(
    channel: Channels, access: GuestAccess, forward: Forward, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    async def caller(number: int) -> list[bytes]:
        script = f'echo {number} >>"{log}"; echo {number}'
        return [(await channel.exec_async(access, "sh", "-c", script)).stdout for _ in range(15)]

    async def together() -> list[list[bytes]]:
        return await asyncio.gather(*[caller(number) for number in range(8)])

    assert channel.do(together()) == [[f"{number}\n".encode()] * 15 for number in range(8)]
    assert sorted(log.read_text().split()) == sorted(str(number) for number in range(8) for _ in range(15))
    eventually(lambda: forward.carried <= 4, what="the connections beyond a few are closed")


def test_connect_guest_still_booting_is_tried_until_it_answers(channel: Channels, tmp_path: Path) -> None:
    port = free_port()
    with dropbear(tmp_path, port=port) as first:
        access = first.access
    connecting = threading.Thread(target=channel.guests.connect, args=(access, operation(), 20))
    connecting.start()
    with dropbear(tmp_path, port=port):
        connecting.join(20)
        assert channel.guests.run(access, "banger-tool echo up", 10) == (0, b"up\n")


def test_connect_forward_that_swallows_the_first_attempts_does_not_hold_up_the_next(
    channel: Channels, access: GuestAccess, forward: Forward
) -> None:
    forward.mute = True
    connecting = threading.Thread(target=channel.guests.connect, args=(access, operation(), 20))
    connecting.start()
    eventually(lambda: forward.accepted >= 3)
    forward.mute = False
    connecting.join(5)
    assert not connecting.is_alive()


def test_connect_guest_that_is_slow_is_waited_for_and_not_flooded(
    channel: Channels, access: GuestAccess, forward: Forward
) -> None:
    """An emulated guest on a busy host takes a second for its first bytes; each attempt more makes it slower."""
    forward.late_s = 1.2
    started = time.monotonic()
    connecting = threading.Thread(target=channel.guests.connect, args=(access, operation(), 20))
    connecting.start()
    connecting.join(15)
    assert not connecting.is_alive()
    assert forward.accepted <= 3
    assert time.monotonic() - started < 6, "the first attempt was waited for"


@pytest.mark.parametrize("mute", [True, False], ids=["silent", "refusing"])
def test_connect_nobody_answers_times_out_with_the_reason(
    channel: Channels, access: GuestAccess, forward: Forward, mute: bool
) -> None:
    forward.mute = mute
    if not mute:
        access = replace(access, port=free_port())
    with pytest.raises(BangerError) as caught:
        channel.guests.connect(access, operation(), 0.5)
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert caught.value.cause
    assert caught.value.hint == f"banger vm logs {access.vm_id}"


def test_connect_cancelled_leaves_at_once(channel: Channels, access: GuestAccess, forward: Forward) -> None:
    forward.mute = True
    asked = operation()
    outcome: list[BangerError] = []

    def connect() -> None:
        try:
            channel.guests.connect(access, asked, 60)
        except BangerError as error:
            outcome.append(error)

    connecting = threading.Thread(target=connect)
    connecting.start()
    eventually(lambda: forward.accepted)
    started = time.monotonic()
    asked.cancel("enough")
    connecting.join(5)
    assert time.monotonic() - started < 3
    assert (outcome[0].kind, outcome[0].message) == (ErrorKind.CANCELLED, "enough")
    accepted = forward.accepted
    channel.do(asyncio.sleep(0.5))
    assert forward.accepted == accepted


def test_connect_already_cancelled_does_not_begin(channel: Channels, access: GuestAccess, forward: Forward) -> None:
    asked = operation()
    asked.cancel()
    with pytest.raises(BangerError) as caught:
        channel.guests.connect(access, asked, 10)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert forward.accepted == 0


def test_connect_wrong_host_key_is_denied_and_not_tried_again(
    channel: Channels, access: GuestAccess, forward: Forward
) -> None:
    with pytest.raises(BangerError) as caught:
        channel.guests.connect(replace(access, host_key=new_host_key_line()), operation(), 30)
    assert caught.value.kind is ErrorKind.DENIED
    assert "not the guest" in caught.value.message
    assert forward.accepted == 1


def test_connect_key_the_guest_does_not_know_is_denied(channel: Channels, access: GuestAccess, tmp_path: Path) -> None:
    ensure_key(tmp_path / "other")
    with pytest.raises(BangerError) as caught:
        channel.guests.connect(replace(access, private_key_path=str(tmp_path / "other")), operation(), 30)
    assert caught.value.kind is ErrorKind.DENIED
    assert "banger's key" in caught.value.message


GARBAGE = {
    "nothing, and hangs up": [b""],
    "web server": [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"],
    "noise": [bytes(range(256)) * 64],
    "zeros without end": [bytes(1 << 16)] * 4096,
    "line without end": [b"x" * (1 << 16)] * 4096,
    "banner lines without end": [b"hello\r\n" * 8192] * 4096,
    "another version": [b"SSH-1.5-old\r\n"],
    "noise after the version": [b"SSH-2.0-x\r\n", bytes(range(256)) * 64],
    "packet of four gigabytes": [b"SSH-2.0-x\r\n", b"\xff\xff\xff\xff", bytes(1 << 20)],
    "version and no more": [b"SSH-2.0-x\r\n", None],
}


def test_connect_what_answers_with_garbage_is_given_up_in_bounded_memory(access: GuestAccess) -> None:
    """A guest that was taken over, or something else at its port: all kinds at once, as long as the longest takes."""

    async def answer(pieces: list[bytes | None], writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            for piece in pieces:
                if piece is None:
                    await asyncio.sleep(60)
                else:
                    writer.write(piece)
                    await writer.drain()
        writer.close()

    async def attempt(pieces: list[bytes | None]) -> BangerError:
        server = await asyncio.start_server(lambda _, writer: answer(pieces, writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(BangerError) as raised:
                await channel_dial.dial(replace(access, port=port), 1.5)
        finally:
            server.close()
        return raised.value

    async def attempts() -> list[BangerError]:
        found = await asyncio.gather(*map(attempt, GARBAGE.values()))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return found

    tracemalloc.start()
    errors = asyncio.run(asyncio.wait_for(attempts(), 60))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for kind, error in zip(GARBAGE, errors, strict=True):
        assert error.kind in (ErrorKind.TIMEOUT, ErrorKind.DENIED), kind
    assert peak < 32 << 20


def test_connect_our_key_missing_is_unavailable(channel: Channels, access: GuestAccess, tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        channel.guests.connect(replace(access, private_key_path=str(tmp_path / "none")), operation(), 30)
    assert caught.value.kind is ErrorKind.UNAVAILABLE


def test_connect_and_commands_are_not_logged(
    channel: Channels, access: GuestAccess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel.guests.run(access, "banger-tool echo secret", 10)
    assert "secret" not in caplog.text
    assert not caplog.records


def test_run_failing_command_gives_code_and_both_streams(channel: Channels, access: GuestAccess) -> None:
    code, printed = channel.guests.run(access, "banger-tool sh -c 'echo out; echo err >&2; exit 4'", 10)
    assert code == 4
    assert sorted(printed.split()) == [b"err", b"out"]


def test_run_that_takes_too_long_is_a_timeout(channel: Channels, access: GuestAccess) -> None:
    with pytest.raises(BangerError) as caught:
        channel.guests.run(access, "banger-tool sleep 30", 0.3)
    assert caught.value.kind is ErrorKind.TIMEOUT


def test_run_endless_output_is_cut_and_read_on(channel: Channels, access: GuestAccess) -> None:
    code, printed = channel.guests.run(access, "banger-tool head -c 3000000 /dev/zero", 10)
    assert (code, len(printed)) == (0, 1 << 20)


def test_session_connection_lost_meanwhile_is_an_unknown_outcome(
    channel: Channels, access: GuestAccess, forward: Forward
) -> None:
    async def scenario() -> list[BangerError]:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", "echo begun; sleep 60")))
        await read_until(session, b"begun")
        forward.cut()
        errors = []
        for ending in (session.wait(), read_until(session, b"never")):
            with pytest.raises(BangerError) as caught:
                await ending
            errors.append(caught.value)
        assert not await session.write_stdin(b"x")
        session.send_signal("INT")
        await session.close()
        return errors

    for error in channel.do(scenario()):
        assert error.kind is ErrorKind.UNKNOWN_OUTCOME
        assert error.message == "lost the connection to the guest"
        assert error.hint == f"banger vm why {access.vm_id}"


def test_session_guest_that_falls_silent_is_given_up(
    channel: Channels, access: GuestAccess, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_dial, "_KEEPALIVE_INTERVAL_S", 0.1)

    async def scenario() -> BangerError:
        session = await channel.guests.open_session(access, ExecRequest(("sleep", "60")))
        with pytest.raises(TimeoutError):  # a quiet command is no silent guest
            await asyncio.wait_for(session.wait(), 1)
        forward.freeze()
        with pytest.raises(BangerError) as caught:
            await asyncio.wait_for(session.wait(), 5)
        return caught.value

    error = channel.do(scenario())
    assert error.kind is ErrorKind.UNKNOWN_OUTCOME
    assert "keepalive" in error.cause


def test_connect_of_a_user_without_a_name_works(access: GuestAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with channels() as nameless:
        assert nameless.exec(access, "true").status.code == 0


class _Deaf(asyncssh.SSHServer):
    """Logs everybody in, and never answers a wish for a channel."""

    def begin_auth(self, _username: str) -> bool:
        return False

    def session_requested(self) -> Any:
        return asyncio.sleep(600)


def test_session_guest_that_does_not_answer_the_wish_for_one_is_given_up(
    channel: Channels, access: GuestAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_link, "_START_TIMEOUT_S", 0.3)
    host_key = asyncssh.generate_private_key("ssh-ed25519")

    async def scenario() -> BangerError:
        options = {"server_host_keys": [host_key], "encryption_algs": ["chacha20-poly1305@openssh.com"]}
        async with await asyncssh.create_server(_Deaf, "127.0.0.1", 0, **options) as server:
            line = host_key.export_public_key().decode()
            deaf = replace(access, vm_id="deaf", port=server.get_port(), host_key=line)
            with pytest.raises(BangerError) as caught:
                await channel.guests.open_tool(deaf, ["true"])
            assert channel.guests.connections("deaf")[1] == 0
            return caught.value

    error = channel.do(scenario())
    assert error.kind is ErrorKind.UNAVAILABLE
    assert "no answer within 0.3 s" in error.cause


def test_session_vm_disconnected_meanwhile_is_an_unknown_outcome(channel: Channels, access: GuestAccess) -> None:
    async def scenario() -> BangerError:
        session = await channel.guests.open_session(access, ExecRequest(("sh", "-c", "echo begun; sleep 60")))
        await read_until(session, b"begun")
        channel.guests.disconnect(access.vm_id)
        with pytest.raises(BangerError) as caught:
            await session.wait()
        return caught.value

    assert channel.do(scenario()).message == "lost the connection to the guest"


@pytest.mark.parametrize("noticed", [True, False])
def test_open_session_after_the_connection_was_lost_connects_anew(
    channel: Channels, access: GuestAccess, forward: Forward, noticed: bool
) -> None:
    async def together() -> list[int]:
        await asyncio.gather(*[channel.exec_async(access, "true") for _ in range(3)])
        await channel.exec_async(access, "true")  # by now the others' connections are idle, too
        forward.cut()
        if noticed:
            await asyncio.sleep(0.1)
        done = await asyncio.gather(*[channel.exec_async(access, "true") for _ in range(4)])
        return [one.status.code for one in done]

    assert channel.do(together()) == [0, 0, 0, 0]


def test_open_session_without_a_connection_makes_one(channel: Channels, access: GuestAccess) -> None:
    assert channel.exec(access, "echo", "adopted").stdout == b"adopted\n"


@pytest.mark.parametrize("connected", [True, False])
def test_open_session_guest_gone_is_unavailable_and_says_what_to_type(
    channel: Channels, tmp_path: Path, connected: bool
) -> None:
    with dropbear(tmp_path) as gone:
        if connected:
            channel.guests.connect(gone.access, operation(), 10)
    with pytest.raises(BangerError) as caught:
        channel.exec(gone.access, "true")
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.hint == f"banger vm why {gone.access.vm_id}"


def test_open_session_restarted_guest_on_another_port_is_reached(channel: Channels, tmp_path: Path) -> None:
    for _ in range(2):
        with dropbear(tmp_path) as running:
            channel.guests.connect(running.access, operation(), 10)
            assert channel.exec(running.access, "true").status.code == 0


def test_disconnect_closes_the_connection(channel: Channels, access: GuestAccess, forward: Forward) -> None:
    channel.guests.connect(access, operation(), 10)
    channel.guests.disconnect(access.vm_id)
    channel.guests.disconnect(access.vm_id)
    channel.guests.disconnect("never-seen")
    channel.guests.connect(access, operation(), 10)
    assert forward.accepted == 2


def test_disconnect_while_connecting_keeps_nothing(channel: Channels, access: GuestAccess, forward: Forward) -> None:
    forward.mute = True
    outcome: list[BangerError] = []

    def connect(asked: Operation) -> None:
        try:
            channel.guests.connect(access, asked, 20)
        except BangerError as error:
            outcome.append(error)

    connecting = threading.Thread(target=connect, args=(operation(),))
    connecting.start()
    eventually(lambda: forward.accepted)
    channel.guests.disconnect(access.vm_id)
    forward.mute = False
    connecting.join(10)
    assert outcome[0].kind is ErrorKind.UNAVAILABLE


def test_stopped_loop_is_answered_as_cancelled(guest: Guest) -> None:
    with channels() as made:
        pass
    with pytest.raises(BangerError) as caught:
        made.guests.run(guest.access, "banger-tool true", 5)
    assert caught.value.kind is ErrorKind.CANCELLED
    made.guests.disconnect(guest.access.vm_id)
