"""The registry client: ``oras`` for the session and URLs of the distribution API, our own code for verification.

``oras`` retries every failure for two minutes, has no time-outs, trusts any token realm and never compares a digest;
so its one request function is replaced, and its pull and download functions are not used.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.oci import failures
from banger.oci.auth import Authorizer
from banger.oci.bodies import ResponseBody, decoded
from banger.oci.challenge import Challenge, parse_challenges
from banger.oci.credentials import Credential
from banger.oci.interrupt import abandonable
from banger.oci.oras_registry import Registry
from banger.oci.reference import Reference
from banger.oci.retry import PATIENT, Retrier, RetryPolicy, TransientError
from banger.oci.sessions import exchange, prepared
from banger.oci.stall_timer import DEFAULT_LIMIT_S, StallTimer, sensible_limit_s, without_repeats
from banger.oci.token_service import TokenAnswer

_MOST_REDIRECTS = 5
#: Ways to sign in that are tried for one request; a token that has expired takes the first.
_MOST_LOGINS = 4
_LARGEST_TOKEN_ANSWER = 1 << 20


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
    """Seconds that are waited.

    Attributes:
        connect_s: for a connection.
        read_s: for the next bytes, until the connection is taken for dead and another attempt made.
        stall_s: without data, all attempts together, until it is given up.
    """

    connect_s: float = 10.0
    read_s: float = DEFAULT_LIMIT_S / 2
    stall_s: float = DEFAULT_LIMIT_S

    @classmethod
    def patient(cls, stall_s: float) -> Timeouts:
        """Those that go with a total of ``stall_s``, the ``registry.stall_timeout_s`` setting; one second at least."""
        stall_s = sensible_limit_s(stall_s)
        return cls(read_s=stall_s / 2, stall_s=stall_s)


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Document:
    """A small body as it came, and what the registry says it is."""

    body: bytes
    content_type: str


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
        self._note = without_repeats(note)
        # A proxy of the environment can't reach the loopback of this host.
        self.session.trust_env = not is_loopback(endpoint.host)
        prepared(self.session)
        self._authorizer = Authorizer(
            reference,
            plain_http=endpoint.plain_http,
            find=lambda: abandonable(token, find_credential, lambda _: None),
            actions=self._ACTIONS,
        )

    # -- what the pull uses ----------------------------------------------------------------------------

    def retrier(self) -> Retrier:
        """A fresh failure counter with this client's stall timer."""
        who = f'registry "{self._endpoint.host}"'
        return Retrier(self._retry, self.token, self._note, StallTimer(who, self._timeouts.stall_s, self._note))

    def get_document(self, path: str, accept: str, limit: int, what: str) -> Document:
        """Fetch a manifest or another small body, read to its end.

        Args:
            path: below the repository: ``manifests/latest``, ``blobs/sha256:…``.
            accept: media types to ask for.
            limit: bytes; a longer body is ``invalid``.
            what: the thing as the user knows it, for errors.
        """
        retrier = self.retrier()

        def attempt() -> Document:
            response = self._get(path, {"Accept": accept}, what, retrier.stall_timer)
            too_long = functools.partial(self._too_long, f"the manifest of {what}", limit)
            body = self._body(response, 0, retrier.stall_timer).read_all(limit, too_long)
            headers = response.headers
            body = decoded(body, headers.get("Content-Encoding", ""), limit, too_long)
            return Document(body, headers.get("Content-Type", ""))

        return retrier.run(attempt)

    def open_blob(self, digest: str, offset: int, stall_timer: StallTimer) -> ResponseBody:
        """Start one transfer of a blob from ``offset``; ``start`` of the answer is 0 if the registry can't do that.

        Raises ``TransientError`` for what is worth another try; the caller counts those, because it alone knows
        whether the transfer gets ahead.
        """
        what = f'a layer of "{self.reference.familiar()}"'
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._get(f"blobs/{digest}", headers, what, stall_timer, accept_416=bool(offset))
        if response.status_code == 416:
            response.close()
            response = self._get(f"blobs/{digest}", {}, what, stall_timer)
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            response.close()
            response = self._get(f"blobs/{digest}", {}, what, stall_timer)
            resumed = False
        return self._body(response, offset if resumed else 0, stall_timer)

    # -- the transport ---------------------------------------------------------------------------------

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,  # noqa: ARG002  # the signature is that of oras, but for what follows
        stream: bool = True,  # noqa: ARG002  # it always does
        stall_timer: StallTimer | None = None,
    ) -> requests.Response:
        """One exchange, authenticated when the registry asks for it; replaces what all of ``oras`` goes through.

        Returns the answer whatever its status. Raises ``TransientError``, or ``unavailable`` for what will not be
        better in a moment.
        """
        repository = _repository_in(url)
        stall_timer = stall_timer or self.retrier().stall_timer
        ask = functools.partial(self._ask_token_service, stall_timer)
        plain = {key: value for key, value in (headers or {}).items() if key.lower() != "authorization"}
        tried: set[Hashable] = set()
        for attempt in itertools.count(1):
            used = self._authorizer.header(repository)
            sent = {**plain, "Authorization": used} if used else plain
            response = self._exchange(stall_timer, method, url, sent, data)
            # A 401 of the place that a redirect led to is not the registry's question.
            if response.status_code != 401 or attempt > _MOST_LOGINS or _origin(response.url) != _origin(url):
                return response
            try:
                answered = self._authorizer.answer(repository, self._offers(response, stall_timer), used, tried, ask)
            except BaseException:
                response.close()
                raise
            if not answered:
                return response
            response.close()
        raise AssertionError("unreachable")

    def _offers(self, response: requests.Response, stall_timer: StallTimer) -> list[Challenge]:
        """How the registry wants to be signed in to; if it does not say here, what it says to those who just call."""
        headers = response.raw.headers.getlist("WWW-Authenticate")
        if not headers:
            with self._exchange(stall_timer, "GET", f"{self._endpoint.url}/", {}) as called:
                headers = called.raw.headers.getlist("WWW-Authenticate") if called.status_code == 401 else []
        return parse_challenges(headers)

    def _ask_token_service(
        self,
        stall_timer: StallTimer,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Mapping[str, str] | None = None,
    ) -> TokenAnswer:
        response = self._exchange(stall_timer, method, url, headers, data, what="token service")
        if response.ok:
            too_long = functools.partial(self._too_long, "the token service's answer", _LARGEST_TOKEN_ANSWER)
            body = self._body(response, 0, stall_timer).read_all(_LARGEST_TOKEN_ANSWER, too_long)
        else:
            with response:
                body = failures.body_of_refusal(response, self.token)
        return TokenAnswer(response.status_code, response.headers, body)

    def _get(
        self, path: str, headers: Mapping[str, str], what: str, stall_timer: StallTimer, *, accept_416: bool = False
    ) -> requests.Response:
        url = f"{self._endpoint.url}/{self.reference.repository}/{path}"
        response = self.do_request(url, headers=headers, stall_timer=stall_timer)
        if not (accept_416 and response.status_code == 416):
            failures.check_status(response, self.reference, what, self.token)
        return response

    def _exchange(
        self,
        stall_timer: StallTimer,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Any = None,
        *,
        what: str = "",
    ) -> requests.Response:
        """Send and follow redirects. Credentials stay with the host they were meant for."""
        sent = {"Accept-Encoding": "identity", **headers}
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(stall_timer, method, url, sent, data, what)
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
        self, stall_timer: StallTimer, method: str, url: str, headers: Mapping[str, str], data: Any, what: str
    ) -> requests.Response:
        # A registry may take its time to look at what was uploaded; to ask for it once more would not help.
        read_s = self._timeouts.read_s if data is None else self._timeouts.stall_s
        try:
            return exchange(
                self.session,
                self.token,
                stall_timer,
                connect_s=self._timeouts.connect_s,
                read_s=read_s,
                method=method,
                url=url,
                headers=headers,
                data=data,
                verify=self._tls_verify,
            )
        except failures.NETWORK_ERRORS as error:
            raise self._broken(url, error, what) from error

    def _broken(self, url: str, error: BaseException, what: str = "") -> TransientError:
        host = urlsplit(url).netloc
        return failures.unreachable(host, error, what or ("registry" if host == self._endpoint.host else "server"))

    def _body(self, response: requests.Response, start: int, stall_timer: StallTimer) -> ResponseBody:
        broken = functools.partial(self._broken, response.url)
        return ResponseBody(response, start, self.token, stall_timer, broken)

    def _too_long(self, what: str, limit: int) -> BangerError:
        return failures.invalid(self.reference, f"{what} is longer than {limit} bytes")

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
