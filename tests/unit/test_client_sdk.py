"""The Python SDK: typed objects, a machine that is gone after its `with`, commands with their output."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import banger
from banger.core.frames import FrameType
from banger.core.models import Image, VmState
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import InitChoice, VmSpec
from tests.support.fake_api import FakeApi, FrameSession, event, image_json, kernel_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)
ID = "0a1b2c3d4e5f"


@pytest.fixture
def sdk(api: FakeApi) -> banger.Banger:
    return banger.Banger(start_daemon=False)


def echo(session: FrameSession) -> None:
    session.send_json(FrameType.EVENT, event("started"))
    session.started()
    data = session.read_stdin()
    session.send(FrameType.STDOUT, b"out " + data)
    session.send(FrameType.STDERR, b"one\nlast words\n")
    session.exit(3)


def test_run_returns_output_apart_and_the_code(api: FakeApi, sdk: banger.Banger) -> None:
    api.on("POST", "/v1/vms/run", talk=echo)
    heard: list[object] = []
    done = sdk.run("alpine", ["cat"], execution={"input": b"hi"}, on_event=heard.append, cpus=2, env={"A": "b"})
    assert (done.returncode, done.stdout, done.stderr, done.text) == (3, b"out hi", b"one\nlast words\n", "out hi")
    assert len(heard) == 1
    with pytest.raises(banger.BangerError, match='"cat" ended with status 3: last words'):
        done.check()


def test_run_fills_the_spec_from_the_settings(
    api: FakeApi, sdk: banger.Banger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANGER_VM_MEMORY_MIB", "333")
    spec = sdk.vms.spec("alpine", env={"A": "b"}, ports=[PortForward(80, 8080)], init="none")
    assert spec == VmSpec(
        "alpine", memory_mib=333, env=("A=b",), init=InitChoice.NONE, ports=(PortForward(80, 8080),)
    )  # fmt: skip


def test_field_that_cannot_hold_a_value_is_named(sdk: banger.Banger) -> None:
    with pytest.raises(banger.BangerError, match='field "cpus" must be a whole number'):
        sdk.run("alpine", cpus="2")  # type: ignore[arg-type]


def test_machine_is_deleted_at_the_end_of_its_block(api: FakeApi, sdk: banger.Banger) -> None:
    api.long("POST", "/v1/vms", vm_json("web"))
    api.long("DELETE", f"/v1/vms/{ID}", {"id": ID, "name": "web"})
    api.on("POST", f"/v1/vms/{ID}/exec", talk=echo)
    with suppress(ZeroDivisionError), sdk.machine("debian", name="web") as vm:
        assert (vm.id, vm.name, vm.info.state) == (ID, "web", VmState.RUNNING)
        assert vm.exec(["cat"], input=b"x").text == "out x"
        raise ZeroDivisionError
    (call,) = api.asked("DELETE", f"/v1/vms/{ID}")
    assert call.query["force"] == ["true"]


def test_machine_that_is_gone_already_is_fine(api: FakeApi, sdk: banger.Banger) -> None:
    api.long("POST", "/v1/vms", vm_json("web"))
    api.fail("DELETE", f"/v1/vms/{ID}", 404, kind="not_found", message="gone")
    with sdk.machine("debian"):
        pass


def test_machine_that_cannot_be_deleted_says_so(api: FakeApi, sdk: banger.Banger) -> None:
    api.long("POST", "/v1/vms", vm_json("web"))
    api.fail("DELETE", f"/v1/vms/{ID}", 409, kind="conflict", message="busy")
    with pytest.raises(banger.BangerError, match="busy"), sdk.machine("debian"):
        pass


def test_checked_command_that_fails_raises(api: FakeApi, sdk: banger.Banger) -> None:
    api.on("GET", "/v1/vms/web", vm_json("web"))
    api.on("POST", f"/v1/vms/{ID}/exec", talk=echo)
    with pytest.raises(banger.BangerError, match="status 3"):
        sdk.vms.get("web").exec(["false"], check=True)


def test_large_input_and_output_do_not_deadlock(api: FakeApi, sdk: banger.Banger) -> None:
    def mirror(session: FrameSession) -> None:
        session.started()
        while (frame := session.receive()) is not None and frame[0] is not FrameType.STDIN_EOF:
            session.send(FrameType.STDOUT, frame[1])
        session.exit(0)

    api.on("POST", "/v1/vms/run", talk=mirror)
    data = bytes(range(256)) * 20_000
    assert sdk.run("alpine", execution={"input": data}).stdout == data


def test_input_may_come_in_pieces_and_ends_where_the_command_stops_reading(api: FakeApi, sdk: banger.Banger) -> None:
    api.on("POST", "/v1/vms/run", talk=echo)
    assert sdk.run("alpine", execution={"input": iter([b"a", b"bc"])}).text == "out abc"
    api.on("POST", "/v1/vms/run", talk=lambda session: (session.started(), session.exit(0)))
    endless = (bytes(1 << 16) for _ in iter(int, 1))
    assert sdk.run("alpine", execution={"input": endless}).returncode == 0


def test_lifecycle_updates_what_is_known(api: FakeApi, sdk: banger.Banger) -> None:
    api.on("GET", "/v1/vms", [vm_json("web")])
    api.long("POST", f"/v1/vms/{ID}/stop", vm_json("web", state="stopped"))
    api.long("GET", f"/v1/vms/{ID}/wait", vm_json("web", state="running"))
    (vm,) = sdk.vms.list(state="running", labels={"a": "b"})
    assert api.calls[0].query == {"state": ["running"], "label": ["a=b"]}
    assert vm.stop(timeout_s=5).info.state is VmState.STOPPED
    assert vm.wait("running").info.state is VmState.RUNNING


def test_images_are_typed(api: FakeApi, sdk: banger.Banger) -> None:
    api.on("GET", "/v1/images", [image_json()])
    api.long("POST", "/v1/images/pull", image_json("alpine"))
    (image,) = sdk.images.list()
    assert isinstance(image, Image)
    assert image.config.cmd == ("bash",)
    assert sdk.images.pull("alpine").name == "alpine"


def test_images_are_made_of_what_is_here(api: FakeApi, sdk: banger.Banger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    for path in ("register", "own/promote", "own/tag"):
        api.long("POST", f"/v1/images/{path}", image_json("own", managed=False))
    api.long("POST", "/v1/vms/web/commit", image_json("golden"))
    assert sdk.images.register("own.ext4", kernel="lab").managed is False
    sdk.images.promote("own")
    sdk.images.tag("own", "mine")
    assert sdk.images.commit("web", "golden", keep=["/etc/machine-id"]).name == "golden"
    assert [call.body for call in api.calls] == [
        {"name": "own", "rootfs_path": "/usr/own.ext4", "kernel": "lab"},
        None,
        {"name": "mine"},
        {"name": "golden", "keep": ["/etc/machine-id"]},
    ]


def test_images_and_kernels_go_out_and_away(api: FakeApi, sdk: banger.Banger) -> None:
    api.long("POST", "/v1/images/own/export", {"path": "/srv/own.bundle", "size_bytes": 5})
    api.long("POST", "/v1/images/own/push", {"digest": "sha256:1"})
    api.long("POST", "/v1/kernels/lab/push", {"digest": "sha256:2"})
    api.long("POST", "/v1/system/prune", {"removed": ["image old"], "kept": [], "freed_bytes": 7})
    api.long("DELETE", "/v1/kernels/lab", {"id": "k", "name": "lab"})
    assert sdk.images.export("own", "/srv/own.bundle", form="oci") == Path("/srv/own.bundle")
    assert sdk.images.push("own", "ghcr.io/me/own:1") == "sha256:1"
    assert sdk.kernels.push("lab", "ghcr.io/me/lab:1", plain_http=True) == "sha256:2"
    pruned = sdk.images.prune(unused=True)
    assert (pruned.removed, pruned.freed_bytes) == (("image old",), 7)
    sdk.kernels.delete("lab", force=True)
    assert api.asked("POST", "/v1/system/prune")[0].body == {"nouns": ["image"], "unused": True}
    assert api.asked("DELETE", "/v1/kernels/lab")[0].query["force"] == ["true"]


def test_kernel_is_pulled_by_name_or_from_a_source(api: FakeApi, sdk: banger.Banger) -> None:
    api.long("POST", "/v1/kernels/pull", kernel_json())
    assert sdk.kernels.pull("debian-cloud").has_modules
    sdk.kernels.pull("lab", source="oci:ghcr.io/me/lab:1")
    assert [call.body for call in api.calls] == [
        {"name": "debian-cloud"}, {"name": "lab", "source": "oci:ghcr.io/me/lab:1"},
    ]  # fmt: skip


def test_vmms_are_listed_installed_and_removed(
    api: FakeApi, sdk: banger.Banger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/usr")
    release = {
        "id": "firecracker-1.16.1", "name": "firecracker", "version": "1.16.1", "architecture": "x86_64",
        "source": "/usr/fc.tgz", "digest": "", "sums": {"jailer": "00"}, "size_bytes": 7,
        "created_at": "2026-11-28T12:00:00Z",
    }  # fmt: skip
    qemu = {"name": "qemu", "version": "7.2.1", "origin": "host", "is_default": True, "used_by": ["web"]}
    api.on("GET", "/v1/drivers", [qemu])
    api.long("POST", "/v1/drivers/firecracker/install", release)
    api.long("DELETE", "/v1/drivers/firecracker", {"id": "firecracker-1.16.1", "name": "firecracker"})
    (program,) = sdk.drivers.list()
    assert (program.name, program.version, program.is_default, program.created_at) == ("qemu", "7.2.1", True, None)
    assert sdk.drivers.install(source="fc.tgz", sha256=["00"]).sums == {"jailer": "00"}
    sdk.drivers.install(version="1.16.1", source="https://mirror.example/fc.tgz")
    sdk.drivers.remove(version="1.16.1")
    assert [call.body for call in api.asked("POST", "/v1/drivers/firecracker/install")] == [
        {"source": "/usr/fc.tgz", "sums": ["00"]},
        {"version": "1.16.1", "source": "https://mirror.example/fc.tgz"},
    ]
    assert api.asked("DELETE", "/v1/drivers/firecracker")[0].query["version"] == ["1.16.1"]


def test_missing_daemon_is_an_error_when_none_is_to_be_started(home: Path) -> None:
    with pytest.raises(banger.BangerError) as raised:
        banger.Banger(home).images.list()
    assert raised.value.kind is banger.ErrorKind.UNAVAILABLE


def test_everything_public_can_be_reached_from_the_package() -> None:
    for name in banger.__all__:
        assert getattr(banger, name)
    with pytest.raises(AttributeError, match="nothing"):
        banger.nothing  # noqa: B018  # the access is the test
