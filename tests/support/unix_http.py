"""``requests`` over a Unix socket, for tools that speak nothing else."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

#: What the requests are addressed to; any name would do.
BASE_URL = "http://banger"


class _Connection(HTTPConnection):
    def __init__(self, *, path: Path, **facts: Any) -> None:
        super().__init__("banger", **facts)
        self._path = path

    def _new_conn(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        return sock


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("banger")
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(path=self._path, timeout=self.timeout.connect_timeout)


class _Adapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = _Pool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> _Pool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


def unix_session(path: Path) -> requests.Session:
    """A session whose requests all go to the socket at ``path``, whatever the surroundings say about proxies."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", _Adapter(path))
    return session
