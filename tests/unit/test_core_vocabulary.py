"""The pure helpers: lookup, names, units, codec, frames, plans, states, console, settings."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.config import Config
from banger.core import clock, codec, console, frames, lookup, names, states, units
from banger.core.backoff import Backoff
from banger.core.errors import EXIT_CODES, HTTP_STATUSES, BangerError, ErrorKind
from banger.core.models import ExitReason, Vm, VmState
from banger.core.operation import Operation
from banger.core.plan import PlanStep, run_plan
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import VmSpec
from banger.layout import Layout

VM = Vm("ab12cd34ef56", "web", VmSpec("debian"), VmState.RUNNING, clock.now())


def vm(name: str, vm_id: str) -> Vm:
    return replace(VM, name=name, id=vm_id)


def kind_of(call) -> ErrorKind:
    with pytest.raises(BangerError) as caught:
        call()
    return caught.value.kind


# -- lookup ----------------------------------------------------------------------------------------------


def test_lookup_prefers_exact_name_over_id_over_prefix():
    named_like_an_id = vm("abc", "111111111111")
    has_that_id = vm("zed", "abc")
    longer = vm("abcdef", "222222222222")

    assert lookup.find("abc", [longer, has_that_id, named_like_an_id], "vm") is named_like_an_id
    assert lookup.find("abc", [longer, has_that_id], "vm") is has_that_id
    assert lookup.find("abc", [longer], "vm") is longer
    assert lookup.find("2222", [longer, has_that_id], "vm") is longer


def test_lookup_tells_empty_none_and_several_apart():
    both = [vm("web-1", "1" * 12), vm("web-2", "2" * 12)]

    assert kind_of(lambda: lookup.find("", both, "vm")) is ErrorKind.USAGE
    assert kind_of(lambda: lookup.find("db", both, "vm")) is ErrorKind.NOT_FOUND
    with pytest.raises(BangerError) as caught:
        lookup.find("web", both, "vm")
    assert caught.value.kind is ErrorKind.AMBIGUOUS
    assert "web-1" in caught.value.cause
    assert "web-2" in caught.value.cause


def test_lookup_not_found_suggests_the_closest_name():
    with pytest.raises(BangerError) as caught:
        lookup.find("debain", [vm("debian", "1" * 12)], "image")
    assert "debian" in caught.value.hint


# -- names and units -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "web-1", "a" * 40])
def test_vm_name_good_is_taken(name):
    assert names.check_vm_name(name) == name


@pytest.mark.parametrize("name", ["", "Web", "1web", "-a", "a" * 41, "a b", "a\n", "é", "a/b"])
def test_vm_name_bad_is_refused(name):
    assert kind_of(lambda: names.check_vm_name(name)) is ErrorKind.USAGE


def test_made_up_names_are_valid():
    for _ in range(200):
        names.check_vm_name(names.made_up_name())


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("512M", 512 << 20), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("10 kb", 10240)]
)
def test_size_is_read(text, size):
    assert units.parse_size(text) == size


def test_size_without_a_unit_counts_what_the_caller_says():
    assert units.parse_size("512", bare=units.MIB) == 512 << 20
    assert units.parse_size("512B", bare=units.MIB) == 512


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("0042", 42), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("9" * 5000, None)]
    + [(text, None) for text in ("", "²", "٣", "1_0", "+1", "-1", " 1", "1\n", "1.0")],
)
def test_whole_number_is_read_if_it_is_one(text, number):
    assert units.whole_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "1.2.3G"])
def test_size_that_is_none_is_refused(text):
    assert kind_of(lambda: units.parse_size(text)) is ErrorKind.USAGE


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800)])
def test_duration_is_read(text, seconds):
    assert units.parse_duration(text) == seconds


def test_formats_for_people():
    now = clock.now()
    assert units.format_size(0) == "0 B"
    assert units.format_size(1536) == "1.5 KiB"
    assert units.format_size(2 << 30) == "2.0 GiB"
    assert units.format_age(now - timedelta(hours=5, minutes=59), now) == "5h"
    assert units.format_duration(0.0081) == "8 ms"
    assert units.format_duration(123.4) == "2m 03s"


# -- codec and frames ------------------------------------------------------------------------------------


def test_codec_round_trips_a_vm_through_json():
    full = replace(VM, spec=replace(VM.spec, ports=(PortForward(80, 8080),), labels={"a": "b"}), started_at=clock.now())

    assert codec.from_plain(Vm, json.loads(json.dumps(codec.to_plain(full)))) == full


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "image"),
        ({"image": 1}, "image"),
        ({"image": "x", "cpu": 1}, "cpu"),
        ({"image": "x", "cpus": "1"}, "cpus"),
        ({"image": "x", "cpus": True}, "cpus"),
        ({"image": "x", "env": "A=b"}, "env"),
        ({"image": "x", "init": "systemd"}, "init"),
        ({"image": "x", "ports": [{"guest_port": "80"}]}, "ports[0].guest_port"),
    ],
)
def test_codec_names_the_field_that_is_wrong(data, named):
    with pytest.raises(BangerError) as caught:
        codec.from_plain(VmSpec, data)
    assert caught.value.kind is ErrorKind.USAGE
    assert f'"{named}"' in caught.value.message


@given(
    st.lists(st.tuples(st.sampled_from(list(frames.FrameType)), st.binary(max_size=300))),
    st.lists(st.integers(min_value=1, max_value=97), min_size=1),
)
def test_frames_survive_any_cutting(sent, cuts):
    wire = b"".join(frames.encode(kind, payload) for kind, payload in sent)
    reader, got, position, turn = frames.FrameReader(), [], 0, 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        got += list(reader.feed(wire[position : position + size]))
        position, turn = position + size, turn + 1
    assert got == sent


def test_frames_too_long_or_unknown_are_refused():
    assert kind_of(lambda: list(frames.FrameReader().feed(b"o\xff\xff\xff\xff"))) is ErrorKind.USAGE
    assert kind_of(lambda: list(frames.FrameReader().feed(b"?\0\0\0\0"))) is ErrorKind.USAGE


# -- plans, states, console ------------------------------------------------------------------------------


def test_plan_that_fails_undoes_what_it_began_last_first_and_goes_on_when_undoing_fails():
    log: list[str] = []

    def fail(text: str):
        def do() -> None:
            log.append(text)
            raise RuntimeError(text)

        return do

    operation = Operation("vm.start", "web")
    operation.begin()
    plan = [
        PlanStep("one", lambda: log.append("do 1"), lambda: log.append("intend 1"), lambda: log.append("undo 1")),
        PlanStep("two", lambda: log.append("do 2"), undo=fail("undo 2")),
        PlanStep("three", fail("do 3"), undo=lambda: log.append("undo 3")),
        PlanStep("four", lambda: log.append("do 4"), undo=lambda: log.append("undo 4")),
    ]

    with pytest.raises(RuntimeError, match="do 3") as caught:
        run_plan(plan, operation)

    assert log == ["intend 1", "do 1", "do 2", "do 3", "undo 3", "undo 2", "undo 1"]
    assert any("undo 2" in note for note in caught.value.__notes__)


def test_states_illegal_move_is_a_conflict_and_staying_is_legal():
    assert kind_of(lambda: states.check_move(replace(VM, state=VmState.STOPPED), VmState.RUNNING)) is ErrorKind.CONFLICT
    states.check_move(VM, VmState.RUNNING)
    states.check_move(VM, VmState.STOPPING)


def test_states_not_running_says_what_to_type():
    with pytest.raises(BangerError) as caught:
        states.check_running(replace(VM, state=VmState.STOPPED))
    assert caught.value.hint == "banger vm start web"


def test_console_marks_are_read_between_other_lines():
    marks = console.boot_marks(
        "[ 0.1] noise\r\nbanger: init 0.80\r\nbanger: root 1.25\nx banger: ready 9\nbanger: ready 2.81\n"
    )
    assert (marks.init_s, marks.root_s, marks.ready_s, marks.failure) == (0.8, 1.25, 2.81, "")


def test_console_failure_and_panic_are_read():
    assert console.boot_marks("banger: failed: no root drive\n").failure == "no root drive"
    panic = "[1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
    assert "Unable to mount" in console.boot_marks(panic).failure
    assert console.exit_reason(panic)[0] is ExitReason.GUEST_PANIC
    assert console.exit_reason("[9.1] reboot: Power down\n")[0] is ExitReason.GUEST_POWEROFF
    assert console.exit_reason("")[0] is ExitReason.VMM_CRASH


def test_every_error_kind_has_an_exit_code_and_a_status():
    assert set(EXIT_CODES) == set(HTTP_STATUSES) == set(ErrorKind)
    for kind in ErrorKind:
        error = BangerError(kind, "m", subject="s", cause="c", hint="h", operation_id="o")
        assert BangerError.from_dict(error.to_dict()).to_dict() == error.to_dict()


def test_backoff_grows_to_its_cap_and_is_forgiven_after_a_healthy_spell():
    backoff = Backoff(first_s=1, most_s=8, healthy_after_s=60, jitter=lambda: 1.0)
    assert [backoff.delay_s(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 8]
    assert backoff.healthy([], 0)
    assert not backoff.healthy([10.0], 69)
    assert backoff.healthy([10.0], 70)


# -- settings and paths ----------------------------------------------------------------------------------


def test_config_environment_beats_file_beats_default(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[vm]\ncpus = 2\nmemory_mib = "1G"\n')

    config = Config.load(file, {"BANGER_VM_CPUS": "4"})

    origins = {setting.key.name: setting.origin for setting in config}
    assert config.number("vm.cpus") == 4
    assert config.number("vm.memory_mib") == 1024
    assert origins["vm.cpus"] == "BANGER_VM_CPUS"
    assert origins["vm.memory_mib"] == str(file)
    assert origins["vm.disk_mib"] == "default"


@pytest.mark.parametrize(
    "text", ["[vm]\ncpu = 2\n", "[vm]\ncpus = 'many'\n", "[vm]\ncpus = true\n", "[vm\n", "[vmm]\naccelerator = 'hax'\n"]
)
def test_config_wrong_is_a_usage_error_that_names_the_file(tmp_path, text):
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(BangerError) as caught:
        Config.load(file, {})
    assert caught.value.kind is ErrorKind.USAGE
    assert str(file) in caught.value.message


def test_layout_follows_home_root_and_xdg(tmp_path):
    assert Layout.from_environment({"BANGER_HOME": "/x"}, 0).socket == Path("/x/run/banger.sock")
    assert Layout.from_environment({}, 0).database == Path("/var/lib/banger/banger.db")
    uid = _somebody(tmp_path)
    user = Layout.from_environment({"HOME": "/home/u", "XDG_RUNTIME_DIR": str(tmp_path)}, uid)
    assert user.socket == tmp_path / "banger/banger.sock"
    assert user.database == Path("/home/u/.local/share/banger/banger.db")


@pytest.mark.parametrize("runtime", ["", "/nonexistent", "/proc"])
def test_layout_of_a_user_whose_runtime_directory_is_gone_or_anothers_is_in_the_cache(tmp_path, runtime):
    layout = Layout.from_environment({"HOME": "/home/u", "XDG_RUNTIME_DIR": runtime}, _somebody(tmp_path))
    assert layout.socket == Path("/home/u/.cache/banger/banger.sock")


def test_layout_without_home_is_that_of_the_account():
    account = next(one for one in pwd.getpwall() if one.pw_uid != 0 and one.pw_dir not in ("", "/"))
    assert Layout.from_environment({}, account.pw_uid).data == Path(account.pw_dir, ".local/share/banger")


def test_layout_of_a_job_finds_the_sockets_of_the_session_and_the_other_way_round(tmp_path, monkeypatch):
    uid, runtime = _somebody(tmp_path), tmp_path / "runtime"
    runtime.mkdir()
    if uid != os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: uid)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        os.chown(runtime, uid, uid)
    job = {"HOME": str(tmp_path)}
    session = {**job, "XDG_RUNTIME_DIR": str(runtime)}
    first = Layout.from_environment(session, uid)
    monkeypatch.setattr(Layout, "check_trusted", lambda _: None)
    first.make_directories()
    if first.run.stat().st_uid != uid:
        os.chown(first.run, uid, uid)
    assert Layout.from_environment(job, uid).socket == first.socket
    shutil.rmtree(runtime)  # its last session has ended
    second = Layout.from_environment(job, uid)
    assert second.run == tmp_path / ".cache/banger"
    second.make_directories()
    if second.run.stat().st_uid != uid:
        os.chown(second.run, uid, uid)
    runtime.mkdir()
    assert Layout.from_environment(session, uid).run == second.run


def _somebody(directory: Path) -> int:
    """A user who is not root and owns that directory."""
    if os.getuid():
        return os.getuid()
    os.chown(directory, 65534, 65534)
    return 65534
