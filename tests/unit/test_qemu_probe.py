from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.vmm.qemu import probe
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.proof import Proof

FAST = Proof(works=True, tsc_khz=2_600_000, chunk_s=0.002)
EMULATED = Proof(works=True, tsc_khz=2_600_000, chunk_s=0.010)
CRAWLS = Proof(works=True, tsc_khz=2_600_000, chunk_s=0.011)
HANGS = Proof(works=False, reason="it hangs")
STARVED = Proof(works=False, reason="it got no time", conclusive=False)


class Host:
    """A host with a KVM device and a QEMU, both made up; ``proofs`` counts what was run."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
        self.device = tmp_path / "kvm"
        self.device.touch()
        self.binary = Binary("/qemu", "QEMU 7.2", has_sandbox=True)
        self.results = {"kvm": FAST, "tcg": EMULATED}
        self.proofs: list[str] = []
        monkeypatch.setattr(probe, "KVM_DEVICE", self.device)
        monkeypatch.setattr(probe, "find_binary", lambda: self.binary)
        monkeypatch.setattr(probe, "prove", self._prove)

    def _prove(self, binary: Binary, accelerator: str, timeout_s: float, patience_s: float | None) -> Proof:
        self.proofs.append(accelerator)
        self.patience_s = patience_s
        return self.results[accelerator]

    def accelerator(self, wish: str = "auto", *, again: bool = False) -> probe.Accelerator:
        config = Config.load(self.layout.config_file, {"BANGER_VMM_ACCELERATOR": wish})
        return probe.accelerator(self.layout, config, again=again)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_accelerator_on_a_host_where_the_guest_ran_is_kvm(host: Host) -> None:
    assert host.accelerator().name == "kvm"


def test_accelerator_on_a_host_where_the_guest_hangs_is_tcg_with_the_reason(host: Host) -> None:
    host.results["kvm"] = HANGS
    found = host.accelerator()
    assert found.name == "tcg"
    assert "it hangs" in found.reason


def test_accelerator_on_a_host_where_the_guest_is_slower_than_emulated_is_tcg_with_both_times(host: Host) -> None:
    host.results["kvm"] = CRAWLS
    found = host.accelerator()
    assert found.name == "tcg"
    assert "11.0 ms for what takes 10.0 ms emulated" in found.reason


def test_accelerator_where_qemu_cannot_emulate_is_kvm_if_its_time_is_hardwares(host: Host) -> None:
    host.results["tcg"] = HANGS
    assert host.accelerator().name == "kvm"
    host.results["kvm"] = Proof(works=True, chunk_s=0.3)
    assert host.accelerator(again=True).name == "tcg"


@pytest.mark.parametrize(("emulated_s", "patience_s"), [(0.010, 1.0), (0.2, 4.0)])
def test_kvm_is_given_the_more_time_the_slower_the_host_emulates(
    host: Host, emulated_s: float, patience_s: float
) -> None:
    host.results["tcg"] = Proof(works=True, tsc_khz=1, chunk_s=emulated_s)
    host.accelerator()
    assert host.patience_s == pytest.approx(patience_s)


def test_verdict_of_a_host_that_was_too_busy_is_not_kept(host: Host) -> None:
    host.results["kvm"] = STARVED
    assert host.accelerator().name == "tcg"
    host.results["kvm"] = FAST
    assert host.accelerator().name == "kvm"


def test_proof_is_made_once(host: Host) -> None:
    assert host.accelerator() == host.accelerator()
    assert host.proofs == ["tcg", "kvm"]


def test_proof_is_made_anew_when_asked(host: Host) -> None:
    host.results["kvm"] = HANGS
    host.accelerator()
    host.results["kvm"] = FAST
    assert host.accelerator(again=True).name == "kvm"
    assert host.accelerator().name == "kvm"
    assert host.proofs == ["tcg", "kvm", "kvm"]


@pytest.mark.parametrize("what", ["boot", "qemu"])
def test_proof_is_made_anew_under_other_circumstances(host: Host, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host.accelerator()
    if what == "boot":
        monkeypatch.setattr(probe, "current_boot_id", lambda: "another")
    else:
        host.binary = Binary("/qemu", "QEMU 9.0", has_sandbox=True)
    host.accelerator()
    assert host.proofs == ["tcg", "kvm"] * 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"circumstances": 1}', '{"circumstances": [], "proofs": {"kvm": 1}}', "\0"]
)
def test_unreadable_cache_counts_as_none(host: Host, text: str) -> None:
    host.layout.cache.mkdir(parents=True)
    (host.layout.cache / "proofs.json").write_text(text)
    assert host.accelerator().name == "kvm"
    assert json.loads((host.layout.cache / "proofs.json").read_text())["proofs"]["kvm"]["works"]


def test_accelerator_without_the_device_is_tcg_and_says_what_to_load(host: Host) -> None:
    host.device.unlink()
    found = host.accelerator()
    assert (found.name, host.proofs) == ("tcg", [])
    assert "modprobe" in found.hint


def test_accelerator_without_permission_is_tcg_and_says_how_to_get_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.os, "access", lambda path, mode: False)
    found = host.accelerator()
    assert found.name == "tcg"
    assert "usermod -aG kvm" in found.hint


def test_permission_granted_later_is_seen_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as locked:
        locked.setattr(probe.os, "access", lambda path, mode: False)
        assert host.accelerator().name == "tcg"
    assert host.accelerator().name == "kvm"


@pytest.mark.parametrize("wish", ["kvm", "tcg"])
def test_configured_accelerator_is_taken_unproven(host: Host, wish: str) -> None:
    assert host.accelerator(wish).name == wish
    assert host.proofs == []


def test_clock_rate_is_what_the_emulated_guest_measured_and_kept(host: Host) -> None:
    assert [probe.tsc_khz(host.layout) for _ in range(2)] == [2_600_000] * 2
    assert host.proofs == ["tcg"]


def test_failed_measurement_is_unavailable_and_tried_again(host: Host) -> None:
    host.results["tcg"] = HANGS
    with pytest.raises(BangerError) as caught:
        probe.tsc_khz(host.layout)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    host.results["tcg"] = EMULATED
    assert probe.tsc_khz(host.layout) == 2_600_000


def test_proofs_of_both_accelerators_are_kept_side_by_side(host: Host) -> None:
    calls: list[Callable[[], object]] = [host.accelerator, lambda: probe.tsc_khz(host.layout)]
    for call in calls * 2:
        call()
    assert sorted(host.proofs) == ["kvm", "tcg"]


def test_counter_that_a_busy_host_measured_badly_is_measured_again_and_the_best_is_kept(host: Host) -> None:
    rates = iter([(2_780_000, 0.15), (2_353_000, 0.10), (2_790_000, 0.20), (2_600_100, 0.0004), (1, 0.0)])

    def prove(*_: object) -> Proof:
        khz, error = next(rates)
        return Proof(works=True, tsc_khz=khz, tsc_error=error, chunk_s=0.01)

    host.monkeypatch.setattr(probe, "prove", prove)
    assert probe.tsc_khz(host.layout) == 2_600_100
    assert probe.tsc_khz(host.layout) == 2_600_100, "it is good enough, and was kept"


def test_counter_that_cannot_be_measured_well_does_not_keep_a_start_waiting(host: Host) -> None:
    errors = iter([0.2, 0.3, 0.1, 0.3, 0.3, *[0.3] * 4])

    def prove(*_: object) -> Proof:
        error = next(errors)
        return Proof(works=True, tsc_khz=round(1000 * error), tsc_error=error, chunk_s=0.01)

    host.monkeypatch.setattr(probe, "prove", prove)
    assert probe.tsc_khz(host.layout) == 100
    assert probe.tsc_khz(host.layout) == 100
