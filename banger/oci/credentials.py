"""Registry credentials from Docker's own file, as written by ``docker login``.

Format: ``config.json`` with ``auths`` (base64 of ``user:secret``), ``credHelpers`` (host to helper) and ``credsStore``
(one helper for all), as described in the Docker CLI reference; keys of ``auths`` may also be paths, as podman writes
them (containers-auth.json(5)). A helper is a program ``docker-credential-NAME`` that reads the host on stdin and prints
``{"Username", "Secret"}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from banger.core.errors import BangerError, ErrorKind
from banger.oci.credential_keys import matching_keys, server_of
from banger.posix.files import read_regular
from banger.posix.programs import run_program

#: Names of one helper that are worth a call.
_MOST_QUESTIONS = 3
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_HELPER_TIMEOUT_S = 10.0
#: What a helper prints when it simply has nothing: not a failure.
_HELPER_HAS_NONE = "credentials not found"
#: The user name that marks the secret as an OAuth2 refresh token.
_REFRESH_TOKEN_USER = "<token>"  # noqa: S105  # a marker, not a secret


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and secret, or a refresh token; secrets stay out of ``repr`` and so out of logs."""

    username: str = ""
    secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header, or empty for a refresh token."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


class CredentialStore:
    """Reads the file anew for every question: a ``docker login`` takes effect at once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @classmethod
    def configured(cls, setting: str, env: Mapping[str, str] | None = None) -> CredentialStore:
        """The store of the ``registry.credentials`` setting, else of ``DOCKER_CONFIG``, else of the home directory."""
        env = os.environ if env is None else env
        if setting:
            return cls(Path(setting))
        directory = env.get("DOCKER_CONFIG")
        return cls((Path(directory) if directory else Path(env.get("HOME") or "/") / ".docker") / "config.json")

    def find(self, domain: str, repository: str = "") -> Credential | None:
        """The credential for a registry (``docker.io``, ``ghcr.io``, ``host:5000``), or ``None``.

        A helper for the host comes first, then the helper for all, then what the file holds itself.

        Args:
            domain: the registry.
            repository: what of it; there may be a credential for a part of a registry.

        Raises:
            BangerError: ``usage`` if the file is not what Docker writes, ``denied`` if it can't be read,
                ``unavailable`` if a helper fails.
        """
        data = self._read()
        auths = _object(data, "auths")
        helpers = _object(data, "credHelpers")
        own = matching_keys(helpers, domain)
        # An empty name is how one host is kept out of the store for all.
        helper = helpers[own[0]] if own else data.get("credsStore")
        if helper:
            # Who logged in by URL is filed under it, and the file has an empty entry of that name.
            servers = [server_of(domain), *(key for key in matching_keys(auths, domain) if auths[key] == {})]
            for server in dict.fromkeys(servers[:_MOST_QUESTIONS]):
                if found := _ask_helper(str(helper), server):
                    return found
        for key in matching_keys(auths, domain, repository):
            entry = auths[key]
            if isinstance(entry, dict) and (credential := self._from_entry(entry, key)):
                return credential
        return None

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(read_regular(self._file))
        except FileNotFoundError:
            return {}
        except OSError as error:
            message = f'cannot read the credential file "{self._file}"'
            raise BangerError(
                ErrorKind.DENIED, message, subject=str(self._file), cause=error.strerror or str(error)
            ) from error
        except ValueError as error:
            raise self._bad(str(error)) from None
        if not isinstance(data, dict):
            raise self._bad("it is not a JSON object")
        return data

    def _from_entry(self, entry: Mapping[str, Any], key: str) -> Credential | None:
        if refresh_token := entry.get("identitytoken"):
            return Credential(refresh_token=str(refresh_token))
        if entry.get("username"):
            return Credential(str(entry["username"]), str(entry.get("password", "")))
        if not entry.get("auth"):
            return None
        try:
            # Line breaks are no part of it, as with Go's decoder.
            packed = "".join(str(entry["auth"]).split())
            username, _, secret = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise self._bad(f'the entry "{key}" is not base64 of user:secret') from None
        return Credential(username, secret.rstrip("\0"))

    def _bad(self, cause: str) -> BangerError:
        message = f'"{self._file}" is not a Docker credential file'
        return BangerError(ErrorKind.USAGE, message, subject=str(self._file), cause=cause, hint="docker login")


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _ask_helper(name: str, server: str) -> Credential | None:
    program = f"docker-credential-{name}"
    if not _HELPER_NAME.match(name):
        raise _helper_failed(program, "its name has odd characters")
    try:
        done = run_program([program, "get"], stdin=server.encode(), timeout_s=_HELPER_TIMEOUT_S)
    except BangerError as error:
        if error.kind is ErrorKind.UNAVAILABLE:
            return None  # a file copied from a desktop names a helper that this host lacks; public images still work
        raise _helper_failed(program, error.message) from error
    except OSError as error:
        raise _helper_failed(program, str(error)) from error
    if done.status:
        words = (done.output + done.errors).decode(errors="replace").strip()
        if _HELPER_HAS_NONE in words:
            return None
        raise _helper_failed(program, words[-300:])
    try:
        answer = json.loads(done.output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise _helper_failed(program, "its answer is not the JSON it should be") from None
    return Credential(refresh_token=secret) if username == _REFRESH_TOKEN_USER else Credential(username, secret)


def _helper_failed(program: str, cause: str) -> BangerError:
    return BangerError(ErrorKind.UNAVAILABLE, f'credential helper "{program}" failed', subject=program, cause=cause)
