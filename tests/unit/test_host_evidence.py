"""Where evidence lies: what is kept, how long, how much, and that it never harms."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.evidence import COMMAND_FILE, Happened, Incident, next_step, sentence
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason, Vm, VmState
from banger.core.ports import Handle
from banger.core.progress import StepTiming
from banger.core.redaction import REDACTED
from banger.core.wire.vm_spec import VmSpec
from banger.host.evidence import gathering, store
from banger.host.evidence.archive import archive
from banger.host.evidence.store import EvidenceStore
from banger.layout import Layout

VM = Vm("feedfacecafe", "web", VmSpec("debian", env=("SECRET=open sesame",)), VmState.STARTING, clock.now())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    return layout


@pytest.fixture
def incident(layout: Layout) -> Incident:
    directory = layout.vm_dir(VM.id)
    directory.mkdir()
    (directory / "console.log").write_text("an earlier boot\nbanger: init 1\nthe app: open sesame\n")
    (directory / "vmm.log").write_text("qemu-system-x86_64: oh no\n")
    (directory / COMMAND_FILE).write_text(
        json.dumps({"version": "QEMU 7.2", "argv": ["qemu", "-append", "token=abc123"]})
    )
    return Incident(
        happened=Happened.START,
        vm=VM,
        words="it said open sesame",
        error=BangerError(ErrorKind.UNAVAILABLE, "m", cause="c", hint="h"),
        ended=ExitRecord(ExitReason.VMM_CRASH, "crashed", -11),
        handles=(Handle(VM.id, "console", "log", "intended", {"offset": 16}),),
        steps=(StepTiming("boot guest", 0.5, 1.5, failed=True),),
        accelerator="tcg",
    )


def kept(layout: Layout) -> list[Path]:
    return sorted(layout.evidence.iterdir())


def test_record_holds_everything_and_no_secret(layout: Layout, incident: Incident) -> None:
    EvidenceStore(layout).keep(incident)
    (record,) = EvidenceStore(layout).all()
    assert record.vm.spec.env == (f"SECRET={REDACTED}",)
    assert record.console == f"banger: init 1\nthe app: {REDACTED}\n"
    assert record.vmm_log == "qemu-system-x86_64: oh no\n"
    assert record.command == ("qemu", "-append", f"token={REDACTED}")
    assert record.versions["vmm"] == "QEMU 7.2"
    assert record.versions["banger"]
    assert (record.exit_reason, record.exit_status, record.accelerator) == (ExitReason.VMM_CRASH, -11, "tcg")
    assert record.steps[0].failed
    assert record.handles[0]["kind"] == "console"
    assert sentence(record) == f"it said {REDACTED}"
    assert sentence(replace(record, error_kind="")) == f"it did not come up: it said {REDACTED}"
    assert next_step(record) == "h"
    assert "sesame" not in kept(layout)[0].read_text()
    assert kept(layout)[0].stat().st_mode & 0o777 == 0o600


def test_last_ones_are_kept_and_no_more(layout: Layout, incident: Incident) -> None:
    place = EvidenceStore(layout)
    for number in range(store.KEPT + 3):
        place.keep(replace(incident, vm=replace(VM, id=f"{number:012x}"), words=f"number {number}"))
    assert [record.words for record in place.all()] == [f"number {store.KEPT + 2 - n}" for n in range(store.KEPT)]


def test_vm_that_fails_again_and_again_pushes_out_no_other(layout: Layout, incident: Incident) -> None:
    place = EvidenceStore(layout)
    place.keep(replace(incident, vm=replace(VM, id="c0ffeec0ffee", name="db")))
    for _ in range(store.KEPT + 1):
        place.keep(incident)
    assert [record.vm.name for record in place.all()] == ["web"] * store.KEPT_OF_ONE + ["db"]


def test_old_ones_go_with_time(layout: Layout, incident: Incident, monkeypatch: pytest.MonkeyPatch) -> None:
    place = EvidenceStore(layout)
    place.keep(incident)
    later = clock.now() + timedelta(days=8)
    monkeypatch.setattr(clock, "now", lambda: later)
    ((what, size),) = place.prune(dry_run=True)
    assert what.startswith("evidence ")
    assert size > 0
    assert len(place.all()) == 1
    place.prune()
    assert kept(layout) == []


def test_large_ones_push_out_earlier_ones(layout: Layout, incident: Incident, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEPT_BYTES", 200_000)
    (layout.vm_dir(VM.id) / "console.log").write_text("x" * 1_000_000)
    place = EvidenceStore(layout)
    for _ in range(5):
        place.keep(incident)
    assert 1 <= len(kept(layout)) <= 3
    assert sum(path.stat().st_size for path in kept(layout)) <= 200_000


def test_long_log_keeps_its_begin_and_its_end(layout: Layout, incident: Incident) -> None:
    (layout.vm_dir(VM.id) / "console.log").write_text("begin " + "x" * 1_000_000 + " end")
    place = EvidenceStore(layout)
    place.keep(replace(incident, handles=()))
    (record,) = place.all()
    assert record.console.startswith("begin ")
    assert record.console.endswith(" end")
    assert len(record.console) < gathering.HEAD_BYTES + gathering.TAIL_BYTES + 100


def test_long_log_is_cut_between_lines_so_that_no_half_of_a_secret_stays(layout: Layout, incident: Incident) -> None:
    line = "the app says: open sesame\n"
    for offset in range(len(line)):
        (layout.vm_dir(VM.id) / "console.log").write_text("x" * offset + line * 10_000)
        (record,) = [gathering.gather(layout, replace(incident, handles=()))]
        assert {*record.console.lstrip("x").splitlines()} == {f"the app says: {REDACTED}", "", "[…]"}


def test_full_disk_costs_the_evidence_and_nothing_else(
    layout: Layout, incident: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    EvidenceStore(layout).keep(incident)  # does not raise
    assert kept(layout) == []


def test_record_is_kept_whatever_the_locale_says(
    layout: Layout, incident: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layout.vm_dir(VM.id) / "console.log").write_bytes(
        "an earlier boot\nnaïve ✓ \xff\n".encode("utf-8", "replace") + b"\xff"
    )
    fdopen = os.fdopen

    def latin(descriptor: int, mode: str = "r", *, encoding: str = "latin-1", **options: str) -> object:
        return fdopen(descriptor, mode, encoding=encoding, **options)

    monkeypatch.setattr(os, "fdopen", latin)
    EvidenceStore(layout).keep(incident)
    (record,) = EvidenceStore(layout).all()
    assert "naïve ✓" in record.console


def test_record_that_a_crash_left_half_written_is_removed_and_never_read(layout: Layout, incident: Incident) -> None:
    place = EvidenceStore(layout)
    place.keep(incident)
    (layout.evidence / "20261128T000000.000000-0123456789ab.new").write_text("{")
    (layout.evidence / "20261128T000000.000000-0123456789ac.json").write_text("{ damaged")
    assert len(place.all()) == 1
    place.prune()
    assert [path.suffix for path in kept(layout)] == [".json", ".json"]


def test_records_are_found_by_name_id_and_prefix_the_newest_first(layout: Layout, incident: Incident) -> None:
    place = EvidenceStore(layout)
    place.keep(replace(incident, words="first"))
    place.keep(replace(incident, vm=replace(VM, id="beefbeefbeef"), words="second"))
    place.keep(replace(incident, vm=replace(VM, id="c0ffeec0ffee", name="store"), words="third"))
    assert [one.words for one in place.of("web")] == ["second", "first"]
    assert [one.words for one in place.of("feedfacecafe")] == ["first"]
    assert [one.words for one in place.of("sto")] == ["third"]
    newest = place.all()[0]
    assert place.of(newest.id) == [newest]
    with pytest.raises(BangerError) as caught:
        place.of("nobody")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_archive_of_the_same_record_is_the_same_and_tells_no_home(layout: Layout, incident: Incident) -> None:
    place = EvidenceStore(layout)
    (layout.vm_dir(VM.id) / "vmm.log").write_text("/home/alice/.local/share/banger/disk: gone\n")
    place.keep(incident)
    (record,) = place.all()
    packed = archive(record)
    assert packed == archive(record)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = {member.name.partition("/")[2]: member for member in tar}
        texts = {name: tar.extractfile(member).read().decode() for name, member in members.items()}  # type: ignore[union-attr]
    assert set(texts) == {"summary.txt", "evidence.json", "command.txt", "console.log", "vmm.log"}
    assert texts["vmm.log"] == "~/.local/share/banger/disk: gone\n"
    assert "VM web (feedfacecafe)" in texts["summary.txt"]
    assert not any("sesame" in text for text in texts.values())
    assert {member.mode for member in members.values()} == {0o600}
