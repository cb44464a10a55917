"""HTTP sessions whose requests can be aborted from another thread, even while waiting for the response.

``requests`` hands out a connection only with the answer, so a server that does not answer, or one header at a time,
would hold the thread that asks.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, poolmanager
from urllib3.connection import HTTPConnection, HTTPSConnection

from banger.core.cancel import CancelToken
from banger.oci.interrupt import abandonable
from banger.oci.stall_timer import StallTimer

T = TypeVar("T")

_POOL_SIZE = 16
#: The least that is worth an attempt.
_SHORTEST_S = 0.1
_current = threading.local()


class Line:
    """The connection of one exchange."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._cut = False
        self._lock = threading.Lock()

    def run(self, call: Callable[[], T]) -> T:
        """Do ``call``, whose requests in this thread go over this line."""
        _current.line = self
        try:
            return call()
        finally:
            _current.line = None

    def cut(self) -> None:
        """Make whoever reads or writes find the connection broken, now or as soon as there is one."""
        with self._lock:
            self._cut = True
            if self._connection is not None:
                _shut(self._connection)

    def taken_by(self, connection: HTTPConnection) -> None:
        """A request begins; called by the connection itself."""
        with self._lock:
            self._connection = connection
            if self._cut:
                _shut(connection)


def exchange(
    session: requests.Session,
    token: CancelToken,
    stall_timer: StallTimer,
    *,
    connect_s: float,
    read_s: float,
    **request: Any,
) -> requests.Response:
    """Send a request over a ``session`` that :func:`prepared` made ready; the answer's body is still to be read.

    Args:
        session: what it is sent over.
        token: ends every wait.
        stall_timer: how long it may take altogether.
        connect_s: for the connection.
        read_s: for the first byte, and later for each next one.
        request: what ``requests`` calls its arguments; redirects are not followed.

    Raises:
        BangerError: ``cancelled``.
        OSError, requests.RequestException: of the network; ``TimeoutError`` at the end of the stall_timer.
    """
    line, left_s = Line(), max(stall_timer.left_s(), _SHORTEST_S)

    def call() -> requests.Response:
        timeout = (min(connect_s, left_s), min(read_s, left_s))
        try:
            return session.request(stream=True, auth=_keep_headers, timeout=timeout, allow_redirects=False, **request)
        except requests.RequestException:
            raise
        except (
            ValueError
        ) as error:  # a server redirects to what urllib takes for no address, and requests lets that pass
            raise requests.exceptions.InvalidURL(str(error)) from error

    return abandonable(token, lambda: line.run(call), requests.Response.close, cut=line.cut, left_s=stall_timer.left_s)


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth hook that adds nothing: without one, ``requests`` puts logins of ``.netrc`` over our own header."""
    return request


def prepared(session: requests.Session) -> requests.Session:
    """Make what ``session`` sends go over the :class:`Line` of its thread, once only, and without cookies.

    A registry that gave a cookie takes who brings it for a browser, and wants a token against forged requests (Harbor).
    """
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_maxsize=_POOL_SIZE, max_retries=0))
    return session


def _shut(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            # Not the method of a TLS socket, which would also take its state from the thread that is using it.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    def request(self, *arguments: Any, **named: Any) -> None:
        _take_line(self)
        super().request(*arguments, **named)


class _TlsConnection(HTTPSConnection):
    def request(self, *arguments: Any, **named: Any) -> None:
        _take_line(self)
        super().request(*arguments, **named)


def _take_line(connection: HTTPConnection) -> None:
    line: Line | None = getattr(_current, "line", None)
    if line is not None:
        line.taken_by(connection)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **named)
        _use_pools(manager)
        return manager


def _use_pools(manager: PoolManager) -> None:
    # A manager for SOCKS has pools of its own, which are the proxy: those stay, and cannot be cut.
    if manager.pool_classes_by_scheme is poolmanager.pool_classes_by_scheme:
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
