"""What ``-p`` takes and refuses: the grammar of ``docker run``."""

from __future__ import annotations

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.publishing import MOST_PORTS, check_forwards, covers, parse, parse_publish
from banger.core.wire.port_forward import PortForward


@pytest.mark.parametrize(
    ("text", "forwards"),
    [
        ("80", [PortForward(80)]),
        ("80/udp", [PortForward(80, protocol="udp")]),
        ("8080:80", [PortForward(80, 8080)]),
        ("8080:80/tcp", [PortForward(80, 8080)]),
        ("53:53/UDP", [PortForward(53, 53, protocol="udp")]),
        ("0:80", [PortForward(80)]),
        ("127.0.0.2:8080:80", [PortForward(80, 8080, "127.0.0.2")]),
        ("127.0.0.1::80", [PortForward(80)]),
        ("0.0.0.0::80/udp", [PortForward(80, 0, "0.0.0.0", "udp")]),
        (":8080:80", [PortForward(80, 8080)]),
        ("[::1]:8080:80", [PortForward(80, 8080, "::1")]),
        ("[::1]::80", [PortForward(80, 0, "::1")]),
        ("[0:0::1]:8080:80", [PortForward(80, 8080, "::1")]),
        ("::1:8080:80", [PortForward(80, 8080, "::1")]),
        ("[::]:53:53/udp", [PortForward(53, 53, "::", "udp")]),
        ("[2001:DB8::1]:8080:80", [PortForward(80, 8080, "2001:db8::1")]),
        ("[::ffff:127.0.0.1]:8080:80", [PortForward(80, 8080, "127.0.0.1")]),
        ("8000-8002:8000-8002", [PortForward(port, port) for port in (8000, 8001, 8002)]),
        ("9000-9001:80-81/udp", [PortForward(80, 9000, protocol="udp"), PortForward(81, 9001, protocol="udp")]),
        ("80-81", [PortForward(80), PortForward(81)]),
        ("8000-8010:80", [PortForward(80, 8000, host_port_end=8010)]),
        ("8000-8000:80", [PortForward(80, 8000)]),
        ("[::1]:8000-8001:80-81", [PortForward(80, 8000, "::1"), PortForward(81, 8001, "::1")]),
        ("65535:65535", [PortForward(65535, 65535)]),
        ("1:80", [PortForward(80, 1)]),
        ("8080:1", [PortForward(1, 8080)]),
        ("1-2:1-2", [PortForward(1, 1), PortForward(2, 2)]),
    ],
)
def test_port_forward_is_read(text: str, forwards: list[PortForward]) -> None:
    assert parse(text) == forwards


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "0", "8080:0", "70000", "8080:70000", "-1:80", "80/", "80/sctp", "80/tcp/udp", "8080:80:tcp",
        "1:2:3:4:5", "[::1]", "[::1]:80", "[::1]80:80", "[127.0.0.1]:8080:80", "[::1:8080:80", "[]:8080:80",
        "localhost:8080:80", "300.0.0.1:8080:80", "127.0.0.01:8080:80", "[fe80::1%lo]:8080:80",
        "8002-8000:8002-8000", "8000-8002:80-81", "8000:80-81", "0-5:80-85", "8000-:80", "8000-8001-8002:80",
        "65535-65536:1-2", " 80", "8080: 80", "8080:80 ", "٨٠",
    ],
)  # fmt: skip
def test_port_forward_that_is_none_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse(text)
    assert caught.value.kind is ErrorKind.USAGE
    assert "[::1]:8080:80" in caught.value.hint


def test_name_instead_of_an_address_is_told() -> None:
    with pytest.raises(BangerError) as caught:
        parse("localhost:8080:80")
    assert caught.value.cause == '"localhost" is not an address, but a name'


@pytest.mark.parametrize(
    "texts",
    [
        ["53:53/udp", "53:53/tcp"],
        ["127.0.0.1:80:80", "127.0.0.2:80:80"],
        ["0.0.0.0:80:80", "[::]:80:80"],
        ["80", "80"],
    ],
)
def test_ports_that_do_not_meet_can_be_published_together(texts: list[str]) -> None:
    assert len(parse_publish(texts)) == 2


@pytest.mark.parametrize(
    "texts",
    [
        ["8080:80", "8080:81"],
        ["8080:80", "8080:80"],
        ["8080:80", "0.0.0.0:8080:80"],
        ["[::]:8080:80/udp", "[::1]:8080:80/udp"],
        ["8000-8010:8000-8010", "8005:22"],
    ],
)
def test_port_published_twice_is_refused_and_both_are_named(texts: list[str]) -> None:
    with pytest.raises(BangerError, match="is published twice") as caught:
        parse_publish(texts)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.cause.count("->") == 2


def test_range_that_is_wider_than_a_vm_may_have_is_refused_at_once() -> None:
    assert len(parse_publish([f"10000-{9999 + MOST_PORTS}:10000-{9999 + MOST_PORTS}"])) == MOST_PORTS
    with pytest.raises(BangerError, match="more than the 1000"):
        parse_publish(["1-65535:1-65535/udp"])


@pytest.mark.parametrize(
    "forward",
    [
        PortForward(0),
        PortForward(80, 70000),
        PortForward(80, protocol="sctp"),
        PortForward(80, 8080, "localhost"),
        PortForward(80, 8080, "[::1]"),
        PortForward(80, 8080, "0:0::1"),
        PortForward(80, 8080, host_port_end=8000),
    ],
)
def test_forward_of_a_request_that_is_none_is_refused(forward: PortForward) -> None:
    with pytest.raises(BangerError) as caught:
        check_forwards((forward,))
    assert caught.value.kind is ErrorKind.USAGE


def test_every_address_covers_those_of_its_own_kind_only() -> None:
    assert covers("0.0.0.0", "127.0.0.1")
    assert covers("::1", "::")
    assert not covers("0.0.0.0", "::1")
    assert not covers("127.0.0.1", "127.0.0.2")
