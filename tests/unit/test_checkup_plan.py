"""What a check-up tries on which host, which image it takes, and how its result is told."""

from __future__ import annotations

import io

import pytest

from banger.checkup.plan import AcceleratorOutlook, Candidate, candidates, prospects
from banger.checkup.report import MachineReport, Report, Row, Verdict, is_ok
from banger.checkup.run import chosen_image
from banger.render.checkup import machine_text, row_text, summary_text
from banger.render.terminal import Terminal

OK = Row("kernel", Verdict.OK, "6.1.0", 0.2)
FAILED = Row(
    "root", Verdict.FAILED, "cannot be written", 1.5, cause="Read-only file system\nreally", hint="--init none"
)
PIPE = Terminal(io.StringIO(), {})


def machine(*rows: Row, usable: bool = True) -> MachineReport:
    return MachineReport("tcg", "qemu", "user", usable=usable, rows=rows)


def test_host_with_kvm_tries_both_accelerators_the_fast_one_first() -> None:
    found = prospects("kvm", "a test guest ran on it", "", "auto")
    assert [(one.accelerator, one.usable) for one in found] == [("kvm", True), ("tcg", True)]


def test_host_whose_kvm_is_refused_says_why_and_tries_emulation() -> None:
    found = prospects("tcg", "no permission for /dev/kvm", "usermod", "auto")
    assert found[0] == AcceleratorOutlook("kvm", usable=False, reason="no permission for /dev/kvm", hint="usermod")
    assert found[1].usable


@pytest.mark.parametrize("setting", ["kvm", "tcg"])
def test_accelerator_set_by_hand_is_the_only_one_tried(setting: str) -> None:
    found = prospects(setting, "vmm.accelerator is set", "", setting)
    assert [one.accelerator for one in found if one.usable] == [setting]
    assert all(f"vmm.accelerator is {setting}" in one.reason for one in found if not one.usable)


def test_every_usable_accelerator_meets_every_network_and_the_others_are_named_once() -> None:
    found = candidates(prospects("tcg", "there is no /dev/kvm", "", "auto"), ["qemu"], ["user", "tap"])
    assert [(one.prospect.accelerator, one.network) for one in found] == [
        ("kvm", "user"),
        ("tcg", "user"),
        ("tcg", "tap"),
    ]


HERE = {
    "debian": {"name": "debian", "size_bytes": 900},
    "big": {"name": "big", "size_bytes": 500},
    "small": {"name": "small", "size_bytes": 5},
    "": {"name": "", "size_bytes": 1},
}


@pytest.mark.parametrize(
    ("names", "wish", "chosen"),
    [
        (["debian", "small"], "big", "big"),
        (["debian", "small"], "", "debian"),
        (["big", "small"], "", "small"),
        (["", "big"], "", "big"),
        ([""], "", "debian"),
        ([], "", "debian"),
    ],
)
def test_image_is_the_wish_or_the_default_or_the_smallest_that_is_here(
    names: list[str], wish: str, chosen: str
) -> None:
    assert chosen_image({name: HERE[name] for name in names}, wish, "debian") == chosen


@pytest.mark.parametrize(
    ("machines", "host", "ok"),
    [
        ([machine(OK)], [OK], True),
        ([machine(usable=False), machine(OK)], [], True),
        ([machine(OK, Row("dns", Verdict.NOTE, "no upstream"))], [OK], True),
        ([machine(OK, FAILED)], [OK], False),
        ([machine(OK)], [FAILED], False),
        ([machine(usable=False)], [OK], False),
    ],
)
def test_all_is_well_if_something_was_tried_and_nothing_failed(
    machines: list[MachineReport], host: list[Row], ok: bool
) -> None:
    assert is_ok(machines, host) is ok


def test_failed_row_shows_time_cause_and_hint_in_one_column() -> None:
    lines = row_text(FAILED, PIPE).splitlines()
    assert lines[0].split() == ["failed", "root", "1.50", "s", "cannot", "be", "written"]
    column = lines[0].index("cannot")
    assert [line[column:] for line in lines[1:]] == [
        "cause: Read-only file system",
        "       really",
        "hint: --init none",
    ]


def test_what_a_guest_printed_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in row_text(Row("kernel", Verdict.FAILED, "\x1b[2J", cause="\x1b]0;title", hint="h"), PIPE)


def test_accelerator_that_is_left_out_says_why_and_what_to_type() -> None:
    prospect = AcceleratorOutlook("kvm", usable=False, reason="there is no /dev/kvm", hint="modprobe kvm-intel")
    text = machine_text(Candidate(prospect, "qemu", "user"), PIPE)
    assert text == "kvm: not usable: there is no /dev/kvm\n  hint: modprobe kvm-intel\n"


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        ((machine(OK, OK),), "everything works: 3 checks in 12.00 s"),
        ((machine(OK, FAILED),), "1 of 3 checks failed, in 12.00 s"),
        ((machine(usable=False),), "nothing could be tried, in 12.00 s"),
    ],
)
def test_last_line_sums_up(machines: tuple[MachineReport, ...], said: str) -> None:
    report = Report(is_ok(machines, (OK,)), "debian", "", machines, (OK,), 12.0)
    assert summary_text(report, PIPE).strip() == said
