"""Connecting to the ssh server of a guest that may still be booting, and verifying its host key."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import asyncssh

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess

#: A new attempt starts this long after the one before, half as long again each time. Earlier ones go on meanwhile: for
#: a guest whose network is not up QEMU accepts and retransmits late, so the next often answers before the last.
#: Not sooner: to a guest that is up but slow, each attempt is one process more, and dropbear takes five before a login.
_FIRST_INTERVAL_S, _INTERVAL_GROWTH, _LONGEST_INTERVAL_S = 0.5, 1.5, 2.0
#: How long an attempt waits for the server's first bytes: as long as a slow guest takes, however early the attempt is.
_PATIENCE_S = 10.0
#: After an answer that led to nothing.
_PAUSE_S = 0.1
#: For the server's first bytes when the guest is known to run.
_ANSWER_TIMEOUT_S = 10.0
#: Key exchange and login: a few milliseconds, but up to seconds in an emulated guest on a busy host.
_HANDSHAKE_TIMEOUT_S = 30.0
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 15, 4


async def dial(access: GuestAccess, timeout_s: float) -> asyncssh.SSHClientConnection:
    """Connect to a guest that may still be booting, trying again until ``timeout_s`` has passed.

    Raises:
        BangerError: ``denied`` at once if the host key is not the guest's own or the guest refuses banger's key;
            ``timeout``; ``unavailable`` if banger's key cannot be read.
    """
    options = _options(access)
    trouble = _Trouble()
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await _log_in(await _first_answer(access, trouble), options, access)
                except (OSError, asyncssh.Error) as error:
                    trouble.last = str(error)
                    await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise BangerError(
            ErrorKind.TIMEOUT,
            f"the guest did not answer within {timeout_s:g} s",
            subject=access.vm_id,
            cause=trouble.last,
            hint=f"banger vm logs {access.vm_id}",
        ) from None


async def redial(access: GuestAccess) -> asyncssh.SSHClientConnection:
    """Connect once to a guest that ran a moment ago. Raises ``denied`` as :func:`dial` does, or ``unavailable``."""
    options = _options(access)
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answering = await _answering_socket(access)
        return await _log_in(answering, options, access)
    except (OSError, asyncssh.Error) as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            "the guest cannot be reached",
            subject=access.vm_id,
            cause=str(error) or "no answer",
            hint=f"banger vm why {access.vm_id}",
        ) from error


class _Trouble:
    """Why the last attempt failed: told if none succeeds."""

    last = "no answer"


def _options(access: GuestAccess) -> asyncssh.SSHClientConnectionOptions:
    """Say everything that asyncssh would otherwise look up in the user's own configuration.

    dropbear 2022.83 drops a client that offers as many algorithms as asyncssh does by itself, hence the short lists.
    The cipher costs our side as much as ``aes128-ctr`` with ``hmac-sha2-256``, and dropbear's half as much.
    """
    try:
        return asyncssh.SSHClientConnectionOptions(
            username=access.user,
            client_keys=[access.private_key_path],
            known_hosts=([asyncssh.import_public_key(access.host_key)], [], []),
            server_host_key_algs=["ssh-ed25519"],
            kex_algs=["curve25519-sha256"],
            encryption_algs=["chacha20-poly1305@openssh.com"],
            compression_algs=["none"],
            signature_algs=["ssh-ed25519"],
            preferred_auth=["publickey"],
            x509_trusted_certs=None,
            agent_path=None,
            gss_kex=False,
            gss_auth=False,
            login_timeout=_HANDSHAKE_TIMEOUT_S,
            keepalive_interval=_KEEPALIVE_INTERVAL_S,
            keepalive_count_max=_KEEPALIVE_COUNT,
        )
    except (OSError, ValueError) as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            "cannot prepare the keys for the guest",
            subject=access.vm_id,
            cause=str(error),
            hint="banger doctor",
        ) from error


async def _log_in(
    answering: socket.socket, options: asyncssh.SSHClientConnectionOptions, access: GuestAccess
) -> asyncssh.SSHClientConnection:
    try:
        return await asyncssh.run_client(answering, config=None, options=options)
    except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
        raise BangerError(
            ErrorKind.DENIED,
            "what answers at the guest's address is not the guest",
            subject=access.vm_id,
            cause=str(error),
            hint=f"banger vm why {access.vm_id}",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise BangerError(
            ErrorKind.DENIED,
            "the guest does not accept banger's key",
            subject=access.vm_id,
            cause=str(error),
            hint=f"banger vm stop {access.vm_id} && banger vm start {access.vm_id}",
        ) from error


async def _first_answer(access: GuestAccess, trouble: _Trouble) -> socket.socket:
    """Start attempt after attempt; the first that the server talks to wins and the others are dropped."""
    answered: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    attempts: set[asyncio.Task[None]] = set()
    interval = _FIRST_INTERVAL_S
    try:
        while not answered.done():
            attempt = asyncio.create_task(_attempt(access, answered, trouble))
            attempts.add(attempt)
            attempt.add_done_callback(attempts.discard)
            either: set[asyncio.Future[Any]] = {answered, attempt}
            await asyncio.wait(either, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done() and attempt.done():  # refused: it costs a guest nothing to be asked again soon
                await asyncio.sleep(_PAUSE_S)
            interval = min(interval * _INTERVAL_GROWTH, _LONGEST_INTERVAL_S)
    except asyncio.CancelledError:
        if answered.done():
            answered.result().close()
        raise
    finally:
        for attempt in attempts:
            attempt.cancel()
    return answered.result()


async def _attempt(access: GuestAccess, answered: asyncio.Future[socket.socket], trouble: _Trouble) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            answering = await _answering_socket(access)
    except OSError as error:  # a TimeoutError is one too
        trouble.last = str(error) or "no answer"
        return
    if answered.done():
        answering.close()
    else:
        answered.set_result(answering)


async def _answering_socket(access: GuestAccess) -> socket.socket:
    """A socket to the guest on which the server's first bytes wait to be read. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    connecting = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await loop.sock_connect(connecting, (access.host, access.port))
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connecting, _mark_readable, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connecting)
        if not connecting.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("the guest closed the connection")  # noqa: TRY301 - closed below like any other
    except BaseException:
        connecting.close()
        raise
    return connecting


def _mark_readable(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
