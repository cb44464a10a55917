"""What is refused at the door, because no host could make sense of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta

import pytest

from banger.core import clock, codec
from banger.core.errors import BangerError, ErrorKind
from banger.core.expiry import due
from banger.core.models import Vm, VmState
from banger.core.units import parse_duration, parse_size
from banger.core.wire.checks import check_field, check_request
from banger.core.wire.images import PullImageBody
from banger.core.wire.vm_checks import check_spec
from banger.core.wire.vm_spec import VmSpec

SPEC = VmSpec("debian", env=("A=1\n2",), labels={"k": "v"}, ttl_s=3600.0)


def test_ordinary_wish_passes() -> None:
    check_spec(SPEC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl_s", math.nan), ("ttl_s", math.inf), ("ttl_s", -1.0), ("ttl_s", 9999999 * 86400.0),
        ("idle_s", math.nan), ("idle_s", 1e300), ("cpus", -1), ("cpus", 1 << 40), ("memory_mib", -5),
        ("memory_mib", 1 << 62), ("disk_mib", 1 << 50), ("home_mib", -1), ("image", "debian\x1b[2J"),
        ("user", "root\n"), ("workdir", "/a\0b"), ("workdir", "/" * 5000), ("labels", {"k": "\x07"}),
        ("labels", {str(number): "" for number in range(5000)}), ("env", ("A=\0",)), ("env", ("A=" + "x" * (128 << 10),)),
        ("env", ("A",)), ("env", ("=b",)), ("env", ("two words",)), ("accelerator", "hax"), ("network", "wifi"), ("machine", "pc"), ("on_reboot", "maybe"),
        ("command", ("x" * (128 << 10),)), ("entrypoint", ("a\0",)), ("hostname", "a\n"),
    ],
)  # fmt: skip
def test_wish_that_no_host_can_grant_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    with pytest.raises(BangerError) as caught:
        check_spec(replace(SPEC, **{field: value}))
    assert caught.value.kind is ErrorKind.USAGE
    assert caught.value.subject.split()[0] == field
    assert str(caught.value).isprintable()
    assert caught.value.hint


def test_number_above_the_most_is_refused_with_the_most_in_full() -> None:
    with pytest.raises(BangerError) as caught:
        check_request(PullImageBody("alpine", size_mib=100 << 20))
    assert caught.value.hint == "at least 0 and at most 16777216 (16 TiB; 1024 is a GiB)"
    with pytest.raises(BangerError, match="size") as unnamed:
        check_field("size", 1 << 70)
    assert unnamed.value.hint.endswith(f"at most {(1 << 63) - 1}")


@pytest.mark.parametrize("text", ["9999999d", "9" * 400, "1e3", "", "-1s", "1h30", "nan", "inf"])
def test_duration_that_is_none_or_too_long_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_duration(text)
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "G", "9999999999T", "", "-1M", "nan"])
def test_size_that_is_none_or_too_large_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_size(text)
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "x", "ttl_s": NaN}',
        '{"image": "x", "ttl_s": Infinity}',
        '{"image": "x", "cpus": 9223372036854775808}',
    ],
)
def test_codec_takes_no_number_that_json_or_the_store_does_not_have(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        codec.from_plain(VmSpec, json.loads(text))
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize("seconds", [9e15, math.nan, math.inf])
def test_time_that_an_earlier_version_let_in_is_never_over_and_breaks_nothing(seconds: float) -> None:
    vm = Vm("id", "web", replace(SPEC, ttl_s=seconds, idle_s=seconds), VmState.RUNNING, clock.now())
    assert due(vm, clock.now() + timedelta(days=9), clock.now()) is None
