from __future__ import annotations

from pathlib import Path

import pytest

from banger.config import Config
from banger.core.ports import Engine
from banger.layout import Layout
from banger.vmm.qemu import engines, probe
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.proof import Proof
from banger.vmm.verdicts import KernelVerdict, KernelVerdicts

KERNEL = "sha256:aa"


class Host:
    """A host whose proof guest passes on KVM; ``setting`` is ``vmm.accelerator``."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
        (tmp_path / "kvm").touch()
        self.setting = "auto"
        self.chunk_s = {"kvm": 0.002, "tcg": 0.010}
        self.proofs: list[str] = []
        self.binary = Binary("/qemu", "QEMU 7.2", has_sandbox=True)
        monkeypatch.setattr(probe, "KVM_DEVICE", tmp_path / "kvm")
        monkeypatch.setattr(probe, "prove", self._prove)
        for module in (probe, engines):
            monkeypatch.setattr(module, "find_binary", lambda: self.binary)

    def _prove(self, binary: Binary, accelerator: str, *limits: object) -> Proof:
        self.proofs.append(accelerator)
        return Proof(works=True, tsc_khz=1, chunk_s=self.chunk_s[accelerator])

    @property
    def engines(self) -> engines.QemuEngines:
        config = Config.load(self.layout.config_file, {"BANGER_VMM_ACCELERATOR": self.setting})
        return engines.QemuEngines(config, self.layout)

    def choose(self, wish: str = "", kernel: str = KERNEL) -> Engine:
        return self.engines.choose(wish, kernel)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_kernel_that_nobody_has_seen_on_kvm_is_on_trial_at_the_pace_of_this_host(host: Host) -> None:
    pace = host.choose().pace
    assert pace is not None
    assert pace.silence_s < pace.init_s < pace.ready_s
    host.chunk_s["tcg"] = 0.020
    host.engines.forget("")
    (host.layout.cache / "proofs.json").unlink()
    slower = host.choose().pace
    assert slower is not None
    assert slower.init_s == pytest.approx(2 * pace.init_s)


def test_kernel_that_came_up_on_kvm_is_on_trial_no_more_and_others_still_are(host: Host) -> None:
    host.engines.keep(KERNEL)
    assert (host.choose().accelerator, host.choose().pace) == ("kvm", None)
    assert host.choose(kernel="sha256:bb").pace is not None


def test_kernel_that_did_not_come_up_on_kvm_is_emulated_with_the_reason(host: Host) -> None:
    host.engines.keep(KERNEL, "its console was silent")
    assert host.choose().accelerator == "tcg"
    assert "its console was silent" in host.choose().reason
    assert host.choose(kernel="sha256:bb").accelerator == "kvm"


@pytest.mark.parametrize("how", ["setting", "wish"])
def test_kvm_that_is_asked_for_is_tried_whatever_is_known_and_is_on_trial(host: Host, how: str) -> None:
    host.engines.keep(KERNEL, "its console was silent")
    host.setting = "kvm" if how == "setting" else "tcg"
    engine = host.choose("kvm" if how == "wish" else "")
    assert (engine.accelerator, engine.forced) == ("kvm", True)
    assert engine.pace is not None


def test_emulation_that_is_asked_for_proves_nothing(host: Host) -> None:
    assert host.choose("tcg").accelerator == "tcg"
    assert host.proofs == []


def test_kvm_that_broke_down_is_proven_anew_with_the_kernel(host: Host) -> None:
    host.choose()
    host.engines.keep(KERNEL)
    host.engines.forget(KERNEL)
    assert host.choose().pace is not None
    assert host.proofs.count("kvm") == 2


@pytest.mark.parametrize("what", ["boot", "qemu", "cpu"])
def test_verdict_does_not_outlive_its_circumstances(host: Host, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host.engines.keep(KERNEL, "it hung")
    if what == "boot":
        monkeypatch.setattr(engines, "current_boot_id", lambda: "another")
    elif what == "qemu":
        host.binary = Binary("/qemu", "QEMU 9.0", has_sandbox=True)
    else:
        monkeypatch.setattr(engines, "cpu_model", lambda: "another")
    assert host.choose().accelerator == "kvm"


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", '{"circumstances": ["here"], "kernels": 1}', '{"kernels": {}}'])
def test_verdicts_that_cannot_be_read_count_as_none_and_are_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "verdicts.json"
    file.write_text(text)
    verdicts = KernelVerdicts(file, ["here"])
    assert verdicts.get(KERNEL) is None
    verdicts.put(KERNEL, KernelVerdict("it hung"))
    assert verdicts.get(KERNEL) == KernelVerdict("it hung")


def test_verdict_that_cannot_be_written_keeps_no_machine_from_starting(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    verdicts = KernelVerdicts(tmp_path / "cache" / "verdicts.json", ["here"])
    verdicts.put(KERNEL, KernelVerdict())  # does not raise
    assert verdicts.get(KERNEL) is None


def test_verdicts_are_kept_beside_what_another_process_is_writing(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.json"
    file.with_suffix(".new").mkdir()  # it has that name
    verdicts = KernelVerdicts(file, ["here"])
    verdicts.put(KERNEL, KernelVerdict("it hung"))
    assert verdicts.get(KERNEL) == KernelVerdict("it hung")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verdicts.json", "verdicts.new"]
