"""The token service that registries name in Bearer challenges (distribution, "Token Authentication").

A login goes to it only over https; plain http is allowed to services of registries that the user lets talk plain http.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from banger.core.errors import BangerError, ErrorKind
from banger.oci import failures
from banger.oci.credentials import Credential
from banger.oci.reference import Reference

#: RFC 6750's b64token, which also keeps line breaks out of the header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+\Z")
#: ``type:name:actions``, where the name may have a port in it.
_SCOPE = re.compile(r"[^:]+:.+:[^:]+\Z")
_CLIENT_ID = "banger"


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A small answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TokenExchange(Protocol):
    """One HTTP exchange without authentication of its own."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> TokenAnswer:
        """Send it, and read what comes back."""
        ...


def fetch_token(
    reference: Reference,
    parameters: Mapping[str, str],
    credential: Credential | None,
    *,
    own_scope: str,
    plain_http: bool,
    exchange: TokenExchange,
) -> str:
    """A token for what a Bearer challenge asks for.

    Args:
        reference: names the registry in errors.
        parameters: of the challenge: ``realm``, and perhaps ``service`` and ``scope``.
        credential: the login, if there is one.
        own_scope: what is asked for where the challenge has no scope; empty for none.
        plain_http: the service may be talked to without TLS.
        exchange: how to reach it.

    Raises:
        BangerError: ``invalid`` for a service that must not be trusted, ``denied`` by it, ``unavailable``.
        TransientError: it may answer in a moment.
    """
    realm = _checked_realm(reference, parameters.get("realm", ""), plain_http=plain_http)
    who = f'the token service "{urlsplit(realm).netloc}" of registry "{reference.domain}"'
    # Some registries put a mere placeholder there ("aws").
    scopes = [scope for scope in parameters.get("scope", "").split() if _SCOPE.match(scope)] or own_scope.split()
    service = [("service", parameters["service"])] if parameters.get("service") else []
    if credential and credential.refresh_token:
        fields = {
            "grant_type": "refresh_token", "client_id": _CLIENT_ID, "refresh_token": credential.refresh_token,
            **dict(service), **({"scope": " ".join(scopes)} if scopes else {}),
        }  # fmt: skip
        answer = exchange("POST", realm, {}, fields)
    else:
        headers = {"Authorization": credential.basic} if credential else {}
        separator = "&" if urlsplit(realm).query else "?"
        query = urlencode([*service, *(("scope", scope) for scope in scopes)])
        answer = exchange("GET", realm + separator + query if query else realm, headers)
    _check_status(answer, reference, who, has_login=credential is not None)
    return _token_in(answer.body, reference, who)


def _checked_realm(reference: Reference, realm: str, *, plain_http: bool) -> str:
    try:
        parts = urlsplit(realm)
        schemes = ("https", "http") if plain_http else ("https",)
        if parts.scheme in schemes and parts.hostname and not parts.username and not parts.fragment:
            return realm
    except ValueError:
        pass
    raise failures.invalid(
        reference,
        f'registry "{reference.domain}" names a token service that must not be trusted',
        f'"{failures.printable(realm)}" is not an https address',
    )


def _check_status(answer: TokenAnswer, reference: Reference, who: str, *, has_login: bool) -> None:
    if 200 <= answer.status < 300:
        return
    words = failures.words_in(answer.status, answer.body)
    if answer.status in (400, 401, 403):
        message = f"{who} refused the login" if has_login else f"{who} wants a login"
        hint = failures.login(reference)
        raise BangerError(ErrorKind.DENIED, message, subject=str(reference), cause=words, hint=hint)
    raise failures.for_status(answer.status, reference, words, answer.headers.get("Retry-After"), who=who)


def _token_in(body: bytes, reference: Reference, who: str) -> str:
    try:
        answer = json.loads(body)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not _TOKEN.match(token):
        raise BangerError(ErrorKind.UNAVAILABLE, f"{who} did not send a token", subject=str(reference))
    return token
