"""Verbs of images, kernels and catalogs: what they ask the daemon for, what they print, how they end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from banger.core.wire.system import PruneBody
from tests.support.cli import Cli, banger
from tests.support.command import Command
from tests.support.fake_api import FakeApi, as_read, image_json, kernel_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)
URL = "https://kernels.example/vmlinuz"
SUM = "0" * 64


def finding(severity: str, code: str, hint: str = "") -> dict[str, str]:
    return {"severity": severity, "code": code, "message": f"about {code}", "hint": hint}


def report(*findings: dict[str, str], **facts: Any) -> dict[str, Any]:
    errors = sum(found["severity"] == "error" for found in findings)
    return {
        "image": "debian", "kernel": "", "kernel_config": False, "errors": errors, "warnings": 0,
        "findings": [*findings], **facts,
    }  # fmt: skip


def test_register_names_the_image_after_its_file_and_sends_absolute_paths(
    cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/usr")
    api.long("POST", "/v1/images/register", image_json("own"))

    ended = cli("image", "register", "--rootfs", "own.ext4", "--kernel", "lab", "--work-seed", "seed.ext4")

    assert (ended.code, ended.out) == (0, "own\n")
    assert api.calls[0].body == {
        "name": "own", "rootfs_path": "/usr/own.ext4", "kernel": "lab", "seed_path": "/usr/seed.ext4",
    }  # fmt: skip


def test_register_takes_another_name(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/images/register", image_json("mine"))
    cli("image", "register", "--rootfs", "/a/b.ext4", "--name", "mine")
    assert api.calls[0].body == {"name": "mine", "rootfs_path": "/a/b.ext4"}


def test_promote_takes_several_and_reports_each(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/images/a/promote", image_json("a"))
    api.fail("POST", "/v1/images/b/promote", 404, kind="not_found", message='image "b" not found')
    ended = cli("image", "promote", "a", "b")
    assert (ended.code, ended.out, ended.err) == (3, "a\n", 'error: image "b" not found\n')


def test_tag_gives_the_new_name(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/images/python:3.12/tag", image_json("py"))
    assert cli("image", "tag", "python:3.12", "py").out == "py\n"
    assert api.calls[0].body == {"name": "py"}


def test_commit_names_the_image_and_what_to_keep(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/vms/web/commit", image_json("golden"))
    ended = cli("image", "commit", "web", "--name", "golden", "--keep", "/etc/machine-id", "--keep", "/root/x")
    assert ended.out == "golden\n"
    assert api.calls[0].body == {"name": "golden", "keep": ["/etc/machine-id", "/root/x"]}


def test_commit_of_a_running_vm_ends_with_the_daemons_hint(cli: Cli, api: FakeApi) -> None:
    api.fail(
        "POST", "/v1/vms/web/commit", 409,
        kind="conflict", message='VM "web" is running, not stopped', hint="banger vm stop web",
    )  # fmt: skip
    ended = cli("image", "commit", "web", "--name", "golden")
    assert ended.code == 4
    assert "hint: banger vm stop web" in ended.err


def test_export_prints_the_path_and_tells_the_size(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    written = {"path": "/usr/debian.bundle", "size_bytes": 3 << 20}
    api.long("POST", "/v1/images/debian/export", written)
    ended = cli("image", "export", "debian", "debian.bundle", "--form", "oci")
    assert (ended.out, ended.err) == ("/usr/debian.bundle\n", "wrote 3.0 MiB\n")
    assert api.calls[0].body == {"path": "/usr/debian.bundle", "form": "oci"}
    assert cli("image", "export", "debian", "x", "--json").json == written


@pytest.mark.parametrize("verb", ["export", "push"])
def test_sizes_for_the_machines_of_a_bundle_are_sent_when_given(cli: Cli, api: FakeApi, verb: str) -> None:
    api.long("POST", f"/v1/images/debian/{verb}", {"path": "/x", "digest": "sha256:1"})
    cli("image", verb, "debian", "x", "--cpus", "2", "--memory", "1G")
    assert api.calls[0].body["defaults"] == {"cpus": 2, "memory_mib": 1024}


@pytest.mark.parametrize("verb", ["export", "push"])
def test_unknown_form_is_refused_before_the_daemon_is_asked(cli: Cli, api: FakeApi, verb: str) -> None:
    ended = cli("image", verb, "debian", "x", "--form", "zip")
    assert (ended.code, api.calls) == (2, [])
    assert "use bundle, oci" in ended.err


def test_push_prints_the_digest(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/images/debian/push", {"digest": "sha256:1"})
    api.long("POST", "/v1/kernels/lab/push", {"digest": "sha256:2"})
    assert cli("image", "push", "debian", "localhost:5000/d:1", "--plain-http").out == "sha256:1\n"
    assert cli("kernel", "push", "lab", "ghcr.io/me/k:1").out == "sha256:2\n"
    assert api.calls[0].body == {"reference": "localhost:5000/d:1", "plain_http": True}
    assert api.calls[1].body == {"reference": "ghcr.io/me/k:1"}


@pytest.mark.parametrize("noun", ["image", "kernel"])
def test_delete_forces_only_when_told(cli: Cli, api: FakeApi, noun: str) -> None:
    api.long("DELETE", f"/v1/{noun}s/x", {"id": "a", "name": "x"})
    cli(noun, "delete", "x")
    cli(noun, "delete", "x", "--force")
    assert [call.query.get("force") for call in api.calls] == [None, ["true"]]


@pytest.mark.parametrize(
    ("arguments", "bodies"),
    [
        (["debian-cloud"], [{"name": "debian-cloud"}]),
        (["debian-cloud", "--name", "k"], [{"name": "k", "source": "debian-cloud"}]),
        (["oci:ghcr.io/me/k:1"], [{"source": "oci:ghcr.io/me/k:1"}]),
        (["ghcr.io/me/k", "lab"], [{"source": "ghcr.io/me/k"}, {"name": "lab"}]),
        ([URL, "--sha256", SUM, "--name", "k"], [{"name": "k", "source": f"{URL}#sha256={SUM}"}]),
        (["apt:linux-image-amd64"], [{"source": "apt:linux-image-amd64"}]),
    ],
)
def test_kernel_pull_sends_where_from(
    cli: Cli, api: FakeApi, arguments: list[str], bodies: list[dict[str, str]]
) -> None:
    api.long("POST", "/v1/kernels/pull", kernel_json())
    assert cli("kernel", "pull", *arguments).code == 0
    sent = [call.body for call in api.calls]  # several are asked for at once, in no order
    assert sorted(sent, key=str) == sorted(bodies, key=str)


@pytest.mark.parametrize(
    "arguments", [["a", "b", "--name", "k"], ["a", "b", "--sha256", SUM], ["oci:ghcr.io/k", "--sha256", SUM]]
)
def test_kernel_pull_refuses_options_that_mean_nothing(cli: Cli, api: FakeApi, arguments: list[str]) -> None:
    assert cli("kernel", "pull", *arguments).code == 2
    assert api.calls == []


@pytest.mark.parametrize(
    ("noun", "nouns"),
    [("image", ["image"]), ("kernel", ["kernel"]), ("system", ["image", "kernel", "evidence", "template"])],
)
def test_prune_prints_what_went_and_tells_what_that_freed(cli: Cli, api: FakeApi, noun: str, nouns: list[str]) -> None:
    pruned = {"removed": ["image old", "blob 0123"], "kept": ['web: image "web" is in use'], "freed_bytes": 5 << 30}
    api.long("POST", "/v1/system/prune", pruned)
    ended = cli(noun, "prune", "--all")
    assert (ended.out, ended.err) == ("image old\nblob 0123\n", 'kept web: image "web" is in use\nfreed 5.0 GiB\n')
    asked = as_read(PruneBody, api.calls[0].body)
    assert (asked["nouns"], asked["unused"], asked["dry_run"], asked["keep"]) == (nouns, True, False, None)
    assert cli(noun, "prune", "--json").json == pruned


def test_prune_on_a_dry_run_says_so(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/system/prune", {"removed": ["kernel lab"], "kept": [], "freed_bytes": 1024})
    assert cli("kernel", "prune", "--dry-run").err == "would free 1.0 KiB\n"
    assert api.calls[0].body["dry_run"] is True


def test_prune_with_nothing_to_do_says_so(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/system/prune", {"removed": [], "kept": [], "freed_bytes": 0})
    ended = cli("system", "prune")
    assert (ended.code, ended.out, ended.err) == (0, "", "nothing to prune\n")


def test_vm_prune_deletes_stopped_vms_by_id(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json("old", state="stopped")])
    api.long("DELETE", "/v1/vms/0a1b2c3d4e5f", {"id": "0a1b2c3d4e5f", "name": "old"})
    assert cli("vm", "prune", "--yes").out == "old\n"
    assert api.calls[0].query == {"state": ["stopped"]}
    assert "force" not in api.calls[1].query


def test_vm_prune_deletes_nothing_where_nobody_can_be_asked(home: Path, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json("old", state="stopped")])
    code, _, errors = banger("vm", "prune", stdin=b"y\n")
    assert code == 2
    assert b"hint: banger vm prune --yes" in errors
    assert [call.method for call in api.calls] == ["GET"]


@pytest.mark.parametrize(("answer", "code", "deleted"), [("y\n", 0, 1), ("\n", 130, 0), ("\x04", 130, 0)])
def test_vm_prune_asks_on_a_terminal(home: Path, api: FakeApi, answer: str, code: int, deleted: int) -> None:
    api.on("GET", "/v1/vms", [vm_json("old", state="stopped")])
    api.long("DELETE", "/v1/vms/0a1b2c3d4e5f", {"id": "0a1b2c3d4e5f", "name": "old"})
    with Command(dict(os.environ)).terminal("vm", "prune") as terminal:
        terminal.expect("delete old and what is on their disks? [y/N] ")
        terminal.type(answer)
        assert terminal.wait() == code
    assert len(api.asked("DELETE", "/v1/vms/0a1b2c3d4e5f")) == deleted


def test_vm_prune_on_a_dry_run_lists(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json("old", state="stopped")])
    assert cli("vm", "prune", "--dry-run", "-q").out == "0a1b2c3d4e5f\n"
    assert len(api.calls) == 1


def test_vm_prune_with_nothing_stopped_is_no_failure(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [])
    ended = cli("vm", "prune")
    assert (ended.code, ended.out, ended.err) == (0, "", "no VM is stopped\n")
    assert cli("vm", "prune", "--json").json == []


def test_lint_shows_findings_uncut_with_their_hints(cli: Cli, api: FakeApi) -> None:
    findings = [finding("warning", "shell-none", "give a program"), finding("info", "size")]
    api.on("GET", "/v1/images/debian/lint", report(*findings))
    ended = cli("image", "lint", "debian")
    assert ended.code == 0
    assert ended.out == (
        "SEVERITY  CODE        MESSAGE           HINT\n"
        "warning   shell-none  about shell-none  give a program\n"
        "info      size        about size        -\n"
    )


def test_lint_with_an_error_exits_9(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/images/debian/lint", report(finding("error", "kernel-boot")))
    assert cli("image", "lint", "debian").code == 9
    ended = cli("image", "lint", "debian", "--json")
    assert (ended.code, ended.json["findings"][0]["code"], ended.err) == (9, "kernel-boot", "")


def test_lint_asks_for_the_kernel_and_tells_when_little_is_known_of_it(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/images/debian/lint", report(finding("info", "size"), kernel="lab"))
    ended = cli("image", "lint", "debian", "--kernel", "lab")
    assert api.calls[0].query == {"kernel": ["lab"]}
    assert ended.err == 'what kernel "lab" was built with is not known\n'


def test_catalog_refresh_prints_the_entries(cli: Cli, api: FakeApi) -> None:
    digest = f"sha256:{SUM}"
    done = {
        "name": "team", "path": "/c/team.toml", "source": "https://x/team.toml", "digest": digest,
        "images": ["app", "base"], "kernels": ["lab"],
    }  # fmt: skip
    api.on("POST", "/v1/catalog/refresh", done)
    ended = cli("catalog", "refresh", "https://x/team.toml", "--digest", digest)
    assert (ended.out, ended.err) == ("app\nbase\nlab\n", "2 images and 1 kernel in /c/team.toml\n")
    assert api.calls[0].body == {"source": "https://x/team.toml", "digest": digest}
    assert cli("catalog", "refresh", "oci:x/y", "--json").json == done


def test_registered_image_shows_whose_file_it_is(cli: Cli, api: FakeApi) -> None:
    own = image_json("own", managed=False, rootfs_path="/srv/own.ext4", kernel="lab", has_seed=True)
    api.on("GET", "/v1/images/own", own)
    out = cli("image", "show", "own").out
    assert "  file        /srv/own.ext4 (your own: never written to)\n" in out
    assert "  kernel      lab\n" in out
    assert "  work seed   yes\n" in out
