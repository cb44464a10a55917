"""What stands behind the question mark: a route takes the parameters that its description names, each once."""

from __future__ import annotations

from collections import Counter
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from banger.api.openapi import Described, is_repeated, parameters_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.lookup import closest


class KnownParameters:
    """Refuses what a route would overlook: a switch that is misspelt must not be taken for one that is off."""

    def __init__(self, app: ASGIApp, described: Described) -> None:
        self._app = app
        self._described = described
        self._names = parameters_of(described)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or raise ``usage``."""
        if scope["query_string"]:
            self._check(scope["query_string"].decode("latin-1"))
        await self._app(scope, receive, send)

    def _check(self, text: str) -> None:
        for name, count in Counter(name for name, _ in parse_qsl(text, keep_blank_values=True)).items():
            if name not in self._names:
                shown, close = name[:40], closest(name[:40], self._names)
                raise BangerError(
                    ErrorKind.USAGE, f'{self._described.method} {self._described.path} has no parameter "{shown}"',
                    subject=shown, hint=f'did you mean "{close}"?' if close else self._all(),
                )  # fmt: skip
            if count > 1 and not is_repeated(name):
                raise BangerError(ErrorKind.USAGE, f'the parameter "{name}" is given more than once', subject=name)

    def _all(self) -> str:
        return f"it has {', '.join(self._names)}" if self._names else "it has none"
