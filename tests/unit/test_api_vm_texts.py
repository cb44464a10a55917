"""Lists of VMs as text: what is remembered is never other than what would be written now."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from banger.api import vm_texts
from banger.api.vm_texts import VmTexts
from banger.core import clock, codec
from banger.core.models import Vm, VmState
from banger.core.wire.vm_spec import VmSpec

VM = Vm("id-1", "wéb", VmSpec("debian", labels={"a": "b"}), VmState.RUNNING, clock.now())
DERIVED = {"image_name": "debian", "kernel_name": "", "broken": ""}


@pytest.fixture
def texts() -> VmTexts:
    return VmTexts(codec.to_plain)


def test_list_is_what_each_vm_is_with_what_is_derived(texts: VmTexts) -> None:
    other = replace(VM, id="id-2", name="db")

    assert json.loads(texts.array([])) == []
    assert json.loads(texts.array([(VM, DERIVED), (other, DERIVED)])) == [
        {**codec.to_plain(VM), **DERIVED},
        {**codec.to_plain(other), **DERIVED},
    ]


def test_list_tells_every_change_of_a_vm_and_of_what_is_derived(texts: VmTexts) -> None:
    texts.array([(VM, DERIVED)])
    stopped = replace(VM, state=VmState.STOPPED)

    assert json.loads(texts.array([(stopped, DERIVED)]))[0]["state"] == "stopped"
    assert json.loads(texts.array([(VM, DERIVED)]))[0]["state"] == "running"
    assert json.loads(texts.array([(VM, {**DERIVED, "image_name": "mine"})]))[0]["image_name"] == "mine"


def test_vm_that_has_not_changed_is_not_written_again() -> None:
    written: list[str] = []
    texts = VmTexts(lambda vm: written.append(vm.name) or codec.to_plain(vm))  # type: ignore[func-returns-value]

    first = texts.array([(VM, DERIVED)])

    assert texts.array([(VM, dict(DERIVED))]) == first
    assert written == [VM.name]


def test_texts_of_vms_that_are_gone_are_not_kept_for_ever(texts: VmTexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_texts, "_MOST_KEPT", 10)
    for number in range(100):
        vm = replace(VM, id=f"id-{number}")
        assert json.loads(texts.array([(vm, DERIVED)]))[0]["id"] == vm.id
        assert len(texts._kept) <= 11
