"""Token services: which ones are trusted with a login."""

from __future__ import annotations

import pytest
import requests

from banger.core.errors import BangerError, ErrorKind
from banger.oci.auth import Authorizer
from banger.oci.credentials import Credential
from banger.oci.reference import Reference


class Wire:
    """Records what would be sent and how often the credential is looked up."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.looked_up = 0

    def __call__(self, method: str, url: str, headers: object, data: object = None) -> requests.Response:
        self.urls.append(url)
        raise requests.ConnectionError

    def find(self) -> Credential:
        self.looked_up += 1
        return Credential("alice", "s3cret")


def authorizer(wire: Wire, *, plain_http: bool) -> Authorizer:
    reference = Reference.parse("r.example/app")
    return Authorizer(reference, plain_http=plain_http, find=wire.find, exchange=wire)


def test_plain_http_token_service_of_an_https_registry_is_not_asked() -> None:
    wire = Wire()
    with pytest.raises(BangerError, match="must not be trusted") as failure:
        authorizer(wire, plain_http=False).answer("app", 'Bearer realm="http://auth.example/token"', "")

    assert failure.value.kind is ErrorKind.INVALID
    assert wire.urls == []


def test_service_and_scope_of_the_challenge_are_asked_for() -> None:
    wire = Wire()
    challenge = 'Bearer realm="https://auth.example/token?x=1", service="r e", scope="repository:app:pull"'
    with pytest.raises(requests.ConnectionError):
        authorizer(wire, plain_http=False).answer("app", challenge, "")

    assert wire.urls == ["https://auth.example/token?x=1&service=r+e&scope=repository%3Aapp%3Apull"]


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x", "Bearer", 'bearer realm=""'])
def test_challenge_that_is_not_understood_is_not_answered(challenge: str) -> None:
    wire = Wire()
    try:
        answered = authorizer(wire, plain_http=True).answer("app", challenge, "")
    except BangerError as error:
        answered = error.kind is not ErrorKind.INVALID

    assert not answered
    assert wire.urls == []


def test_header_that_another_thread_renewed_is_used_without_asking() -> None:
    wire = Wire()
    basic = authorizer(wire, plain_http=False)
    assert basic.answer("app", 'Basic realm="x"', "")
    header = basic.header("app")

    assert basic.answer("app", 'Basic realm="x"', "Basic stale")
    assert basic.header("app") == header
    assert wire.looked_up == 1
    assert not basic.answer("app", 'Basic realm="x"', header)
