"""Answers to a registry's ``WWW-Authenticate``: Basic (RFC 7617) and Bearer (Docker's token specification).

A registry's credentials are only ever sent to the registry itself and to the token service that this registry names.
It may offer several ways to sign in, and not all that is offered need work. They are tried one after the other: tokens
first, as Docker does, because the login itself then goes to the token service alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.oci import failures
from banger.oci.challenge import Challenge
from banger.oci.credentials import Credential
from banger.oci.reference import Reference
from banger.oci.retry import TransientError
from banger.oci.token_service import TokenExchange, fetch_token

_PREFERRED = ("bearer", "basic")


class Authorizer:
    """Keeps one ``Authorization`` header per repository of one registry. Thread-safe."""

    def __init__(
        self, reference: Reference, *, plain_http: bool, find: Callable[[], Credential | None], actions: str = "pull"
    ) -> None:
        """Create an empty cache.

        Args:
            reference: names the registry in errors.
            plain_http: the registry may be talked to without TLS, and so may its token service.
            find: looks up the credential of the registry.
            actions: what is done to repositories, for registries that do not say what they want to be asked for.
        """
        self._reference = reference
        self._plain_http = plain_http
        self._find = find
        self._actions = actions
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def header(self, repository: str) -> str:
        """The header to send, or empty if nothing was ever asked for."""
        with self._lock:
            return self._headers.get(repository, "")

    def answer(
        self, repository: str, offers: Sequence[Challenge], refused: str, tried: set[Hashable], exchange: TokenExchange
    ) -> bool:
        """Obtain what one of ``offers`` asks for; False if there is nothing (more) to try.

        Args:
            repository: whose header is wanted.
            offers: the challenges that came with the refusal.
            refused: the header that was just refused. If another thread has renewed it by now, that one is used.
            tried: what was tried for this request already; added to.
            exchange: how to reach the token service.

        Raises:
            BangerError: why none of the offers could be taken up: ``denied`` by the token service, or because no way to
                sign in is known here; as :func:`fetch_token` does.
            TransientError: the same, of a failure that may pass.
        """
        with self._lock:
            if self._headers.get(repository, "") != refused:
                return True
            self._headers.pop(repository, None)
            scope = f"repository:{repository}:{self._actions}" if repository else ""
            find = functools.cache(self._find)
            header = self._first(
                self._known(offers), refused, tried, lambda offer: self._obtain(offer, find, scope, exchange)
            )
            if header:
                self._headers[repository] = header
            return bool(header)

    def _known(self, offers: Sequence[Challenge]) -> list[Challenge]:
        known = [offer for scheme in _PREFERRED for offer in offers if offer.scheme == scheme]
        if offers and not known:
            schemes = ", ".join(f'"{failures.printable(offer.scheme)}"' for offer in offers[:3])
            raise failures.denied(self._reference, f"it wants {schemes} to sign in, which banger does not have")
        return known

    def _first(
        self, offers: Sequence[Challenge], refused: str, tried: set[Hashable], obtain: Callable[[Challenge], str]
    ) -> str:
        """The header for the first of ``offers`` that there is one for, or empty."""
        failure: BangerError | TransientError | None = None
        for offer in offers:
            key = (offer.scheme, offer.parameters.get("realm"), offer.parameters.get("scope"))
            if key in tried:
                continue
            tried.add(key)
            try:
                header = obtain(offer)
            except (BangerError, TransientError) as error:
                if isinstance(error, BangerError) and error.kind is ErrorKind.CANCELLED:
                    raise
                failure = failure or error
                continue
            if header and header != refused:
                return header
        if failure is not None:
            raise failure
        return ""

    def _obtain(
        self, offer: Challenge, find: Callable[[], Credential | None], scope: str, exchange: TokenExchange
    ) -> str:
        credential = find()
        if offer.scheme == "basic":
            return credential.basic if credential else ""
        return "Bearer " + fetch_token(
            self._reference,
            offer.parameters,
            credential,
            own_scope=scope,
            plain_http=self._plain_http,
            exchange=exchange,
        )
