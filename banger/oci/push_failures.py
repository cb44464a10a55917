"""A registry's refusals of an upload as banger's errors.

Codes are those of the OCI distribution specification ("Error Codes"); quotas have none there, and products word them
freely.
"""

from __future__ import annotations

import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci import failures
from banger.oci.reference import Reference
from banger.oci.retry import TransientError

_QUOTA_WORDS = ("quota", "storage resource", "exceed", "insufficient storage", "no space left")


def check_status(response: requests.Response, reference: Reference, token: CancelToken) -> None:
    """Return for a 2xx answer to a push; raise the fitting error otherwise and close the response.

    ``token`` ends the wait for the words of a refusal.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    try:
        words = _words_of(response, token)
    finally:
        response.close()
    if status == 429:
        final = _error(ErrorKind.UNAVAILABLE, reference, f'registry "{reference.domain}" limits pushes', words)
        raise TransientError(final, failures.retry_after_s(response.headers.get("Retry-After")), answered=True)
    if status in (413, 507) or (status < 500 and any(word in words.lower() for word in _QUOTA_WORDS)):
        message = f'registry "{reference.domain}" has no room for "{reference.familiar()}"'
        raise _error(ErrorKind.EXHAUSTED, reference, message, words)
    if status in (401, 403):
        raise _denied(reference, words)
    if status == 405 or "UNSUPPORTED" in words:
        message = f'registry "{reference.domain}" does not take pushes'
        raise _error(ErrorKind.UNAVAILABLE, reference, message, words, "push to another registry")
    if "NAME_INVALID" in words:
        message = f'registry "{reference.domain}" does not accept the name "{reference.repository}"'
        raise _error(ErrorKind.USAGE, reference, message, words, "choose another name")
    if status == 404:
        message = f'registry "{reference.domain}" has no repository "{reference.repository}"'
        raise _error(ErrorKind.NOT_FOUND, reference, message, words, "create it there first, or check the name")
    if 400 <= status < 500:
        message = f'registry "{reference.domain}" refused what was pushed to "{reference.familiar()}"'
        raise _error(ErrorKind.INVALID, reference, message, words)
    raise failures.for_status(status, reference, words, response.headers.get("Retry-After"))


def changed(reference: Reference, pushed: str, stored: str) -> BangerError:
    """The registry stored another manifest than it was given."""
    message = f'registry "{reference.domain}" changed what was pushed to "{reference.familiar()}"'
    return _error(ErrorKind.INVALID, reference, message, f"{failures.printable(stored)} in place of {pushed}")


def bad_location(reference: Reference, url: str) -> BangerError:
    """The registry wants the upload somewhere without TLS, or nowhere."""
    message = f'registry "{reference.domain}" sends uploads to a place that is not https'
    return _error(ErrorKind.INVALID, reference, message, failures.printable(url))


def _denied(reference: Reference, words: str) -> BangerError:
    message = f'registry "{reference.domain}" does not let you push to "{reference.familiar()}"'
    return _error(ErrorKind.DENIED, reference, message, words, failures.login(reference))


def _error(kind: ErrorKind, reference: Reference, message: str, cause: str, hint: str = "") -> BangerError:
    return BangerError(kind, message, subject=str(reference), cause=cause, hint=hint)


def _words_of(response: requests.Response, token: CancelToken) -> str:
    words = failures.errors_in(failures.body_of_refusal(response, token))
    return words or f"{response.status_code} {failures.printable(response.reason or '')}".strip()
