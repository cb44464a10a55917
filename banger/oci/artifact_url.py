"""A file at a URL as an origin for the blob store, with resume, verification and shared transfers."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import whole_number
from banger.oci import failures
from banger.oci.bodies import ResponseBody
from banger.oci.registry import DEFAULT_TIMEOUTS, Timeouts, is_loopback
from banger.oci.retry import PATIENT, Retrier, RetryPolicy, TransientError
from banger.oci.sessions import exchange, prepared
from banger.oci.stall_timer import StallTimer, without_repeats

_MOST_REDIRECTS = 5
_TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})


class UrlOrigin:
    """One file of one web server. Sends no credentials and keeps no cookies."""

    def __init__(
        self,
        url: str,
        token: CancelToken,
        *,
        insecure: str = "",
        note: Callable[[str], None] = lambda _: None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = PATIENT,
    ) -> None:
        """Connects to nothing yet.

        Args:
            url: what is fetched, without a fragment.
            token: cancels every wait.
            insecure: hosts that may be talked to over plain http, separated by commas; loopback always may.
            note: told about long pauses.
            timeouts: of each exchange.
            retry: how often and how patiently failures are tried again.
        """
        self.token = token
        self._url = url
        self._insecure = {host.strip() for host in insecure.split(",")}
        self._note = without_repeats(note)
        self._timeouts = timeouts
        self._retry = retry
        self._session = prepared(requests.Session())
        # Neither a proxy nor a login of .netrc has anything to say about the loopback of this host.
        self._session.trust_env = not is_loopback(urlsplit(url).netloc)

    def retrier(self) -> Retrier:
        """A fresh failure counter."""
        who = f'server "{urlsplit(self._url).netloc}"'
        return Retrier(self._retry, self.token, self._note, StallTimer(who, self._timeouts.stall_s, self._note))

    def size(self) -> int:
        """Length of the file in bytes; raises ``unavailable`` if the server does not tell.

        Asked by starting a transfer and dropping it: not every server answers HEAD, and those that sign their links
        do not let the same link be used for it.
        """
        retrier = self.retrier()

        def ask() -> str:
            with self._get({}, retrier.stall_timer) as response:
                return response.headers.get("Content-Length", "")

        size = whole_number(retrier.run(ask))
        if size is None:
            raise self._cannot("the server does not say how long it is")
        return size

    def open_blob(self, digest: str, offset: int, stall_timer: StallTimer) -> ResponseBody:  # noqa: ARG002  # of an origin
        """Start a transfer from ``offset``, or from 0 if the server can't do that."""
        response = self._get({"Range": f"bytes={offset}-"} if offset else {}, stall_timer)
        resumed = response.status_code == 206
        if response.status_code == 416 or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        ):
            response.close()
            response, resumed = self._get({}, stall_timer), False
        return ResponseBody(response, offset if resumed else 0, self.token, stall_timer, self.broken)

    def _get(self, headers: dict[str, str], stall_timer: StallTimer) -> requests.Response:
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            self._check_scheme(url)
            response = self._send(url, {"Accept-Encoding": "identity", **headers}, stall_timer)
            if not response.is_redirect:
                return self._checked(response)
            url = urljoin(url, response.headers["Location"])
            response.close()
        raise self._cannot("the server redirects in circles")

    def _send(self, url: str, headers: dict[str, str], stall_timer: StallTimer) -> requests.Response:
        try:
            return exchange(
                self._session,
                self.token,
                stall_timer,
                connect_s=self._timeouts.connect_s,
                read_s=self._timeouts.read_s,
                method="GET",
                url=url,
                headers=headers,
            )
        except failures.NETWORK_ERRORS as error:
            raise self.broken(error) from error

    def _checked(self, response: requests.Response) -> requests.Response:
        status = response.status_code
        if status in (200, 206, 416):
            return response
        response.close()
        cause = f"{status} {failures.printable(response.reason or '')}".strip()
        if status in _TRANSIENT_STATUSES:
            asked_s = failures.retry_after_s(response.headers.get("Retry-After"))
            raise TransientError(self._cannot(cause), asked_s, answered=True)
        kinds = {401: ErrorKind.DENIED, 403: ErrorKind.DENIED, 404: ErrorKind.NOT_FOUND, 410: ErrorKind.NOT_FOUND}
        raise self._cannot(cause, kinds.get(status, ErrorKind.UNAVAILABLE))

    def _check_scheme(self, url: str) -> None:
        parts = urlsplit(url)
        plain = is_loopback(parts.netloc) or bool({parts.netloc, parts.hostname} & self._insecure)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and plain)):
            return
        raise BangerError(
            ErrorKind.DENIED,
            f'"{failures.printable(url)}" is not https',
            subject=self._url,
            hint="use https, or add the host to registry.insecure in config.toml",
        )

    def broken(self, error: BaseException) -> TransientError:
        """The failure that a broken exchange means; what can't be better in a moment is raised at once."""
        try:
            failure = failures.unreachable(urlsplit(self._url).netloc, error)
        except BangerError as final:
            raise self._cannot(final.cause) from error
        return TransientError(self._cannot(failure.final.cause))

    def _cannot(self, cause: str, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> BangerError:
        return BangerError(kind, f'cannot download "{self._url}"', subject=self._url, cause=cause)
