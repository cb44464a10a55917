"""Ways to sign in: how they are offered, which token services are trusted with a login."""

from __future__ import annotations

import pytest
import requests

from banger.core.errors import BangerError, ErrorKind
from banger.oci.auth import Authorizer
from banger.oci.challenge import Challenge, parse_challenges
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

    def answer(self, challenge: str, *, plain_http: bool = False) -> bool:
        reference = Reference.parse("r.example/app")
        authorizer = Authorizer(reference, plain_http=plain_http, find=self.find)
        return authorizer.answer("app", parse_challenges([challenge]), "", set(), self)


CHALLENGES = {
    "scheme alone": ("Negotiate", [Challenge("negotiate")]),
    "token68": ("Negotiate a/b+c==", [Challenge("negotiate", {}, "a/b+c==")]),
    "comma and escapes in quotes": (
        r'Bearer realm="a, \"b\" \\",scope="x:pull,push"',
        [Challenge("bearer", {"realm": 'a, "b" \\', "scope": "x:pull,push"})],
    ),
    "challenge in quotes": (
        r'Digest realm="Basic realm=\"x\", Bearer y=z", qop=auth',
        [Challenge("digest", {"realm": 'Basic realm="x", Bearer y=z', "qop": "auth"})],
    ),
    "several": (
        'NTLM, Negotiate abc=, Basic realm="r", Bearer realm="t", service="s"',
        [
            Challenge("ntlm"),
            Challenge("negotiate", {}, "abc="),
            Challenge("basic", {"realm": "r"}),
            Challenge("bearer", {"realm": "t", "service": "s"}),
        ],
    ),
    "empty elements and blanks": (
        ' , ,Basic  realm = "x" ,, Bearer\trealm="y",',
        [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
    ),
    "case": ('BASIC Realm="X"', [Challenge("basic", {"realm": "X"})]),
    "given twice": ('Basic realm="a", realm="b"', [Challenge("basic", {"realm": "a"})]),
    "without commas": ('Bearer realm="a" service="b"', [Challenge("bearer", {"realm": "a", "service": "b"})]),
    "without quotes": (
        "Bearer realm=https://a/b?c=d,service=e",
        [Challenge("bearer", {"realm": "https://a/b?c=d", "service": "e"})],
    ),
    "never closed": ('Bearer realm="a', [Challenge("bearer", {"realm": "a"})]),
    "junk before": ('"x, Bearer realm=evil" @, Basic realm=r', [Challenge("basic", {"realm": "r"})]),
    "nothing": (" ,, ", []),
}


@pytest.mark.parametrize(("header", "expected"), CHALLENGES.values(), ids=CHALLENGES.keys())
def test_challenges_of_a_header_are_told_apart(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected
    assert parse_challenges([header, "Basic"]) == [*expected, Challenge("basic")]


def test_plain_http_token_service_of_an_https_registry_is_not_asked() -> None:
    wire = Wire()
    with pytest.raises(BangerError, match="must not be trusted") as failure:
        wire.answer('Bearer realm="http://auth.example/token"')

    assert failure.value.kind is ErrorKind.INVALID
    assert wire.urls == []


def test_service_and_scope_of_the_challenge_are_asked_for() -> None:
    wire = Wire()
    challenge = 'Bearer realm="https://auth.example/token?x=1", service="r e", scope="repository:app:pull"'
    with pytest.raises(requests.ConnectionError):
        wire.answer(challenge)

    assert wire.urls == ["https://auth.example/token?x=1&service=r+e&scope=repository%3Aapp%3Apull"]


@pytest.mark.parametrize(
    ("challenge", "kind"),
    [
        ("Negotiate", ErrorKind.DENIED),
        ("Digest realm=x", ErrorKind.DENIED),
        ("Bearer", ErrorKind.INVALID),
        ('bearer realm=""', ErrorKind.INVALID),
        ('bearer realm="https://[oops/"', ErrorKind.INVALID),
    ],
)
def test_challenge_that_cannot_be_answered_is_refused_without_asking_anybody(challenge: str, kind: ErrorKind) -> None:
    wire = Wire()
    with pytest.raises(BangerError) as failure:
        wire.answer(challenge, plain_http=True)

    assert failure.value.kind is kind
    assert wire.urls == []


def test_refusal_without_a_challenge_is_not_answered() -> None:
    assert not Wire().answer("")


def test_header_that_another_thread_renewed_is_used_without_asking() -> None:
    wire = Wire()
    basic = Authorizer(Reference.parse("r.example/app"), plain_http=False, find=wire.find)
    offers = parse_challenges(['Basic realm="x"'])
    assert basic.answer("app", offers, "", set(), wire)
    header = basic.header("app")

    assert basic.answer("app", offers, "Basic stale", set(), wire)
    assert basic.header("app") == header
    assert wire.looked_up == 1
    assert not basic.answer("app", offers, header, set(), wire)
