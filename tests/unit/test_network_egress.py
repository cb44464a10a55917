"""What an egress policy's text means, and what is none."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.egress import NEVER, EgressMode, EgressPolicy
from banger.core.errors import BangerError, ErrorKind
from banger.daemon.vm_names import allowed_names


@pytest.mark.parametrize("text", ["open", "public", "none"])
def test_policy_of_one_word_reads_back(text: str) -> None:
    policy = EgressPolicy.parse(text)
    assert policy == EgressPolicy(EgressMode(text))
    assert str(policy) == text


def test_policy_of_lists_reads_back() -> None:
    policy = EgressPolicy.parse(" allow-names=Deb.Example.,*.example.org  allow=192.0.2.1,2001:db8::/32,192.0.2.1 ")
    assert policy.networks == (ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))
    assert policy.names == ("deb.example", "*.example.org")
    assert str(policy) == "allow=192.0.2.1/32,2001:db8::/32 allow-names=deb.example,*.example.org"
    assert EgressPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "", "all", "OPEN", "open none", "open allow=192.0.2.1", "allow", "allow=", "allow=192.0.2.1,", "deny=192.0.2.1",
        "allow=192.0.2.1/24", "allow=example.org", "allow=192.0.2.1 allow=192.0.2.2", "allow-names=", "allow-names=**",
        "allow-names=a..b", "allow-names=192.0.2.1", "allow-names=-a.example", "allow-names=a.*.example", "allow-names=bücher.example",
        "allow-names=" + "a" * 64 + ".example", "allow-names=a.example;reboot", "allow=fe80::1%eth0",
        "allow=2001:db8::1%eth0", "allow=2001:db8::1%x;flush", "allow=2001:db8::%a}/64",
    ],
)  # fmt: skip
def test_text_that_is_no_policy_is_a_usage_error_with_a_hint(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        EgressPolicy.parse(text)
    assert caught.value.kind is ErrorKind.USAGE
    assert "allow=" in caught.value.hint


@pytest.mark.parametrize("network", [*map(str, NEVER), "169.254.169.254", "127.0.0.1", "::1", "fe80::1"])
def test_policy_cannot_allow_the_host_or_metadata(network: str) -> None:
    with pytest.raises(BangerError) as caught:
        EgressPolicy.parse(f"allow={network}")
    assert "metadata" in caught.value.cause


def test_policy_may_allow_a_network_around_what_is_never_reached() -> None:
    assert EgressPolicy.parse("allow=0.0.0.0/0,::/0").networks == (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize("policy", ["open", "public"])
def test_policy_without_names_lets_every_name_be_looked_up(policy: str) -> None:
    assert allowed_names(EgressPolicy.parse(policy)) is None


@pytest.mark.parametrize(
    ("policy", "name", "allowed"),
    [
        *(("allow-names=a.example,*.b.example", name, True) for name in ("a.example", "A.Example.", "x.y.b.example")),
        *(("allow-names=a.example,*.b.example", name, False) for name in ("b.example", "x.a.example", "xb.example")),
        ("allow-names=*", "any.example", True),
        ("none", "any.example", False),
        ("allow=192.0.2.1", "any.example", False),
    ],
)
def test_names_are_looked_up_only_if_the_policy_has_them(policy: str, name: str, allowed: bool) -> None:
    patterns = allowed_names(EgressPolicy.parse(policy))
    assert patterns is not None
    assert patterns.allows([label.encode() for label in name.split(".")]) is allowed


@given(st.text(max_size=60))
def test_any_text_is_a_policy_that_reads_back_or_a_usage_error(text: str) -> None:
    try:
        policy = EgressPolicy.parse(text)
    except BangerError as error:
        assert error.kind is ErrorKind.USAGE
    else:
        assert EgressPolicy.parse(str(policy)) == policy
