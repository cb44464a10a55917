"""Waits for a VMM's answer that can be abandoned."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from banger.core.cancel import CancelToken


@contextmanager
def abandoned_with(connection: socket.socket, token: CancelToken | None) -> Iterator[None]:
    """A block that waits on ``connection``, which is shut down when ``token`` is cancelled.

    Raises:
        BangerError: ``cancelled`` in place of what the block raises then.
    """
    if token is None:
        yield
        return
    token.raise_if_cancelled()

    def shut_down() -> None:
        with suppress(OSError):  # it is not connected yet: then connecting is bounded by its own timeout
            connection.shutdown(socket.SHUT_RDWR)

    forget = token.on_cancel(shut_down)
    try:
        yield
    except Exception:
        token.raise_if_cancelled()
        raise
    finally:
        forget()
