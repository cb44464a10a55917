"""Image configurations: data from strangers, kept in proportion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from banger.core.models import ImageConfig
from banger.oci.documents import DocumentError
from banger.oci.image_config import parse_image_config
from banger.oci.platform import Platform


def parse(config: Any, **outer: Any) -> ImageConfig:
    data = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": ["sha256:" + "0" * 64]},
        "config": config,
        **outer,
    }
    return parse_image_config(json.dumps(data).encode(), layers=1)[0]


def test_config_keeps_what_a_machine_may_use() -> None:
    config = parse(
        {
            "Env": ["PATH=/bin", "EMPTY=", "A=b=c"],
            "Entrypoint": ["/init"],
            "Cmd": ["sh", "-c", "a\nb"],
            "User": "app:app",
            "WorkingDir": "/srv",
            "Labels": {"a": "b"},
            "Volumes": {"/data": {}},
        }
    )

    assert config == ImageConfig(
        ("PATH=/bin", "EMPTY=", "A=b=c"), ("/init",), ("sh", "-c", "a\nb"), "app:app", "/srv", {"a": "b"}, ("/data",)
    )


@pytest.mark.parametrize("config", [None, {}, {"Env": None, "Cmd": None, "Labels": None, "User": ""}])
def test_config_without_anything_is_empty(config: Any) -> None:
    assert parse(config) == ImageConfig()


def test_command_that_is_a_text_is_one_word() -> None:
    assert parse({"Cmd": "/bin/sh", "Entrypoint": ""}) == ImageConfig(cmd=("/bin/sh",))


def test_label_that_is_null_is_empty() -> None:
    assert parse({"Labels": {"a": None}}).labels == {"a": ""}


def test_environment_entries_that_are_no_assignments_are_dropped() -> None:
    assert parse({"Env": ["A=1", "nothing", "=x"]}).env == ("A=1",)


def test_platform_comes_with_it() -> None:
    body = json.dumps({"os": "linux", "architecture": "arm", "variant": "v7", "rootfs": {"diff_ids": []}}).encode()

    assert parse_image_config(body, layers=0)[1] == Platform("linux", "arm", "v7")


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "A=1"},
        {"Env": [1]},
        {"Env": ["A=\0"]},
        {"Env": ["A=1"] * 5000},
        {"Env": ["A=" + "x" * 200_000]},
        {"Env": ["A=" + "x" * 100_000] * 11},
        {"Cmd": {"0": "sh"}},
        {"User": 0.5},
        {"User": "a" * 300},
        {"User": "root\x1b[2J"},
        {"WorkingDir": "/\n"},
        {"WorkingDir": ["/"]},
        {"Volumes": ["/data"]},
        {"Volumes": {"/a\n/etc": {}}},
        {"Volumes": {f"/{n}": {} for n in range(5000)}},
        {"Labels": ["a"]},
        {"Labels": {"a": 1}},
        {"Labels": {"a": "x" * (2 << 20)}},
        "sh",
    ],
)
def test_config_out_of_proportion_is_refused(config: Any) -> None:
    with pytest.raises(DocumentError):
        parse(config)


def test_config_directories_are_meant_from_the_root() -> None:
    config = parse({"WorkingDir": "app", "Volumes": {"data": None, "/b": {}, "": {}}})
    assert (config.workdir, config.volumes) == ("/app", ("/b", "/data"))


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": []}, {"diff_ids": ["a", "b"]}, []])
def test_config_that_does_not_list_the_layers_is_refused(rootfs: Any) -> None:
    with pytest.raises(DocumentError, match="layers of the manifest"):
        parse({}, rootfs=rootfs)
