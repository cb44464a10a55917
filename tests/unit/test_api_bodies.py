"""What is no request is told as that: numbers, texts and JSON as nobody means them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from banger.api.bodies import decode
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.exec import ExecConfig, RunConfig
from banger.core.wire.images import ExportImageBody, PullImageBody, TagImageBody
from banger.core.wire.vms import CreateVmBody


def refusal(data: bytes, cls: type[Any]) -> BangerError:
    with pytest.raises(BangerError) as caught:
        decode(data, cls)
    assert caught.value.kind is ErrorKind.USAGE
    assert len(str(caught.value)) <= 4100, "two texts of 2000"
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a", "name": "b"}', '{"name": NaN}', '{"name": Infinity}', "[" * 100_000, '{"name": ' * 100_000,
        "1" * 5000, "-", "{", '{"name": "a"} x', "\ufeff{}", "'x'",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    refusal(text.encode(), TagImageBody)


def test_name_that_comes_twice_deep_inside_is_refused_and_named() -> None:
    assert "'cpus' is there twice" in str(refusal(b'{"spec": {"image": "x", "cpus": 1, "cpus": 2}}', CreateVmBody))


def test_many_names_are_read_in_no_time() -> None:
    labels = ", ".join(f'"k{number}": ""' for number in range(60_000))
    refusal(f'{{"spec": {{"image": "x", "labels": {{{labels}}}}}}}'.encode(), CreateVmBody)


@pytest.mark.parametrize("data", [b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b'{"name": "a\\u0000"}'])
def test_text_that_is_none_is_refused(data: bytes) -> None:
    refusal(data, TagImageBody)


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"1", b"", b"{}", b'{"name": 1}', b'{"name": null}'])
def test_json_that_is_no_request_is_refused(data: bytes) -> None:
    refusal(data, TagImageBody)


@pytest.mark.parametrize("number", ["-1", "1e400", "9" * 20, "9" * 5000, "true", '"1"', "1.0", "null", "[]"])
def test_size_that_is_no_number_of_anything_is_refused(number: str) -> None:
    refusal(f'{{"reference": "x", "size_mib": {number}}}'.encode(), PullImageBody)
    refusal(f'{{"path": "/x", "defaults": {{"disk_mib": {number}}}}}'.encode(), ExportImageBody)


@pytest.mark.parametrize("number", ["-1", "1e400", "-1e-9", "1e300", "9" * 400])
def test_time_that_is_none_is_refused(number: str) -> None:
    refusal(f'{{"timeout_s": {number}}}'.encode(), ExecConfig)
    refusal(f'{{"spec": {{"image": "x", "ttl_s": {number}}}}}'.encode(), RunConfig)


def test_zero_has_no_sign() -> None:
    made = decode(b'{"spec": {"image": "x", "ttl_s": -0.0, "cpus": -0}}', CreateVmBody)
    assert (str(made.spec.ttl_s), made.spec.cpus) == ("0.0", 0)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 500_000])
def test_long_names_are_refused_without_repeating_them(name: str) -> None:
    for cls, body in (
        (TagImageBody, {"name": name}), (PullImageBody, {"reference": name}), (ExecConfig, {"user": name}),
        (CreateVmBody, {"spec": {"image": "x", "labels": {name: ""}}}),
    ):  # fmt: skip
        refusal(json.dumps(body).encode(), cls)


def test_ordinary_texts_pass_whatever_their_script() -> None:
    path = "/srv/déjà vu\u00a0\n\N{FAMILY}.ext4"
    assert decode(json.dumps({"path": path}).encode(), ExportImageBody).path == path
    assert decode(json.dumps({"argv": ["a\nb", "x" * 100_000]}).encode(), ExecConfig).argv == ("a\nb", "x" * 100_000)
