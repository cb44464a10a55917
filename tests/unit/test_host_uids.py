"""Users for VMMs: one each, nobody else's, and the same again after a restart."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.uid_span import parse_span
from banger.host import uids
from banger.host.uids import VmmUids, all_held, held_by
from tests.support.netlab import MemoryLedger

SPAN = range(2_000_000_000, 2_000_000_008)


@pytest.fixture
def ledgers() -> MemoryLedger:
    return MemoryLedger()


Make = Callable[..., VmmUids]


@pytest.fixture
def make(ledgers: MemoryLedger) -> Make:
    def make(span: range = SPAN, installation: str = "0123456789ab") -> VmmUids:
        return VmmUids(span, installation, lambda: all_held(ledgers.all()))

    return make


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc/subuid of this test."""
    monkeypatch.setattr(uids, "_GIVEN_AWAY", (tmp_path / "subuid", tmp_path / "subgid"))
    return tmp_path


@pytest.mark.usefixtures("accounts")
def test_vms_that_start_at_once_get_a_user_each_until_there_are_no_more(make: Make, ledgers: MemoryLedger) -> None:
    users, given = make(), []

    def take(vm_id: str) -> None:
        given.append(users.take(vm_id, ledgers.of_vm(vm_id)))

    threads = [threading.Thread(target=take, args=(f"vm{number}",)) for number in range(len(SPAN))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(SPAN)
    with pytest.raises(BangerError) as caught:
        users.take("one more", ledgers.of_vm("one more"))
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "vmm.jail_uids" in caught.value.hint
    ledgers.of_vm("vm3").strike(uids.KIND)
    assert users.take("one more", ledgers.of_vm("one more")) not in all_held(
        one for one in ledgers.all() if one.vm_id != "one more"
    )


@pytest.mark.usefixtures("accounts")
def test_vm_keeps_its_user_over_a_restart_of_the_daemon_and_mostly_gets_it_again(
    make: Make, ledgers: MemoryLedger
) -> None:
    mine = ledgers.of_vm("vm1")
    first = make().take("vm1", mine)
    assert make().take("vm1", mine) == first == held_by(mine)
    mine.strike(uids.KIND)
    assert held_by(mine) == 0
    assert make().take("vm1", mine) == first


@pytest.mark.usefixtures("accounts")
def test_two_installations_begin_at_different_places(make: Make, ledgers: MemoryLedger) -> None:
    span = range(2_000_000_000, 2_001_000_000)
    given = {make(span, mark).take("vm1", ledgers.of_vm(mark)) for mark in ("0123456789ab", "ba9876543210")}
    assert len(given) == 2


@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_user_that_is_given_away_in_subuid_is_nobodys(
    make: Make, ledgers: MemoryLedger, accounts: Path, file: str
) -> None:
    (accounts / file).write_text(f"# nonsense\nalice:{SPAN.start}:{len(SPAN) - 1}\nbob:x:y\nalice:1\n")
    assert make().take("vm1", ledgers.of_vm("vm1")) == SPAN[-1]


@pytest.mark.parametrize("known", ["getpwuid", "getgrgid"])
@pytest.mark.usefixtures("accounts")
def test_user_or_group_that_has_a_name_is_nobodys(
    make: Make, ledgers: MemoryLedger, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    def only_the_last(number: int) -> str:
        if number == SPAN[-1]:
            raise KeyError
        return "somebody"

    monkeypatch.setattr(uids.pwd if known == "getpwuid" else uids.grp, known, only_the_last)
    assert make().take("vm1", ledgers.of_vm("vm1")) == SPAN[-1]


@pytest.mark.usefixtures("accounts")
def test_user_of_a_running_process_is_nobodys(make: Make, ledgers: MemoryLedger) -> None:
    own = os.geteuid()
    with pytest.raises(BangerError):
        make(range(own, own + 1)).take("vm1", ledgers.of_vm("vm1"))


@pytest.mark.usefixtures("accounts")
def test_user_that_this_container_does_not_have_is_nobodys(
    make: Make, ledgers: MemoryLedger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "map").write_text(f"         0     100000      65536\n{SPAN[3]} 1000 1\n")
    monkeypatch.setattr(uids, "_MAPS", (tmp_path / "map",))
    assert make().take("vm1", ledgers.of_vm("vm1")) == SPAN[3]


def test_without_a_range_nobody_gets_a_user(make: Make, ledgers: MemoryLedger) -> None:
    assert make(range(0)).take("vm1", ledgers.of_vm("vm1")) == 0
    assert ledgers.all() == []


@pytest.mark.parametrize("text", ["", "5", "0-10", "10-5", "a-b", "-5", "5-", "1-2147483648", "1-2-3", "٣-٤٠"])
def test_range_of_users_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_span(text)
    assert (caught.value.kind, caught.value.subject) == (ErrorKind.USAGE, "vmm.jail_uids")


def test_range_of_users_includes_both_ends() -> None:
    assert parse_span("2100000000 - 2100000001") == range(2_100_000_000, 2_100_000_002)
