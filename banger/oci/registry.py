"""The registry client: ``oras`` for the session and URLs of the distribution API, everything that needs trust our own.

``oras`` retries every failure for two minutes, has no time-outs, trusts any token realm and never compares a digest;
so its one request function is replaced, and its pull and download functions are not used.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from oras.provider import Registry
from requests.adapters import HTTPAdapter

from banger.core.cancel import CancelToken
from banger.oci import failures
from banger.oci.auth import Authorizer
from banger.oci.challenge import Challenge, parse_challenges
from banger.oci.credentials import Credential
from banger.oci.interrupt import abandonable
from banger.oci.reference import Reference
from banger.oci.retry import PATIENT, Retrier, RetryPolicy

_CHUNK_BYTES = 1 << 18
_MOST_REDIRECTS = 5
#: Ways to sign in that are tried for one request; a token that has expired takes the first.
_MOST_LOGINS = 4


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how a registry is spoken to."""

    host: str
    plain_http: bool

    @classmethod
    def of(cls, reference: Reference, insecure: str = "", *, plain_http: bool = False) -> Endpoint:
        """The endpoint of a reference.

        Args:
            reference: whose registry.
            insecure: the ``registry.insecure`` setting: hosts separated by commas.
            plain_http: the user asked for plain http this once.
        """
        listed = {host.strip() for host in insecure.split(",")}
        plain = plain_http or is_loopback(reference.host) or bool({reference.host, reference.domain} & listed)
        return cls(reference.host, plain)

    @property
    def url(self) -> str:
        """The root of the API."""
        return f"{'http' if self.plain_http else 'https'}://{self.host}/v2"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, and to wait for the next bytes."""

    connect_s: float = 10.0
    read_s: float = 60.0


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Document:
    """A small body as it came, and what the registry says it is."""

    body: bytes
    content_type: str


class BlobBody:
    """A blob's bytes on their way, from ``start`` on. Close it; cancelling the token cuts the connection."""

    def __init__(self, response: requests.Response, host: str, start: int, token: CancelToken) -> None:
        self.start = start
        self._response = response
        self._host = host
        self._token = token
        self._forget = token.on_cancel(self._cut)
        length = response.headers.get("Content-Length", "")
        #: Bytes the registry announced for this body, or ``None``.
        self.length = int(length) if length.isdigit() else None

    def read(self) -> bytes:
        """The next bytes as they arrive, empty at the end; raises ``TransientError`` when the connection breaks."""
        try:
            chunk: bytes = self._response.raw.read1(_CHUNK_BYTES, decode_content=False)
        except failures.NETWORK_ERRORS as error:
            self._token.raise_if_cancelled()
            raise failures.unreachable(self._host, error) from error
        self._token.raise_if_cancelled()
        return chunk

    def close(self) -> None:
        """Give the connection back, or drop it in the middle of a body."""
        self._forget()
        self._response.close()

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self) -> None:
        with suppress(ValueError, RuntimeError, OSError):  # the body has ended in the meantime
            self._response.raw.shutdown()


class RegistryClient(Registry):  # type: ignore[misc]  # oras has no annotations
    """Reads one image of one registry on behalf of one operation."""

    #: What it does to repositories, as scopes of tokens name it.
    _ACTIONS = "pull"

    def __init__(
        self,
        reference: Reference,
        endpoint: Endpoint,
        token: CancelToken,
        *,
        find_credential: Callable[[], Credential | None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = PATIENT,
    ) -> None:
        """Connects to nothing yet.

        Args:
            reference: what is read.
            endpoint: where from.
            token: cancels every wait.
            find_credential: called when the registry asks for credentials.
            note: told about long pauses.
            timeouts: of each exchange.
            retry: how often and how patiently failures are tried again.
        """
        super().__init__(hostname=endpoint.host, insecure=endpoint.plain_http)
        self.reference = reference
        self.token = token
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._retry = retry
        self._note = note
        # A proxy of the environment can't reach the loopback of this host.
        self.session.trust_env = not is_loopback(endpoint.host)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=16, max_retries=0))
        self._authorizer = Authorizer(
            reference,
            plain_http=endpoint.plain_http,
            find=lambda: abandonable(token, find_credential, lambda _: None),
            actions=self._ACTIONS,
        )

    # -- what the pull uses ----------------------------------------------------------------------------

    def retrier(self) -> Retrier:
        """A fresh failure counter with this client's patience."""
        return Retrier(self._retry, self.token, self._note)

    def get_document(self, path: str, accept: str, limit: int, what: str) -> Document:
        """Fetch a manifest or another small body, read to its end.

        Args:
            path: below the repository: ``manifests/latest``, ``blobs/sha256:…``.
            accept: media types to ask for.
            limit: bytes; a longer body is ``invalid``.
            what: the thing as the user knows it, for errors.
        """

        def attempt() -> Document:
            with self._get(path, {"Accept": accept}, what) as response:
                return Document(self._read_all(response, limit, what), response.headers.get("Content-Type", ""))

        return self.retrier().run(attempt)

    def open_blob(self, digest: str, offset: int) -> BlobBody:
        """Start one transfer of a blob from ``offset``; ``start`` of the answer is 0 if the registry can't do that.

        Raises ``TransientError`` for what is worth another try; the caller counts those, because it alone knows
        whether the transfer gets ahead.
        """
        what = f'a layer of "{self.reference.familiar()}"'
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._get(f"blobs/{digest}", headers, what, accept_416=bool(offset))
        if response.status_code == 416:
            response.close()
            response = self._get(f"blobs/{digest}", {}, what)
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            response.close()
            response = self._get(f"blobs/{digest}", {}, what)
            resumed = False
        return BlobBody(response, self._endpoint.host, offset if resumed else 0, self.token)

    # -- the transport ---------------------------------------------------------------------------------

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        stream: bool = False,  # the signature is that of oras
    ) -> requests.Response:
        """One exchange, authenticated when the registry asks for it; replaces what all of ``oras`` goes through.

        Returns the answer whatever its status. Raises ``TransientError``, or ``unavailable`` for what will not be
        better in a moment.
        """
        repository = _repository_in(url)
        plain = {key: value for key, value in (headers or {}).items() if key.lower() != "authorization"}
        tried: set[Hashable] = set()
        for attempt in itertools.count(1):
            used = self._authorizer.header(repository)
            sent = {**plain, "Authorization": used} if used else plain
            response = self._exchange(method, url, sent, data, json=json, stream=stream)
            # A 401 of the place that a redirect led to is not the registry's question.
            if response.status_code != 401 or attempt > _MOST_LOGINS or _origin(response.url) != _origin(url):
                return response
            try:
                offers = self._offers(response)
                answered = self._authorizer.answer(repository, offers, used, tried, self._ask_token_service)
            except BaseException:
                response.close()
                raise
            if not answered:
                return response
            response.close()
        raise AssertionError("unreachable")

    def _offers(self, response: requests.Response) -> list[Challenge]:
        """How the registry wants to be signed in to; if it does not say here, what it says to those who just call."""
        headers = response.raw.headers.getlist("WWW-Authenticate")
        if not headers:
            with self._exchange("GET", f"{self._endpoint.url}/", {}) as called:
                headers = called.raw.headers.getlist("WWW-Authenticate") if called.status_code == 401 else []
        return parse_challenges(headers)

    def _ask_token_service(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> requests.Response:
        return self._exchange(method, url, headers, data, what="token service")

    def _get(self, path: str, headers: Mapping[str, str], what: str, *, accept_416: bool = False) -> requests.Response:
        url = f"{self._endpoint.url}/{self.reference.repository}/{path}"
        response = self.do_request(url, headers=headers, stream=True)
        if not (accept_416 and response.status_code == 416):
            failures.check_status(response, self.reference, what)
        return response

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Any = None,
        *,
        json: Any = None,
        stream: bool = True,
        what: str = "",
    ) -> requests.Response:
        """Send and follow redirects. Credentials stay with the host they were meant for."""
        sent = {"Accept-Encoding": "identity", **headers}
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(method, url, sent, data, json, stream=stream, what=what)
            if not response.is_redirect:
                return response
            target = urljoin(url, response.headers["Location"])
            response.close()
            if _origin(target) != _origin(url):
                if data is not None:
                    raise self._bad_redirect("a login to another host")
                sent = {key: value for key, value in sent.items() if key.lower() != "authorization"}
            if urlsplit(target).scheme != "https" and not self._endpoint.plain_http:
                raise self._bad_redirect(f'to "{failures.printable(target)}", which is not https')
            url = target
        raise self._bad_redirect("in circles")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: Any, json: Any, *, stream: bool, what: str
    ) -> requests.Response:
        def call() -> requests.Response:
            return self.session.request(  # type: ignore[no-any-return]  # oras has no annotations
                method,
                url,
                data=data,
                json=json,
                headers=headers,
                stream=stream,
                auth=_keep_headers,
                verify=self._tls_verify,
                timeout=(self._timeouts.connect_s, self._timeouts.read_s),
                allow_redirects=False,
            )

        try:
            return abandonable(self.token, call, requests.Response.close)
        except failures.NETWORK_ERRORS as error:
            host = urlsplit(url).netloc
            what = what or ("registry" if host == self._endpoint.host else "server")
            raise failures.unreachable(host, error, what) from error

    def _read_all(self, response: requests.Response, limit: int, what: str) -> bytes:
        body = bytearray()
        with BlobBody(response, self._endpoint.host, 0, self.token) as stream:
            while chunk := stream.read():
                body += chunk
                if len(body) > limit:
                    raise failures.invalid(self.reference, f"the manifest of {what} is longer than {limit} bytes")
        return bytes(body)

    def _bad_redirect(self, where: str) -> Exception:
        return failures.invalid(self.reference, f'registry "{self.reference.domain}" redirects {where}')


def is_loopback(host: str) -> bool:
    """True for ``localhost``, ``127.0.0.0/8`` and ``[::1]``, with or without a port."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth hook that adds nothing: without one, ``requests`` puts logins of ``.netrc`` over our own header."""
    return request


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _repository_in(url: str) -> str:
    """``a/b`` of ``https://host/v2/a/b/manifests/latest``."""
    path = urlsplit(url).path.partition("/v2/")[2]
    for marker in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
        head, found, _ = path.rpartition(marker)
        if found:
            return head
    return path
