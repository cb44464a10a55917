"""The resolver's settings: what is understood, what is refused, and that dnspython is loaded only when it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.dns.model import DnsSettings, NameServer
from tests.support.cli import ROOT


def settings(**env: str) -> DnsSettings:
    return DnsSettings.from_config(Config.load(Path("/nonexistent"), {f"BANGER_DNS_{k}": v for k, v in env.items()}))


def test_defaults_answer_names_of_vms_on_loopback_and_nothing_else() -> None:
    assert settings() == DnsSettings("vm", NameServer("127.0.0.1", 5354), (), host_forwards=False)


def test_everything_can_be_set() -> None:
    found = settings(
        SUFFIX="lab.example.org",
        LISTEN="[::1]:5300",
        UPSTREAM="192.0.2.1, [2001:db8::1]:5353,2001:db8::2",
        HOST_NAMES="all",
    )
    upstream = (NameServer("192.0.2.1", 53), NameServer("2001:db8::1", 5353), NameServer("2001:db8::2", 53))
    assert found == DnsSettings("lab.example.org", NameServer("::1", 5300), upstream, host_forwards=True)
    assert settings(LISTEN="off").listen is None
    assert list(map(str, upstream)) == ["192.0.2.1:53", "[2001:db8::1]:5353", "[2001:db8::2]:53"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SUFFIX", ""), ("SUFFIX", ".vm"), ("SUFFIX", "vm."), ("SUFFIX", "VM"), ("SUFFIX", "a b"), ("SUFFIX", "*"),
        ("SUFFIX", "-a"), ("SUFFIX", "vm\n"), ("SUFFIX", "a" * 64), ("SUFFIX", ".".join(["abcdefghi"] * 11)),
        ("LISTEN", ""), ("LISTEN", "localhost:53"), ("LISTEN", "0.0.0.0:53"), ("LISTEN", "192.0.2.1"), ("LISTEN", "127.0.0.1:"),
        ("LISTEN", "127.0.0.1:99999"), ("LISTEN", "[::1"), ("LISTEN", "[::1]x"), ("UPSTREAM", "dns.example.org"),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_with_the_name_of_its_key(key: str, value: str) -> None:
    with pytest.raises(BangerError) as caught:
        settings(**{key: value})
    assert (caught.value.kind, caught.value.subject) == (ErrorKind.USAGE, f"dns.{key.lower()}")
    assert caught.value.hint


def test_dnspython_is_not_loaded_before_the_resolver_starts() -> None:
    code = "import sys, banger.dns.service, banger.dns.patterns; sys.exit('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
