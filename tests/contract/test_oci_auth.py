"""Logins: who is asked, what is sent where, and what a refusal looks like."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci.credentials import Credential
from banger.oci.reference import Reference
from banger.oci.registry import Endpoint, RegistryClient
from tests.support.faulty_registry import (
    Exchange,
    Fault,
    FaultyRegistry,
    faulty_registry,
    redirecting,
    registry_error,
    replaced,
    status,
)
from tests.support.oci_client import Puller
from tests.support.registry import BuiltImage, Layer, build_image

NAME = "test/app:1"
ALICE = Credential("alice", "s3cret")


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


@pytest.fixture
def image(registry: FaultyRegistry) -> BuiltImage:
    image = build_image([Layer({"etc/motd": b"hi"})])
    registry.serve(NAME, image)
    return image


def refusal(puller: Puller, registry: FaultyRegistry) -> BangerError:
    with pytest.raises(BangerError) as failure:
        puller.pull(registry.reference(NAME))
    return failure.value


def test_anonymous_token_is_fetched_once_for_all_requests(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users[""] = ""
    Puller(tmp_path).pull(registry.reference(NAME))

    assert len(registry.asked("/token")) == 1
    assert registry.asked("/token")[0].authorization == ""


def test_token_is_fetched_with_the_login(registry: FaultyRegistry, image: BuiltImage, tmp_path: Path) -> None:
    registry.token_users["alice"] = "s3cret"
    Puller(tmp_path, ALICE).pull(registry.reference(NAME))

    assert registry.asked("/token")[0].authorization == "Basic " + base64.b64encode(b"alice:s3cret").decode()
    assert {asked.authorization.partition(" ")[0] for asked in registry.asked("/v2/")} == {"", "Bearer"}


def test_token_that_expires_in_the_middle_is_renewed(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users[""] = ""
    puller = Puller(tmp_path)
    client = puller.client(registry.reference(NAME))
    client.get_document("manifests/1", "*/*", 1 << 20, "image")
    registry.valid_tokens.clear()

    assert client.get_document("manifests/1", "*/*", 1 << 20, "image").body == image.manifest


def test_wrong_password_is_denied_with_the_command_to_sign_in(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users["alice"] = "s3cret"
    error = refusal(Puller(tmp_path, Credential("alice", "wrong")), registry)

    assert error.kind is ErrorKind.DENIED
    assert error.message == f'the token service "{registry.host}" of registry "{registry.host}" refused the login'
    assert "incorrect username or password" in error.cause
    assert error.hint == f"docker login {registry.host}"
    assert len(registry.asked("/token")) == 1


def test_missing_login_is_denied(registry: FaultyRegistry, image: BuiltImage, tmp_path: Path) -> None:
    registry.token_users["alice"] = "s3cret"
    error = refusal(Puller(tmp_path), registry)

    assert error.kind is ErrorKind.DENIED
    assert error.hint == f"docker login {registry.host}"


@pytest.mark.parametrize(
    "realm", ["ftp://127.0.0.1/token", "//evil/token", "http://user:pw@127.0.0.1/token", "javascript:alert(1)"]
)
def test_odd_token_service_is_not_asked(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, realm: str
) -> None:
    registry.token_users["alice"] = "s3cret"
    registry.realm = realm
    error = refusal(Puller(tmp_path, ALICE), registry)

    assert error.kind is ErrorKind.INVALID
    assert "must not be trusted" in error.message


def test_token_service_that_redirects_gets_the_login_alone(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users["alice"] = "s3cret"
    with faulty_registry() as thief:
        registry.always("/token", redirecting(f"http://{thief.host}/token"))
        thief.always("/token", replaced(b'{"token": "stolen"}'))
        error = refusal(Puller(tmp_path, ALICE), registry)

    assert [asked.authorization for asked in thief.requests] == [""]
    assert error.kind is ErrorKind.DENIED


def test_refresh_token_is_posted_and_never_follows_a_redirect(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users["alice"] = "s3cret"
    with faulty_registry() as thief:
        registry.always("/token", redirecting(f"http://{thief.host}/token"))
        error = refusal(Puller(tmp_path, Credential(refresh_token="r3fresh")), registry)

    assert registry.asked("/token")[0].method == "POST"
    assert thief.requests == []
    assert error.kind is ErrorKind.INVALID


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX-Evil: 1"}'])
def test_token_answer_without_a_token_is_unavailable(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, body: bytes
) -> None:
    registry.token_users[""] = ""
    registry.always("/token", replaced(body))

    assert refusal(Puller(tmp_path), registry).kind is ErrorKind.UNAVAILABLE


def test_token_service_that_is_overloaded_once_is_asked_again(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users[""] = ""
    registry.on("/token", status(503), status(429, {"Retry-After": "1"}))

    assert Puller(tmp_path).pull(registry.reference(NAME))


def test_basic_challenge_is_answered_with_the_login(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    challenge = status(401, {"WWW-Authenticate": 'Basic realm="x"'})
    registry.on("/v2/", challenge)
    Puller(tmp_path, ALICE).pull(registry.reference(NAME))

    assert registry.requests[0].authorization == ""
    assert registry.requests[1].authorization.startswith("Basic ")


class Door:
    """Answers 401 with ``challenges``, a header each, until a request signs in as it should."""

    def __init__(self, accepted: str, *challenges: str) -> None:
        self.accepted = accepted
        self.challenges = challenges

    def __call__(self, exchange: Exchange) -> None:
        if exchange.headers.get("Authorization", "") == self.accepted:
            exchange.honest()
            return
        body = registry_error("UNAUTHORIZED", "who are you?")
        exchange.send_response(401)
        for challenge in self.challenges:
            exchange.send_header("WWW-Authenticate", challenge)
        exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        exchange.wfile.write(body)


BEARER = 'Bearer realm="http://{host}/token",service="s, \\"quoted\\""'
BASIC = 'Basic realm="a, b", charset="UTF-8"'
NEGOTIATE = "Negotiate YWJj=="


@pytest.mark.parametrize(
    "challenges",
    [
        pytest.param([BEARER, BASIC], id="two headers"),
        pytest.param([BASIC, BEARER], id="other order"),
        pytest.param([f"{BEARER}, {BASIC}"], id="one header"),
        pytest.param([f"{NEGOTIATE}, {BASIC}", "Digest realm=x, nonce=y", BEARER], id="unknown ones before"),
        pytest.param([BEARER.replace("Bearer", "bEARER").replace("realm", "REALM")], id="case"),
        pytest.param(["NTLM", BEARER.replace('"http://{host}/token"', "http://{host}/token")], id="without quotes"),
    ],
)
def test_token_is_preferred_however_it_is_offered_and_asked_for_with_its_own_scope(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, challenges: list[str]
) -> None:
    registry.always("/token", replaced(b'{"token": "t0"}'))
    registry.always("/v2/", Door("Bearer t0", *(challenge.format(host=registry.host) for challenge in challenges)))

    assert Puller(tmp_path, ALICE).pull(registry.reference(NAME))
    [asked] = registry.asked("/token")
    assert parse_qs(urlsplit(asked.path).query) == {"service": ['s, "quoted"'], "scope": ["repository:test/app:pull"]}


@pytest.mark.parametrize(
    "token_service",
    [
        pytest.param(status(401), id="refuses"),
        pytest.param(status(404), id="is not there"),
        pytest.param(status(503), id="is overloaded"),
        pytest.param(replaced(b"no token"), id="sends nonsense"),
        pytest.param(replaced(b'{"token": "useless"}'), id="sends a token that is not taken"),
    ],
)
def test_basic_is_tried_where_the_token_service_is_of_no_use(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, token_service: Fault
) -> None:
    registry.always("/token", token_service)
    registry.always("/v2/", Door(ALICE.basic, BEARER.format(host=registry.host), BASIC))

    assert Puller(tmp_path, ALICE).pull(registry.reference(NAME))
    # The way that works is remembered.
    assert len(registry.asked("/token")) == 1


def test_scopes_of_a_challenge_are_each_asked_for(registry: FaultyRegistry, image: BuiltImage, tmp_path: Path) -> None:
    scopes = "repository:test/app:pull repository:base:pull"
    registry.always("/token", replaced(b'{"access_token": "t0"}'))
    registry.always("/v2/", Door("Bearer t0", f'Bearer realm="http://{registry.host}/token?a=b",scope="{scopes}"'))
    Puller(tmp_path).pull(registry.reference(NAME))

    assert parse_qs(urlsplit(registry.asked("/token")[0].path).query) == {"a": ["b"], "scope": scopes.split()}


def test_scope_that_is_only_a_placeholder_is_replaced(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.always("/token", replaced(b'{"token": "t0"}'))
    registry.always("/v2/", Door("Bearer t0", f'Bearer realm="http://{registry.host}/token",scope="aws"'))
    Puller(tmp_path).pull(registry.reference(NAME))

    assert parse_qs(urlsplit(registry.asked("/token")[0].path).query) == {"scope": ["repository:test/app:pull"]}


def test_cookie_of_a_registry_is_not_kept(registry: FaultyRegistry, image: BuiltImage, tmp_path: Path) -> None:
    registry.on("/manifests/", status(503, {"Set-Cookie": "sid=1; Path=/", "Retry-After": "0"}))
    Puller(tmp_path).pull(registry.reference(NAME))

    assert [asked.headers.get("cookie") for asked in registry.requests] == [None] * 4


def test_registry_that_refuses_a_good_token_is_the_one_that_is_named(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.always("/token", replaced(b'{"token": "useless"}'))
    registry.always("/v2/", Door("never", BEARER.format(host=registry.host), BASIC))
    error = refusal(Puller(tmp_path, ALICE), registry)

    assert error.kind is ErrorKind.DENIED
    assert error.message == f'registry "{registry.host}" refused access to "{registry.host}/{NAME}"'
    assert "who are you?" in error.cause


def test_registry_with_unknown_ways_to_sign_in_only_says_which(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.always("/v2/", Door("never", NEGOTIATE, "Digest realm=x"))
    error = refusal(Puller(tmp_path, ALICE), registry)

    assert error.kind is ErrorKind.DENIED
    assert '"negotiate", "digest"' in error.cause


def test_registry_that_says_only_at_its_door_how_to_sign_in_is_asked_there(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.always("/v2/test/", Door(ALICE.basic))
    registry.always("/v2/", Door(ALICE.basic, BASIC))

    assert Puller(tmp_path, ALICE).pull(registry.reference(NAME))


def test_token_service_that_fails_is_the_one_that_is_named(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users[""] = ""
    registry.always("/token", status(500, body=registry_error("UNKNOWN", "disk on fire")))
    error = refusal(Puller(tmp_path), registry)

    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.message.startswith(f'the token service "{registry.host}"')
    assert "disk on fire" in error.cause


def test_token_service_that_cannot_be_reached_is_the_one_that_is_named(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    registry.token_users[""] = ""
    registry.realm = "http://127.0.0.1:1/token"
    error = refusal(Puller(tmp_path), registry)

    assert error.message == 'cannot connect to token service "127.0.0.1:1"'


def test_login_refused_by_basic_is_sent_once_only(registry: FaultyRegistry, image: BuiltImage, tmp_path: Path) -> None:
    registry.always("/v2/", status(401, {"WWW-Authenticate": 'Basic realm="x"'}))
    error = refusal(Puller(tmp_path, ALICE), registry)

    assert error.kind is ErrorKind.DENIED
    assert len(registry.requests) == 2


def test_netrc_login_is_not_sent(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login bob password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client = Puller(tmp_path / "blobs").client(registry.reference(NAME))
    client.session.trust_env = True  # as for every registry that is not on loopback
    client.get_document("manifests/1", "*/*", 1 << 20, "image")

    assert {asked.authorization for asked in registry.requests} == {""}


def test_proxy_of_the_environment_is_not_used_for_loopback(
    registry: FaultyRegistry, image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert Puller(tmp_path).pull(registry.reference(NAME))


def test_connection_refused_names_the_registry(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="cannot connect to registry") as failure:
        Puller(tmp_path).resolve("127.0.0.1:1/test/app")

    assert failure.value.kind is ErrorKind.UNAVAILABLE
    assert failure.value.subject == "127.0.0.1:1"
    assert failure.value.cause == "Connection refused"


def test_registry_that_talks_plain_http_behind_https_says_which_setting(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    reference = Reference.parse(registry.reference(NAME))
    client = RegistryClient(reference, Endpoint(reference.host, plain_http=False), CancelToken())

    with pytest.raises(BangerError, match="no TLS connection") as failure:
        client.get_document("manifests/1", "*/*", 1 << 20, "image")
    assert failure.value.kind is ErrorKind.UNAVAILABLE
    assert "registry.insecure" in failure.value.hint
