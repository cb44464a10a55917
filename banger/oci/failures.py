"""A registry's failures as banger's errors: their kind, cause and hint."""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import threading
from contextlib import suppress
from datetime import datetime

import requests
from urllib3 import exceptions as urllib3_errors

from banger.core import clock
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci.reference import DOCKER_HUB, Reference
from banger.oci.retry import TransientError

_LONGEST_CAUSE = 300
_LARGEST_REFUSAL, _LONGEST_READING_S = 1 << 16, 5.0
#: What urllib3 and requests raise while a request or a body is under way.
NETWORK_ERRORS = (requests.RequestException, urllib3_errors.HTTPError, OSError)
_TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})


def unreachable(host: str, error: BaseException, what: str = "registry") -> TransientError:
    """A request or a body that broke off. What can't be better in a moment is raised at once, as ``unavailable``.

    ``what`` is how errors call the host: not all that a registry names are registries.
    """
    chain = _chain(error)
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        hint = "install its certificate authority, or set REQUESTS_CA_BUNDLE for the daemon"
        raise _unavailable(host, f'the certificate of {what} "{host}" is not trusted', chain, hint) from error
    if any(isinstance(link, ssl.SSLError) for link in chain):
        hint = f'if it talks plain http, set registry.insecure = "{host}" in config.toml'
        raise _unavailable(host, f'no TLS connection to {what} "{host}"', chain, hint) from error
    if any(isinstance(link, ConnectionRefusedError | requests.exceptions.InvalidURL) for link in chain):
        raise _unavailable(host, f'cannot connect to {what} "{host}"', chain) from error
    unknown = [link for link in chain if isinstance(link, socket.gaierror) and link.errno != socket.EAI_AGAIN]
    if unknown:
        raise _unavailable(host, f'cannot find {what} "{host}"', chain) from error
    if any(isinstance(link, TimeoutError | requests.Timeout | urllib3_errors.ReadTimeoutError) for link in chain):
        return TransientError(_unavailable(host, f'{what} "{host}" did not answer in time', chain))
    return TransientError(_unavailable(host, f'lost the connection to {what} "{host}"', chain))


def check_status(response: requests.Response, reference: Reference, what: str, token: CancelToken) -> None:
    """Return for a 2xx answer; raise the fitting error otherwise and close the response.

    Args:
        response: a streamed answer.
        reference: what is being pulled.
        what: the thing that was asked for, as the user knows it: ``image "alpine"``, ``a layer of "alpine"``.
        token: ends the wait for the words of a refusal.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    try:
        cause = words_of(response, token)
    finally:
        response.close()
    if status in (401, 403):
        raise denied(reference, cause)
    if status == 404:
        message, hint = f'{what} not found at "{reference.domain}"', "check the name and the tag"
        raise BangerError(ErrorKind.NOT_FOUND, message, subject=str(reference), cause=cause, hint=hint)
    raise for_status(status, reference, cause, response.headers.get("Retry-After"))


def for_status(status: int, reference: Reference, cause: str, retry_after: str | None, who: str = "") -> Exception:
    """The failure that an unexpected status means: transient for overload and server errors.

    ``who`` has sent it; by default the registry.
    """
    who = who or f'registry "{reference.domain}"'
    message, hint = f"{who} answered {status}", "try again in a while"
    if status == 429:
        message, hint = f"{who} limits how much may be pulled", login(reference)
    final = BangerError(ErrorKind.UNAVAILABLE, message, subject=str(reference), cause=cause, hint=hint)
    return TransientError(final, retry_after_s(retry_after), answered=True) if status in _TRANSIENT_STATUSES else final


def denied(reference: Reference, cause: str) -> BangerError:
    """The registry does not let us: wrong or missing credentials, or (some say this) no such image."""
    return BangerError(
        ErrorKind.DENIED,
        f'registry "{reference.domain}" refused access to "{reference.familiar()}"',
        subject=str(reference),
        cause=cause,
        hint=login(reference),
    )


def invalid(reference: Reference, message: str, cause: str = "", hint: str = "") -> BangerError:
    """The registry sent something that must not be used."""
    hint = hint or "nothing was kept of it: try again, or tell whoever runs the registry"
    return BangerError(ErrorKind.INVALID, message, subject=str(reference), cause=cause, hint=hint)


def login(reference: Reference) -> str:
    """The command that signs in where ``reference`` lives."""
    return "docker login" if reference.domain == DOCKER_HUB else f"docker login {reference.domain}"


def errors_in(body: bytes) -> str:
    """The messages of a registry's JSON error document (``{"errors": [{code, message}]}``), or empty."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    errors = data.get("errors") if isinstance(data, dict) else None
    if not isinstance(errors, list):
        return ""
    parts = [f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors[:3] if isinstance(e, dict)]
    return printable("; ".join(part for part in parts if part))


def printable(text: str) -> str:
    """``text`` from outside, cut and without control characters: safe in a terminal and in a log line."""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_CAUSE]).strip()


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a ``Retry-After`` header (RFC 9110: seconds or a date); ``None`` for nothing usable."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():  # isdigit alone takes digits that float does not
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(header)
        return max(0.0, (moment - (now or clock.now())).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def body_of_refusal(response: requests.Response, token: CancelToken) -> bytes:
    """The beginning of an unsuccessful answer's body, as far as it comes at once: it is not worth a long wait.

    Raises:
        BangerError: ``cancelled``.
    """
    body = bytearray()
    enough = threading.Timer(_LONGEST_READING_S, cut_off, (response,))
    forget = token.on_cancel(lambda: cut_off(response))
    enough.start()
    try:
        with suppress(*NETWORK_ERRORS):
            while len(body) < _LARGEST_REFUSAL:
                if not (chunk := response.raw.read1(_LARGEST_REFUSAL, decode_content=True)):
                    break
                body += chunk
    finally:
        forget()
        enough.cancel()
        enough.join()
    token.raise_if_cancelled()
    return bytes(body)


def cut_off(response: requests.Response) -> None:
    """Make whoever reads this answer's body find it ended or broken; from any thread."""
    with suppress(ValueError, RuntimeError, OSError):  # the body has ended in the meantime
        response.raw.shutdown()


def words_of(response: requests.Response, token: CancelToken) -> str:
    """What the body of an unsuccessful answer says, or at least its status."""
    return words_in(response.status_code, body_of_refusal(response, token))


def words_in(status: int, body: bytes) -> str:
    """The same of a body that was read already."""
    if words := errors_in(body) or _detail_in(body):
        return words
    return f"{status} {http.client.responses.get(status, '')}".strip()


def _detail_in(body: bytes) -> str:
    """The message of a token service's JSON error: OAuth 2.0 (RFC 6749, 5.2), or Docker Hub's own form."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    fields = [data.get(key) for key in ("error", "error_description", "details")] if isinstance(data, dict) else []
    return printable(": ".join(text for text in fields if isinstance(text, str) and text))


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what lies beneath it: urllib3 and requests wrap the errno in ``reason`` or in ``args``."""
    links: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(links) < 20:
        link = pending.pop(0)
        if isinstance(link, BaseException) and link not in links:
            links.append(link)
            pending += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return links


def _unavailable(host: str, message: str, chain: list[BaseException], hint: str = "") -> BangerError:
    hint = hint or f"check that {host} is reachable from here, and try again"
    said = next((link for link in chain if isinstance(link, OSError) and link.strerror), chain[-1])
    text = said.strerror if isinstance(said, OSError) and said.strerror else str(said)
    return BangerError(ErrorKind.UNAVAILABLE, message, subject=host, cause=printable(text), hint=hint)
