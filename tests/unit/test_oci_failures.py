"""Failures of a registry: pauses, hints, and words from outside made harmless."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime

import pytest
import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci import failures
from banger.oci.reference import Reference
from banger.oci.registry import Endpoint, Timeouts, is_loopback
from banger.oci.retry import Retrier, RetryPolicy, TransientError
from banger.oci.stall_timer import StallTimer

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:00:30", None),
        ("9" * 400, 999999999.0),
        ("²", None),
        ("Mon, 23 Nov 99999999999999999999 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert failures.retry_after_s(header, NOON) == seconds


def test_pause_never_exceeds_the_longest() -> None:
    policy = RetryPolicy(first_s=1.0, longest_s=20.0)

    assert policy.pause_s(1, 86400.0) == 20.0
    assert policy.pause_s(50, None) == 20.0
    assert 0.8 <= policy.pause_s(1, None) <= 1.2
    assert policy.pause_s(1, 5.0) == 5.0


def test_retrier_gives_up_with_the_final_error_after_all_attempts() -> None:
    final = BangerError(ErrorKind.UNAVAILABLE, "gone")
    calls = []

    def fail() -> None:
        calls.append(1)
        raise TransientError(final)

    with pytest.raises(BangerError, match="gone"):
        Retrier(RetryPolicy(attempts=4, first_s=0.0), CancelToken(), lambda _: None).run(fail)
    assert len(calls) == 4


def test_retrier_leaves_its_pause_when_cancelled() -> None:
    token = CancelToken()
    token.cancel()
    retrier = Retrier(RetryPolicy(first_s=60.0, longest_s=60.0), token, lambda _: None)

    with pytest.raises(BangerError) as failure:
        retrier.failed(TransientError(BangerError(ErrorKind.UNAVAILABLE, "gone")))
    assert failure.value.kind is ErrorKind.CANCELLED


def test_words_from_outside_are_cut_and_harmless() -> None:
    body = b'{"errors": [{"code": "X", "message": "a\\u001b[31m\\n%s"}, 5, {"code": "Y"}]}' % (b"z" * 1000)
    words = failures.errors_in(body)

    assert words.startswith("X: a [31m zzz")
    assert len(words) <= 300
    assert words.isprintable()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"errors": {}}', b"<html>", b"[" * 100_000])
def test_body_without_errors_has_no_words(body: bytes) -> None:
    assert failures.errors_in(body) == ""


def test_untrusted_certificate_is_final_and_names_the_remedy() -> None:
    error = requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "self-signed certificate"))

    with pytest.raises(BangerError, match='certificate of registry "r" is not trusted') as failure:
        failures.unreachable("r", error)
    assert failure.value.kind is ErrorKind.UNAVAILABLE
    assert "REQUESTS_CA_BUNDLE" in failure.value.hint


def test_plain_http_behind_https_says_which_setting() -> None:
    error = requests.exceptions.SSLError(ssl.SSLError(1, "WRONG_VERSION_NUMBER"))

    with pytest.raises(BangerError, match="no TLS connection") as failure:
        failures.unreachable("r.example:5000", error)
    assert 'registry.insecure = "r.example:5000"' in failure.value.hint


def test_unknown_host_is_final() -> None:
    cause = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(BangerError, match='cannot find registry "nowhere"') as failure:
        failures.unreachable("nowhere", requests.exceptions.ConnectionError(cause))
    assert failure.value.cause == "Name or service not known"


def test_name_server_that_is_away_is_worth_another_try() -> None:
    cause = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert failures.unreachable("r.example", requests.exceptions.ConnectionError(cause)).final.kind is (
        ErrorKind.UNAVAILABLE
    )


def test_login_hint_names_the_registry_but_for_docker_hub() -> None:
    assert failures.login(Reference.parse("alpine")) == "docker login"
    assert failures.login(Reference.parse("ghcr.io/a/b")) == "docker login ghcr.io"


@pytest.mark.parametrize(
    ("text", "insecure", "url"),
    [
        ("alpine", "", "https://registry-1.docker.io/v2"),
        ("ghcr.io/a", "", "https://ghcr.io/v2"),
        ("127.0.0.1:5000/a", "", "http://127.0.0.1:5000/v2"),
        ("localhost/a", "", "http://localhost/v2"),
        ("[::1]:5000/a", "", "http://[::1]:5000/v2"),
        ("r.lan:5000/a", "other.lan, r.lan:5000", "http://r.lan:5000/v2"),
        ("r.lan/a", "r.lan:5000", "https://r.lan/v2"),
    ],
)
def test_only_loopback_and_listed_registries_are_talked_to_in_the_clear(text: str, insecure: str, url: str) -> None:
    assert Endpoint.of(Reference.parse(text), insecure).url == url


def test_host_that_only_looks_like_loopback_is_none() -> None:
    assert not is_loopback("127.0.0.1.evil.example")
    assert not is_loopback("localhost.evil.example")
    assert is_loopback("127.9.9.9:80")


@pytest.mark.parametrize(
    ("setting", "limit_s"), [("60", 60.0), ("0", 1.0), ("-5", 1.0), ("nan", 1.0), ("inf", 86400.0), ("1e300", 86400.0)]
)
def test_limit_of_a_stall_is_one_that_can_be_waited_for(setting: str, limit_s: float) -> None:
    timeouts = Timeouts.patient(float(setting))

    assert (timeouts.stall_s, timeouts.read_s) == (limit_s, limit_s / 2)
    assert 0 < StallTimer("x", float(setting), lambda _: None).left_s() <= limit_s


class Refusal:
    """An answer whose body stops after its beginning, until somebody cuts the connection."""

    def __init__(self) -> None:
        self.raw, self.reading = self, threading.Event()
        self._pieces = [b'{"errors": [']
        self._cut = threading.Event()

    def read1(self, _size: int, *, decode_content: bool) -> bytes:
        assert decode_content
        if self._pieces:
            return self._pieces.pop()
        self.reading.set()
        assert self._cut.wait(20)
        return b""

    def shutdown(self) -> None:
        self._cut.set()


def test_refusal_whose_words_do_not_come_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_LONGEST_READING_S", 0.05)
    assert failures.body_of_refusal(Refusal(), CancelToken()) == b'{"errors": ['  # type: ignore[arg-type]


def test_refusal_whose_words_do_not_come_can_be_cancelled() -> None:
    refusal, token = Refusal(), CancelToken()
    raised: list[BangerError] = []

    def read() -> None:
        with pytest.raises(BangerError) as caught:
            failures.body_of_refusal(refusal, token)  # type: ignore[arg-type]
        raised.append(caught.value)

    reader = threading.Thread(target=read)
    reader.start()
    assert refusal.reading.wait(20)
    token.cancel()
    reader.join(3)
    assert [error.kind for error in raised] == [ErrorKind.CANCELLED]
