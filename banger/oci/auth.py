"""Answers to a registry's ``WWW-Authenticate``: Basic (RFC 7617) and Bearer (Docker's token specification).

A registry's credentials are only ever sent to the registry itself and to the token service that this registry names,
and there only over https (plain http is allowed to registries that the user lets talk plain http).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import requests

from banger.core.errors import BangerError, ErrorKind
from banger.oci import failures
from banger.oci.credentials import Credential
from banger.oci.reference import Reference

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
#: RFC 6750's b64token, which also keeps line breaks out of the header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+\Z")
_LARGEST_TOKEN_ANSWER = 1 << 20
_CLIENT_ID = "banger"


class Exchange(Protocol):
    """One HTTP exchange without authentication of its own, streamed."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Send it."""
        ...


class Authorizer:
    """Keeps one ``Authorization`` header per repository of one registry. Thread-safe."""

    def __init__(
        self, reference: Reference, *, plain_http: bool, find: Callable[[], Credential | None], exchange: Exchange
    ) -> None:
        """Create an empty cache.

        Args:
            reference: names the registry in errors.
            plain_http: the registry may be talked to without TLS, and so may its token service.
            find: looks up the credential of the registry.
            exchange: how to reach the token service.
        """
        self._reference = reference
        self._plain_http = plain_http
        self._find = find
        self._exchange = exchange
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str) -> str:
        """The header to send, or empty if nothing was ever asked for."""
        with self._lock:
            return self._headers.get(repository, "")

    def answer(self, repository: str, challenge: str, refused: str) -> bool:
        """Obtain what ``challenge`` asks for; False if there is nothing (more) to offer.

        Args:
            repository: whose header is wanted.
            challenge: the ``WWW-Authenticate`` value.
            refused: the header that was just refused. If another thread has renewed it by now, that one is used.
        """
        with self._lock:
            if self._headers.get(repository, "") != refused:
                return True
            self._headers.pop(repository, None)
            scheme, _, rest = challenge.strip().partition(" ")
            parameters = {match[1].lower(): match[2] or match[3] or "" for match in _PARAMETER.finditer(rest)}
            header = self._obtain(scheme.lower(), parameters)
            if not header or header == refused:
                return False
            self._headers[repository] = header
            return True

    def _obtain(self, scheme: str, parameters: Mapping[str, str]) -> str:
        if scheme not in ("basic", "bearer"):
            return ""
        credential = self._find()
        if scheme == "basic":
            return credential.basic if credential else ""
        realm = self._checked_realm(parameters.get("realm", ""))
        return "Bearer " + self._fetch_token(realm, parameters, credential)

    def _checked_realm(self, realm: str) -> str:
        parts = urlsplit(realm)
        schemes = ("https", "http") if self._plain_http else ("https",)
        if parts.scheme in schemes and parts.hostname and not parts.username:
            return realm
        raise failures.invalid(
            self._reference,
            f'registry "{self._reference.domain}" names a token service that must not be trusted',
            f'"{failures.printable(realm)}" is not an https address',
        )

    def _fetch_token(self, realm: str, parameters: Mapping[str, str], credential: Credential | None) -> str:
        fields = {key: parameters[key] for key in ("service", "scope") if parameters.get(key)}
        if credential and credential.refresh_token:
            fields |= {
                "grant_type": "refresh_token", "client_id": _CLIENT_ID, "refresh_token": credential.refresh_token,
            }  # fmt: skip
            response = self._exchange("POST", realm, {}, fields)
        else:
            headers = {"Authorization": credential.basic} if credential else {}
            separator = "&" if urlsplit(realm).query else "?"
            response = self._exchange("GET", realm + separator + urlencode(fields), headers)
        with response:
            if response.status_code in (400, 401, 403):
                cause = "the token service refused the login" if credential else "the token service wants a login"
                raise failures.denied(self._reference, cause)
            failures.check_status(response, self._reference, "the token service")
            body = response.raw.read(_LARGEST_TOKEN_ANSWER, decode_content=True)
        return self._token_in(body)

    def _token_in(self, body: bytes) -> str:
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not _TOKEN.match(token):
            message = f'the token service of registry "{self._reference.domain}" did not send a token'
            raise BangerError(ErrorKind.UNAVAILABLE, message, subject=str(self._reference))
        return token
